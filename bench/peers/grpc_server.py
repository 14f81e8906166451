"""The gRPC system under test, server side: ``grpc.aio`` with KServe v2 ``ModelInfer``.

Everything behind the RPC layer is shared with tensorwire (manager, handle, engine), and requests are batched
continuously, so only the RPC layer differs. The defaults are the fastest settings that were measured; the
options exist so that the measurement can be repeated.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, cast

import grpc
import grpc.aio
import numpy as np

from ...manager.memory import use_one_heap
from ...rpc.errors import RpcError
from ..child import Ready, run_loop, say, when_stdin_closes
from . import kserve
from .backend import Backend, ManagerBackend, Tensor
from .batcher import MicroBatcher
from .grpc_options import CHANNEL_OPTIONS

#: KServe datatype -> NumPy dtype, for the types that the benchmark's models use.
DTYPES: Final = {"FP32": np.dtype("<f4"), "FP64": np.dtype("<f8"), "INT64": np.dtype("<i8")}
_DATATYPES: Final = {dtype: name for name, dtype in DTYPES.items()}

_aio = cast(Any, grpc.aio)
_grpc = cast(Any, grpc)


class InferenceService:
    """``ModelInfer`` over a backend, with one micro-batcher per model and signature."""

    def __init__(self, backend: Backend, executor: Executor | None, max_batch_bytes: int) -> None:
        self._backend = backend
        self._executor = executor
        self._max_batch_bytes = max_batch_bytes
        self._batchers: dict[tuple[Any, ...], MicroBatcher] = {}
        self._templates: dict[tuple[Any, ...], kserve.ModelInferResponse] = {}

    async def model_infer(self, request: kserve.ModelInferRequest, context: Any) -> kserve.ModelInferResponse:
        """Answer one request.

        Status: INVALID_ARGUMENT for a datatype or a byte count that cannot be right; what the manager and the
        engine raise (NOT_FOUND, ...) under its own code.
        """
        model = request.model_name
        try:
            inputs = _decode(request)
        except (KeyError, ValueError, TypeError) as error:
            await context.abort(_grpc.StatusCode.INVALID_ARGUMENT, f"bad input for model {model!r}: {error}")
            raise
        try:
            rows = len(next(iter(inputs.values())))
            outputs = await self._batcher(model, inputs, rows).submit(inputs, rows)
        except RpcError as error:
            await context.abort(_status_of(error.code), error.message)
            raise
        return self._respond(model, outputs)

    def _batcher(self, model: str, inputs: dict[str, Tensor], rows: int) -> MicroBatcher:
        signature = (model, *((name, array.dtype, array.shape[1:]) for name, array in inputs.items()))
        batcher = self._batchers.get(signature)
        if batcher is None:
            row_bytes = sum(array.nbytes for array in inputs.values()) // max(rows, 1)
            limit = max(1, self._max_batch_bytes // max(row_bytes, 1))
            limit = min(limit, self._backend.max_batch_size(model))
            batcher = MicroBatcher(self._backend.runner(model), limit, self._executor)
            self._batchers[signature] = batcher
        return batcher

    def _respond(self, model: str, outputs: Sequence[Tensor]) -> kserve.ModelInferResponse:
        signature = (model, *(array.shape for array in outputs))
        template = self._templates.get(signature)
        if template is None:
            template = kserve.new_response(model, str(self._backend.version(model)))
            for name, array in zip(self._backend.output_names(model), outputs, strict=True):
                template.outputs.add(name=name, datatype=_DATATYPES[array.dtype], shape=array.shape)
            self._templates[signature] = template
        response = type(template)()
        response.CopyFrom(template)
        response.raw_output_contents.extend([array.tobytes() for array in outputs])
        return response


def _decode(request: kserve.ModelInferRequest) -> dict[str, Tensor]:
    inputs: dict[str, Tensor] = {
        tensor.name: np.frombuffer(raw, DTYPES[tensor.datatype]).reshape(tensor.shape)
        for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
    }
    if not inputs:
        raise ValueError("the request has no inputs")
    return inputs


def _status_of(code: int) -> Any:
    return next((status for status in _grpc.StatusCode if status.value[0] == code), _grpc.StatusCode.UNKNOWN)


async def serve(
    backend: Backend, bind: str, *, executor: Executor | None, max_batch_bytes: int
) -> tuple[Any, int]:
    """Start a server on ``bind`` (``host:port``, port 0 for any); returns it and its port."""
    service = InferenceService(backend, executor, max_batch_bytes)
    server = _aio.server(options=(*CHANNEL_OPTIONS, ("grpc.so_reuseport", 0)))
    handler = _grpc.unary_unary_rpc_method_handler(
        service.model_infer,
        request_deserializer=kserve.parse_request,
        response_serializer=kserve.serialize_response,
    )
    handlers = {kserve.METHOD: handler}
    server.add_registered_method_handlers(kserve.SERVICE, handlers)
    server.add_generic_rpc_handlers((_grpc.method_handlers_generic_handler(kserve.SERVICE, handlers),))
    port: int = server.add_insecure_port(bind)
    await server.start()
    return server, port


async def _main(options: argparse.Namespace) -> None:
    use_one_heap()
    with ExitStack() as stack:
        backend = stack.enter_context(ManagerBackend(options.repository))
        executor = stack.enter_context(ThreadPoolExecutor(1)) if options.executor else None
        host: str = options.bind.rpartition(":")[0]
        server, port = await serve(
            backend, options.bind, executor=executor, max_batch_bytes=options.max_batch_bytes
        )
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, stopped.set)
        when_stdin_closes(lambda: loop.call_soon_threadsafe(stopped.set))
        _tune_interpreter()
        say(Ready(f"{host}:{port}"))
        await stopped.wait()
        await server.stop(grace=None)


def _tune_interpreter() -> None:
    """What ``tensorwire serve`` sets for its process, so that neither side has an advantage there."""
    sys.setswitchinterval(0.0005)
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve a repository until stdin closes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("repository", type=Path)
    parser.add_argument("--bind", default="127.0.0.1:0", help="host:port; port 0 takes a free one")
    parser.add_argument(
        "--executor", action="store_true", help="run batches in a thread instead of inline in the event loop"
    )
    parser.add_argument(
        "--max-batch-bytes",
        type=int,
        default=1 << 23,
        help="input bytes that are copied together into a batch",
    )
    run_loop(_main(parser.parse_args(arguments)))


if __name__ == "__main__":
    main()
