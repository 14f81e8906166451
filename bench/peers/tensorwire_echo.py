"""tensorwire's RPC layer alone: the server's pump, answered at once, no scheduler and no model behind it.

Requests of any model with a float32 row of at least four elements are answered with its first 16 bytes.
"""

from __future__ import annotations

import os
from typing import Final

import zmq

from ...rpc.pump import Bundle, Pump, ReplyTemplate, make_pump, whole
from ...rpc.transport import bind_router, last_endpoint
from ...rpc.wire.header import Layout, ReplyHeader, TensorHeader, encode_header
from ..child import Ready, say, when_stdin_closes
from ..models import OUTPUT, SIZED_REPLY
from .grpc_options import tune_interpreter

_MAX_FRAME: Final = 1 << 30
_ELEMENTS: Final = SIZED_REPLY // 4
_INVALID: Final = 3
#: As the server's front end drains.
_DRAIN_LIMIT: Final = 1024


class Echo:
    """Answers what a pump has drained."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump
        self._templates: dict[str, ReplyTemplate] = {}

    def drain(self) -> bool:
        """Answer everything that is there; returns whether there is more."""
        drained = self._pump.drain(_DRAIN_LIMIT)
        for bundle in drained.bundles:
            self._answer(bundle)
        return drained.more

    def _answer(self, bundle: Bundle) -> None:
        (block, *others) = bundle.inputs
        if others or block.ndim < 2 or block.dtype.str != "<f4" or block[0].size < _ELEMENTS:
            self._pump.fail(whole(bundle), _INVALID, "expected one float32 input, [rows, 4 or more]")
            return
        template = self._template(bundle.signature.header.model)
        rows = block.reshape(len(block), -1)
        self._pump.reply(whole(bundle), template, [rows[:, :_ELEMENTS]], 0, 0, 0)

    def _template(self, model: str) -> ReplyTemplate:
        template = self._templates.get(model)
        if template is None:
            tensors = (TensorHeader(OUTPUT, "float32", (_ELEMENTS,)),)
            header = encode_header(ReplyHeader(model, 1, tensors))
            template = self._templates[model] = ReplyTemplate(header, Layout(tensors, True))
        return template


def serve() -> None:
    """Answer on an ephemeral loopback port until stdin closes."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = bind_router(context, "tcp://127.0.0.1:0", _MAX_FRAME)
    stop = os.eventfd(0)
    when_stdin_closes(lambda: os.eventfd_write(stop, 1))
    echo = Echo(make_pump(socket))
    poller = zmq.Poller()
    poller.register(socket, zmq.POLLIN)
    poller.register(stop, zmq.POLLIN)
    tune_interpreter()
    say(Ready(last_endpoint(socket)))
    while stop not in dict(poller.poll()):
        while echo.drain():
            pass
    context.destroy(linger=0)


if __name__ == "__main__":
    serve()
