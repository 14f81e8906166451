"""The gRPC system under test, server side: ``grpc.aio`` with KServe v2 ``ModelInfer``.

Everything behind the RPC layer is shared with tensorwire (manager, handle, engine), and requests are batched
continuously, so only the RPC layer differs. The defaults are the fastest settings that were measured; the
options exist so that the measurement can be repeated.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, cast

import grpc
import grpc.aio

from ...manager.memory import use_one_heap
from ...rpc.errors import RpcError
from ..child import Ready, run_loop, say, when_stdin_closes
from . import kserve
from .backend import Backend, ManagerBackend, Tensor
from .batcher import MicroBatcher
from .codec import Responder, Signature, batch_rows, decode, signature_of
from .grpc_options import server_options, server_parser, tune_interpreter

_aio = cast(Any, grpc.aio)
_grpc = cast(Any, grpc)


class InferenceService:
    """``ModelInfer`` over a backend, with one micro-batcher per model and signature.

    Args:
        executor: runs the batches; None: they are run in the event loop.
        workers: batches of one signature that may run in the executor at the same time.
    """

    def __init__(
        self, backend: Backend, executor: Executor | None, max_batch_bytes: int, workers: int = 1
    ) -> None:
        self._backend = backend
        self._executor = executor
        self._workers = workers
        self._max_batch_bytes = max_batch_bytes
        self._batchers: dict[Signature, MicroBatcher] = {}
        self._responder = Responder(backend)

    async def model_infer(self, request: kserve.ModelInferRequest, context: Any) -> kserve.ModelInferResponse:
        """Answer one request.

        Status: INVALID_ARGUMENT for a datatype or a byte count that cannot be right; what the manager and the
        engine raise (NOT_FOUND, ...) under its own code.
        """
        model = request.model_name
        try:
            inputs = decode(request)
        except (KeyError, ValueError, TypeError) as error:
            await context.abort(_grpc.StatusCode.INVALID_ARGUMENT, f"bad input for model {model!r}: {error}")
            raise
        try:
            rows = len(next(iter(inputs.values())))
            outputs = await self._batcher(model, inputs).submit(inputs, rows)
        except RpcError as error:
            await context.abort(status_of(error.code), error.message)
            raise
        return self._responder.respond(model, outputs)

    def _batcher(self, model: str, inputs: dict[str, Tensor]) -> MicroBatcher:
        signature = signature_of(model, inputs)
        batcher = self._batchers.get(signature)
        if batcher is None:
            limit = batch_rows(self._backend, model, inputs, self._max_batch_bytes)
            batcher = MicroBatcher(self._backend.runner(model), limit, self._executor, self._workers)
            self._batchers[signature] = batcher
        return batcher


def status_of(code: int) -> Any:
    """gRPC's own object for a code."""
    return next((status for status in _grpc.StatusCode if status.value[0] == code), _grpc.StatusCode.UNKNOWN)


async def serve(infer: Any, bind: str, *, share_port: bool = False, limit: int = 0) -> tuple[Any, int]:
    """Start a server whose ``ModelInfer`` is ``infer``.

    Args:
        bind: ``host:port``; port 0 for any.
        share_port: other processes listen at the same port.
        limit: calls at the same time; more are refused with RESOURCE_EXHAUSTED. 0: no limit.

    Returns:
        The server and its port.
    """
    options = server_options(share_port=share_port)
    server = _aio.server(options=options, maximum_concurrent_rpcs=limit or None)
    port = add_service(server, infer, bind)
    await server.start()
    return server, port


def add_service(server: Any, infer: Any, bind: str) -> int:
    """Have a server, of either kind, answer ``ModelInfer`` at an address; returns the port."""
    handler = _grpc.unary_unary_rpc_method_handler(
        infer,
        request_deserializer=kserve.parse_request,
        response_serializer=kserve.serialize_response,
    )
    handlers = {kserve.METHOD: handler}
    server.add_registered_method_handlers(kserve.SERVICE, handlers)
    server.add_generic_rpc_handlers((_grpc.method_handlers_generic_handler(kserve.SERVICE, handlers),))
    port: int = server.add_insecure_port(bind)
    return port


async def run(infer: Any, bind: str, *, share_port: bool = False, limit: int = 0) -> None:
    """Serve as :func:`serve`, say where, and stop when stdin closes or on SIGTERM."""
    host = bind.rpartition(":")[0]
    server, port = await serve(infer, bind, share_port=share_port, limit=limit)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    when_stdin_closes(lambda: loop.call_soon_threadsafe(stopped.set))
    tune_interpreter()
    say(Ready(f"{host}:{port}"))
    await stopped.wait()
    await server.stop(grace=None)


async def _main(options: argparse.Namespace) -> None:
    use_one_heap()
    with ExitStack() as stack:
        backend = stack.enter_context(ManagerBackend(options.repository))
        executor = stack.enter_context(ThreadPoolExecutor(options.executor)) if options.executor else None
        service = InferenceService(backend, executor, options.max_batch_bytes, max(1, options.executor))
        limit = options.max_concurrent_rpcs
        await run(service.model_infer, options.bind, share_port=options.share_port, limit=limit)
        # Last words, for who wants to know how the batches were.
        print(f"batches: {json.dumps(backend.counted)}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve a repository until stdin closes."""
    parser = server_parser(__doc__)
    parser.add_argument(
        "--share-port", action="store_true", help="SO_REUSEPORT: other processes listen at the same port"
    )
    parser.add_argument(
        "--max-concurrent-rpcs",
        type=int,
        default=0,
        metavar="N",
        help="calls at the same time, of each process; others are refused; 0 (default): no limit",
    )
    run_loop(_main(parser.parse_args(arguments)))


if __name__ == "__main__":
    main()
