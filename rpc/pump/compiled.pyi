"""The pump, compiled; see ``compiled.pyx``. Not there where it was not built."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy.typing as npt
import zmq

from ..wire.header import Interner, Signature
from .bundle import Slice
from .interface import Counters, Drained, ReplyTemplate

class CompiledPump:
    counters: Counters
    def __init__(
        self,
        socket: zmq.Socket[bytes],
        *,
        clock: Callable[[], float] = ...,
        signatures: Interner[Signature] | None = None,
        max_peer_nbytes: int = ...,
    ) -> None: ...
    def drain(self, limit: int = 1024) -> Drained: ...
    def reply(
        self,
        part: Slice,
        template: ReplyTemplate,
        outputs: Sequence[npt.NDArray[Any]],
        row: int,
        queue_us: int,
        compute_us: int,
    ) -> None: ...
    def fail(self, part: Slice, code: int, message: str) -> None: ...
    def send(self, peer: bytes, frame: bytes) -> None: ...
    def flush(self) -> bool: ...
    @property
    def holding(self) -> bool: ...

class Sender:
    def __init__(self, socket: zmq.Socket[bytes]) -> None: ...
    def send(self, frame: memoryview | bytes | bytearray, flags: int) -> None: ...
    def settle(self) -> bool: ...

class Receiver:
    def __init__(self, socket: zmq.Socket[bytes]) -> None: ...
    def one(self, deliver: Callable[[bytes | memoryview, Sequence[memoryview]], None]) -> bool: ...
    def all(self, deliver: Callable[[bytes | memoryview, Sequence[memoryview]], None]) -> None: ...

def fast_paths() -> dict[str, bool]:
    """Which of the short cuts around Python are in use: without one, everything works, more slowly."""
