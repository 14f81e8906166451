"""An acceptor process: ``python -m tensorwire.server.acceptor.process NAME PARENT CONTROL LISTENER TALLY``.

The server starts it (:class:`.fleet.Fleet`); the arguments are its process id, and descriptors that are
inherited. What to do comes through the control socket, which then only tells whether the server is there.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import select
import socket
import sys
from typing import Final, NamedTuple

import msgspec
import zmq

from ...manager.memory import use_one_heap
from ...rpc.pump import make_pump
from ...rpc.transport import AnyContext, bind_router
from ..interpreter import tune_interpreter
from ..logs import set_up_logging
from ..processes.lifeline import end_with_parent, leave_signals_to_parent
from .link import Link
from .loop import Acceptor
from .port import BACKLOG
from .tally import Tally

#: What is sent when clients are accepted.
LISTENING: Final = b"listening"
_MAX_PLAN: Final = 65_536
#: Milliseconds for the connection to the server, which is there.
_CONNECT_MS: Final = 10_000
#: Milliseconds for the last replies to leave.
_LINGER_MS: Final = 1000


class Plan(msgspec.Struct, frozen=True):
    """What an acceptor is told.

    Attributes:
        endpoint: where it listens.
        server: address of the server's own socket.
        identity: its name there.
    """

    endpoint: str
    server: str
    identity: bytes
    max_frame_bytes: int
    max_peer_bytes: int
    log_level: str


class Inherited(NamedTuple):
    """Arguments, behind the name that ``ps`` shows."""

    parent: int
    control: int
    listener: int
    tally: int


def _connected(context: AnyContext, plan: Plan) -> Link:
    """A connection that stands: whoever connects is answered."""
    link = Link(context, plan.server, plan.identity)
    poll = select.poll()
    poll.register(link.monitor_fd, select.POLLIN)
    link.observe()
    while not link.up:
        if not poll.poll(_CONNECT_MS):
            raise TimeoutError(f"no connection to the server at {plan.server}")
        link.observe()
    return link


def _accept(plan: Plan, control: socket.socket, listener: socket.socket, tally: Tally) -> None:
    """Serve until the server is gone."""
    context: AnyContext = zmq.Context()
    link = _connected(context, plan)
    listener.listen(BACKLOG)
    router = bind_router(context, plan.endpoint, plan.max_frame_bytes, listener)
    pump = make_pump(router, max_peer_nbytes=plan.max_peer_bytes)
    acceptor = Acceptor(link, router, pump, tally)
    tune_interpreter()
    control.send(LISTENING)
    acceptor.run()
    router.close(linger=_LINGER_MS)
    link.close()
    context.term()


def main(arguments: list[str]) -> None:
    """What the process does."""
    inherited = Inherited(*map(int, arguments[1:]))
    for fd in inherited[1:]:
        os.set_inheritable(fd, False)
    end_with_parent(inherited.parent, inherited.control)
    leave_signals_to_parent()
    faulthandler.enable()
    use_one_heap()
    set_up_logging()
    control = socket.socket(fileno=inherited.control)
    plan = msgspec.msgpack.decode(control.recv(_MAX_PLAN), type=Plan)
    logging.getLogger("tensorwire").setLevel(plan.log_level)
    tally = Tally(inherited.tally)
    os.close(inherited.tally)
    _accept(plan, control, socket.socket(fileno=inherited.listener), tally)


if __name__ == "__main__":
    main(sys.argv[1:])
