"""The caller of part ``lone``, in its own process: ``python -m tensorwire.bench.front.lone_caller SPEC``.

SPEC is a :class:`Cast` as JSON. Each number that comes as a line on stdin is a round of so many turns,
answered with a :class:`Round`; it stops when stdin closes. All systems are called from this one process, turn
by turn: whatever core it is on and however the machine does, they share it.
"""

from __future__ import annotations

import gc
import sys
import time
from array import array
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import msgspec
import numpy as np
import zmq

from ...rpc.ends import make_exchange
from ...rpc.transport import connect_dealer, descriptor
from ...rpc.wire.header import Interner, ReplySignature
from .. import echo
from ..child import Ready, say
from ..models import CASE_OF_NAME, OUTPUT, Array, Case
from ..peers.tensorwire_client import open_sync
from ..quick import rotated
from ..systems import CALL_TIMEOUT, SyncCall

CLIENT: Final = "tensorwire sync"
#: Ways to an echo: what pyzmq offers, and what tensorwire's own client sends, sleeps and receives with.
DEALER: Final = "pyzmq DEALER"
EXCHANGE: Final = "compiled exchange"
CASE: Final = "64 B"
#: Calls of a turn that do not count: another system has just been at work.
UNCOUNTED: Final = 8
#: What stands between the id and the tensor of a request, in nothing but size.
_TAIL: Final = bytes(32)


class Cast(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to call. ``echoes``: name -> address; ``calls``: of a turn."""

    address: str
    echoes: dict[str, str]
    calls: int = 60


class Round(msgspec.Struct, frozen=True):
    """Latencies by system, as native float64 in seconds. The ways to an echo are ``ECHO, WAY``."""

    seconds: dict[str, bytes]

    def p50(self, system: str) -> float:
        """Median latency in seconds."""
        return float(np.median(np.frombuffer(self.seconds[system], np.float64)))


@contextmanager
def open_exchange(address: str) -> Generator[SyncCall | None]:
    """A call of an echo by the compiled exchange; None where that was not built."""
    x = CASE_OF_NAME[CASE].inputs(1)[0]
    with zmq.Context() as context, connect_dealer(context, address) as socket:
        exchange = make_exchange(socket, descriptor(socket), Interner(ReplySignature), 0.0)
        if exchange is None:
            yield None
            return
        exchange_call = exchange.call

        def call() -> dict[str, Any]:
            # What comes back is a request, so it is handed out as it is.
            found = exchange_call(1, _TAIL, x, CALL_TIMEOUT)
            if not isinstance(found, tuple):
                raise TimeoutError(f"the echo said nothing for {CALL_TIMEOUT:g} s")
            return {OUTPUT: found[0]}

        yield call


def play(calls: dict[str, SyncCall], turns: int, each: int) -> Round:
    """Call every system in so many turns, each first, second, ... equally often."""
    found = {name: array("d") for name in calls}
    gc.collect()
    gc.freeze()
    for turn in range(turns):
        for name in rotated(tuple(calls), turn):
            _turn(calls[name], each, found[name])
    return Round({name: seconds.tobytes() for name, seconds in found.items()})


def _turn(call: SyncCall, each: int, seconds: array[float]) -> None:
    record, clock = seconds.append, time.perf_counter
    for _ in range(UNCOUNTED):
        call()
    started = clock()
    for _ in range(each):
        call()
        ended = clock()
        record(ended - started)
        started = ended


def _verified(call: SyncCall, case: Case, x: Array) -> SyncCall:
    case.verify(x, call()[OUTPUT])
    return call


def _main(cast: Cast) -> None:
    case = CASE_OF_NAME[CASE]
    x = case.inputs(1)[0]
    with ExitStack() as stack:
        client = stack.enter_context(open_sync(cast.address))
        calls = {CLIENT: _verified(client.caller(case, x), case, x)}
        for name, address in cast.echoes.items():
            dealer = stack.enter_context(echo.open_client(address))
            calls[f"{name}, {DEALER}"] = dealer.caller(case, x)
            exchange = stack.enter_context(open_exchange(address))
            if exchange is not None:
                calls[f"{name}, {EXCHANGE}"] = exchange
        say(Ready())
        for line in sys.stdin.buffer:
            say(play(calls, msgspec.json.decode(line, type=int), cast.calls))


if __name__ == "__main__":
    _main(msgspec.json.decode(sys.argv[1], type=Cast))
