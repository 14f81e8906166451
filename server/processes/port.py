"""The short way of plain calls and their answers, where it was built: from arrays to the socket and back.

What is not plain goes the long way, through :mod:`.cargo`, :mod:`.framing` and :mod:`.link`, and so does
everything where the compiled module is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy.typing as npt

from ...rpc.errors import RpcError
from ...rpc.switch import pure_python
from ...rpc.wire.header import Interner, ReplySignature, Signature
from .cargo import Inbound, Outbound
from .link import Link, Received

Array = npt.NDArray[Any]


class Answer(NamedTuple):
    """What became of a call: outputs in the order asked for, read-only, or an error."""

    call_id: int
    outputs: list[Array] | None
    error: RpcError | None
    #: What the model took, as the child measured it.
    compute_seconds: float
    #: The deadline of the call passed before it began; it was not run.
    expired: bool = False


class Port(Protocol):
    """Sends and receives what is plain. It shares arenas and known headers with the long way."""

    def send_call(
        self,
        call_id: int,
        inputs: Mapping[str, Sequence[Array]],
        padding: int,
        outputs: tuple[str, ...],
        deadline_us: int,
    ) -> bool | bytes:
        """Send a call. True: it is on its way; False: it is not plain, and nothing was done; else the
        message, for which the socket has no room.

        Raises:
            Closed: nobody is there to read it.
        """
        ...

    def receive_answer(self, wanted: dict[int, tuple[str, ...]]) -> Answer | Received | None:
        """Receive an answer to a call that is ``wanted``, which it then is not any more; None if there is
        none. A message that is no plain answer, whatever else it is, is given back as it came.

        Raises:
            Closed, ProtocolError: as :meth:`.link.Link.receive`, or it frees what is not in use.
        """
        ...

    @property
    def call_id(self) -> int:
        """Of the call that was received last."""
        ...

    @property
    def wanted(self) -> tuple[str, ...]:
        """The outputs that it asks for."""
        ...

    def receive_call(self) -> Received | None:
        """Wait for a call. None: it was a plain one, which this now has; else the message as it came."""
        ...

    def take_inputs(self) -> dict[str, Array]:
        """The inputs of the call that was received; from then on the caller's only."""
        ...

    def pack(self, names: tuple[str, ...], outputs: Sequence[Array]) -> bool:
        """Copy a call's outputs to where the parent reads them. False: they are not plain."""
        ...

    def post(self, call_id: int, seconds: float) -> None:
        """Answer a call with what was packed, and with all blocks that nobody uses any more."""
        ...


def make_port(
    link: Link,
    inbound: Inbound,
    outbound: Outbound,
    signatures: Interner[Signature] | Interner[ReplySignature],
    *,
    blocking: bool,
) -> Port | None:
    """A port; None where there is none.

    Args:
        signatures: headers that the long way has decoded.
        blocking: as that of ``link``.
    """
    if pure_python():
        return None
    try:
        # Here, and not above: it may not be there.
        from .compiled import CompiledPort
    except ImportError:
        return None
    return CompiledPort(link, inbound, outbound, signatures, blocking=blocking)
