"""grpcio's blocking server: a pool of threads, ``ModelInfer`` of KServe v2, the same models behind it.

A request keeps its thread until it is answered, so a batch has at most as many as there are threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, cast

import grpc

from ...manager.memory import use_one_heap
from ...rpc.errors import RpcError
from ..child import Ready, say, stop_event
from . import kserve
from .backend import ManagerBackend
from .grpc_options import server_options, server_parser, tune_interpreter
from .grpc_server import add_service, status_of
from .threads import ThreadService

_grpc = cast(Any, grpc)
_THREADS: Final = 32


class Handler:
    """``ModelInfer`` of the blocking server."""

    def __init__(self, service: ThreadService) -> None:
        self._service = service

    def model_infer(self, request: kserve.ModelInferRequest, context: Any) -> kserve.ModelInferResponse:
        """Answer one request; the same statuses as those of the asynchronous server."""
        try:
            return self._service.infer(request)
        except RpcError as error:
            context.abort(status_of(error.code), error.message)
            raise


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve a repository until stdin closes."""
    parser = server_parser(__doc__)
    parser.add_argument("--threads", type=int, default=_THREADS, help="requests that are handled at a time")
    options = parser.parse_args(arguments)
    use_one_heap()
    stopped = stop_event()
    with ManagerBackend(options.repository) as backend, ThreadPoolExecutor(options.threads) as pool:
        server = _grpc.server(pool, options=server_options())
        service = ThreadService(backend, options.max_batch_bytes, max(1, options.executor))
        port = add_service(server, Handler(service).model_infer, options.bind)
        server.start()
        tune_interpreter()
        say(Ready(f"{options.bind.rpartition(':')[0]}:{port}"))
        stopped.wait()
        server.stop(grace=None).wait()


if __name__ == "__main__":
    main()
