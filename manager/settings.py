"""ManagerConfig: everything an operator can set about the manager as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

_Seconds = Annotated[float, msgspec.Meta(ge=0)]


class ManagerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the manager; durations are seconds, sizes are bytes."""

    #: Directory that holds ``<model>/<version>/``.
    repository: Path
    #: Time between two looks at the repository.
    poll_interval: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    #: A version without a manifest loads when nothing in it has changed for this long.
    settle_time: _Seconds = 2.0
    #: Memory for all versions together, by their estimates; ``None`` = no limit.
    ram_budget: Annotated[int, msgspec.Meta(gt=0)] | None = None
    #: Versions that load at the same time.
    load_threads: Annotated[int, msgspec.Meta(ge=1)] = 4
    #: Attempts after the first one when a load fails with an error that may pass.
    load_retries: Annotated[int, msgspec.Meta(ge=0)] = 3
    #: Wait before the first retry; doubles with each one.
    retry_backoff: _Seconds = 1.0
    #: Longest wait between two attempts.
    retry_backoff_max: _Seconds = 60.0
    #: Unload a model whose directory is gone. Off by default: a lost mount must not stop the service.
    remove_missing: bool = False
    #: How long ``close()`` waits for running requests before it leaves a version as it is.
    drain_timeout: _Seconds = 30.0
