"""The Thrift system under test, server side: ``TThreadedServer``, a thread for each connection.

Manager, handles and engine are tensorwire's, and the threads batch among themselves as those of the blocking
gRPC server do, so only the RPC layer differs.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Final, cast

import numpy as np
from thriftpy2.server import TThreadedServer
from thriftpy2.thrift import TProcessor
from thriftpy2.transport import TServerSocket

from ....manager.memory import use_one_heap
from ....rpc.errors import RpcError
from ...child import Ready, say, stop_event
from ..backend import Backend, ManagerBackend
from ..codec import DATATYPES, DTYPES
from ..grpc_options import server_parser, tune_interpreter
from ..threads import ThreadService
from .idl import IDL, protocol, transport

_BACKLOG: Final = 1024
_INVALID: Final = 3


class Handler:
    """The service of the IDL."""

    def __init__(self, service: ThreadService, backend: Backend) -> None:
        self._service = service
        self._backend = backend

    def infer(self, request: Any) -> Any:
        """Answer one request; ``InferError`` has the code and the message of what went wrong."""
        model = request.model_name
        try:
            inputs = {
                tensor.name: np.frombuffer(tensor.content, DTYPES[tensor.datatype]).reshape(tensor.shape)
                for tensor in request.inputs
            }
        except (KeyError, ValueError, TypeError) as error:
            raise IDL.InferError(_INVALID, f"bad input for model {model!r}: {error}") from None
        try:
            outputs = self._service.run(model, inputs)
            names, version = self._backend.output_names(model), str(self._backend.version(model))
        except RpcError as error:
            raise IDL.InferError(error.code, error.message) from None
        tensors = [
            IDL.Tensor(name, DATATYPES[array.dtype], list(array.shape), array.tobytes())
            for name, array in zip(names, outputs, strict=True)
        ]
        return IDL.InferResponse(model, version, tensors)


class _Listener(cast(Any, TServerSocket)):
    """Listens before the server does, so that its port is known."""

    def listen(self) -> None:
        if self.sock is None:
            parent: Any = super()
            parent.listen()


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve a repository until stdin closes."""
    options = server_parser(__doc__).parse_args(arguments)
    use_one_heap()
    stopped = stop_event()
    host, _, port = options.bind.rpartition(":")
    with ManagerBackend(options.repository) as backend:
        service = ThreadService(backend, options.max_batch_bytes, max(1, options.executor))
        listener = _Listener(host, int(port), client_timeout=None, backlog=_BACKLOG)
        listener.listen()
        processor = TProcessor(IDL.Inference, Handler(service, backend))
        server = cast(Any, TThreadedServer)(
            processor,
            listener,
            iprot_factory=protocol(),
            itrans_factory=transport(),
            daemon=True,
        )
        threading.Thread(target=server.serve, name="thrift-accept", daemon=True).start()
        tune_interpreter()
        say(Ready(f"{host}:{listener.sock.getsockname()[1]}"))
        stopped.wait()
        server.close()
        listener.close()


if __name__ == "__main__":
    main()
