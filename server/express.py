"""The short way from a bundle to its reply, for requests that run here the moment they arrive.

A version with nothing in flight has no queue to join, no limit to reach and no company to wait for: what
admission and scheduler would come to is known beforehand. What can be looked up once for a kind of request is
looked up once, and kept as long as the snapshot is the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..manager.handle import ServableHandle
from ..manager.snapshot import Snapshot
from ..rpc.errors import RpcError
from ..rpc.pump import Bundle, Pump, ReplyTemplate, Slice
from ..rpc.wire.header import Signature
from .batch import Batch, Outcome, Result, check_count, check_rows
from .binding import Binding
from .execution import called_by, drive, recover
from .runtime import VersionRuntime

Array = npt.NDArray[Any]
Answer = Callable[[VersionRuntime, Batch, Outcome], None]
_clock: Final = time.monotonic


class Express:
    """How whole bundles of one signature run on the version that a snapshot leads them to.

    Attributes:
        snapshot: the one for which this holds.
        runtime, binding: where the bundles go, and how they are run there; None: not known beforehand.
    """

    __slots__ = ("_names", "_template", "_template_of", "binding", "runtime", "snapshot")

    def __init__(self, signature: Signature, snapshot: Snapshot, runtime: VersionRuntime | None) -> None:
        """``runtime`` None: bundles of this signature always go the long way."""
        self.snapshot = snapshot
        self._names = signature.layout.names
        self.runtime = runtime
        self.binding: Binding | None = None
        self._template: ReplyTemplate | None = None
        self._template_of: list[tuple[np.dtype[Any], tuple[int, ...]]] = []
        if runtime is not None:
            self.binding = runtime.bindings.get(signature)
            if self.binding.error is not None or not self.binding.batched:
                self.runtime = None

    def run(self, bundle: Bundle, alone: bool, pump: Pump, answer: Answer) -> bool:
        """Run a bundle and answer it, if that is to be done here and now.

        Args:
            alone: nothing else has arrived with which it could share a batch.
            answer: answers a batch whose outcome is not simply outputs.

        Returns:
            False: nothing was done, the bundle goes the long way.
        """
        runtime = self.runtime
        rows = bundle.total_rows
        if (
            runtime is None
            or runtime.load.in_flight
            or not 0 < rows <= runtime.express_rows
            or not (alone or rows >= runtime.max_batch_size)
            or (runtime.padded and rows not in runtime.padded)
            or bundle.requests > runtime.load.max_in_flight
        ):
            return False
        begin = _clock()
        if begin < runtime.inline_from or begin >= bundle.earliest_deadline:
            return False
        runtime.active_at = begin
        handle = runtime.handle
        if not handle.acquire():
            return False
        try:
            self._run(runtime, bundle, begin, pump, answer)
        finally:
            handle.release()
        return True

    def _run(self, runtime: VersionRuntime, bundle: Bundle, begin: float, pump: Pump, answer: Answer) -> None:
        binding = self.binding
        assert binding is not None
        servable = runtime.handle.servable
        whole = Slice(bundle, 0, bundle.requests)
        runtime.counters.requests += bundle.requests
        try:
            outputs = servable.run(dict(zip(self._names, bundle.inputs, strict=True)), binding.outputs)
            template = self._known_template(outputs)
            if template is None:
                check_count(binding, outputs)
                check_rows(binding, outputs, bundle.total_rows)
        except Exception as error:  # noqa: BLE001 - foreign code: becomes a status, as in execute()
            batch = runtime.batch(binding, [whole], bundle.total_rows, begin)
            results = drive(recover(batch, servable.metadata, error), called_by(servable))
            answer(runtime, batch, Outcome(results, _clock() - begin, begin))
            return
        ended = _clock()
        if template is None:
            try:
                template = self._learn_template(runtime, binding, outputs)
            except RpcError:
                # Outputs of a kind that cannot be sent; who answers batches knows what to say.
                batch = runtime.batch(binding, [whole], bundle.total_rows, begin)
                answer(runtime, batch, Outcome([Result([whole], outputs)], ended - begin, begin))
                return
        waited = begin - bundle.received
        pump.reply(whole, template, outputs, 0, int(waited * 1e6), int((ended - begin) * 1e6))
        # Behind the reply: nobody waits for the accounts.
        runtime.counters.queue_seconds += waited * bundle.requests
        runtime.account_inline(bundle.total_rows, ended - begin)

    def _known_template(self, outputs: Sequence[Array]) -> ReplyTemplate | None:
        """The last reply's header, if these outputs look like those: then they were looked at, too."""
        if len(outputs) != len(self._template_of):
            return None
        for output, (dtype, shape) in zip(outputs, self._template_of, strict=True):
            if output.dtype is not dtype or output.shape != shape:
                return None
        return self._template

    def _learn_template(
        self, runtime: VersionRuntime, binding: Binding, outputs: Sequence[Array]
    ) -> ReplyTemplate:
        template = self._template = runtime.template(binding, outputs)
        self._template_of = [(output.dtype, output.shape) for output in outputs]
        return template


class ExpressWays:
    """The express ways that are known, by signature; those of an older snapshot are replaced one by one."""

    _KEPT: Final = 1024

    def __init__(self) -> None:
        self._known: dict[Signature, Express] = {}

    def get(self, signature: Signature, snapshot: Snapshot) -> Express | None:
        """What is known for a signature under this snapshot."""
        found = self._known.get(signature)
        return found if found is not None and found.snapshot is snapshot else None

    def put(self, signature: Signature, express: Express) -> None:
        """Remember; a client that varies its headers costs looking up, never memory."""
        if len(self._known) >= self._KEPT:
            self._known.clear()
        self._known[signature] = express

    def forget(self) -> None:
        """Let go of everything: a version that was retired must not be kept."""
        self._known.clear()


def single_version(snapshot: Snapshot, signature: Signature) -> ServableHandle | None:
    """The handle that all requests of a signature go to; None where a route decides, or nothing serves."""
    header = signature.header
    model = snapshot.models.get(header.model)
    if model is None or (model.route is not None and header.version is None and header.label is None):
        return None
    try:
        return snapshot.resolve(header.model, header.version, header.label)
    except RpcError:
        return None
