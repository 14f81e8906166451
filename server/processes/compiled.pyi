"""Plain calls, compiled; see ``compiled.pyx``. Not there where it was not built."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from ...rpc.wire.header import Interner, ReplySignature, Signature
from .cargo import Inbound, Outbound
from .link import Link, Received
from .port import Answer

class CompiledPort:
    def __init__(
        self,
        link: Link,
        inbound: Inbound,
        outbound: Outbound,
        signatures: Interner[Signature] | Interner[ReplySignature],
        *,
        blocking: bool,
    ) -> None: ...
    def send_call(
        self,
        call_id: int,
        inputs: Mapping[str, Sequence[npt.NDArray[Any]]],
        padding: int,
        outputs: tuple[str, ...],
        deadline_us: int,
    ) -> bool | bytes: ...
    def receive_answer(self, wanted: dict[int, tuple[str, ...]]) -> Answer | Received | None: ...
    @property
    def call_id(self) -> int: ...
    @property
    def wanted(self) -> tuple[str, ...]: ...
    def receive_call(self) -> Received | None: ...
    def take_inputs(self) -> dict[str, npt.NDArray[Any]]: ...
    def pack(self, names: tuple[str, ...], outputs: Sequence[npt.NDArray[Any]]) -> bool: ...
    def post(self, call_id: int, seconds: float) -> None: ...
