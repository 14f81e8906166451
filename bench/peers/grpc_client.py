"""The gRPC systems under test, client side: KServe v2 ``ModelInfer``, asynchronous and blocking."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from itertools import cycle
from typing import Any, Final, cast

import grpc
import grpc.aio
import numpy as np

from ..models import INPUT, Array, Case
from ..systems import CALL_TIMEOUT, Answer, AsyncCall, SyncCall
from . import kserve
from .codec import DATATYPES, DTYPES
from .grpc_options import CHANNEL_OPTIONS

_grpc = cast(Any, grpc)
_aio = cast(Any, grpc.aio)
#: The kernel deals them out by a hash: that all of eight land at one of two servers has a chance of 1 in 128.
_CHANNELS: Final = 8


class _Message:
    """Requests of one kind; what does not change between them is copied from a template, which is faster."""

    def __init__(self, case: Case, inputs: Array) -> None:
        self._template = kserve.new_request(case.model, INPUT, DATATYPES[inputs.dtype], inputs.shape)
        self._new = type(self._template)
        self._bytes = inputs.tobytes

    def build(self) -> kserve.ModelInferRequest:
        """A new one, tensor included."""
        request = self._new()
        request.CopyFrom(self._template)
        request.raw_input_contents.append(self._bytes())
        return request


def _outputs(response: kserve.ModelInferResponse) -> Mapping[str, Any]:
    return {
        tensor.name: np.frombuffer(raw, DTYPES[tensor.datatype]).reshape(tensor.shape)
        for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def _stub(channel: Any) -> Any:
    return channel.unary_unary(
        kserve.PATH,
        request_serializer=kserve.serialize_request,
        response_deserializer=kserve.parse_response,
    )


class GrpcSystem:
    """Callers spread over one or several channels."""

    def __init__(self, channels: list[Any]) -> None:
        self._stubs = cycle([_stub(channel) for channel in channels])

    def caller(self, case: Case, inputs: Array, timeout: float = CALL_TIMEOUT) -> AsyncCall:
        stub, build = next(self._stubs), _Message(case, inputs).build

        async def call() -> Answer:
            return _outputs(await stub(build(), timeout=timeout))

        return call

    def code_of(self, error: Exception) -> str:
        return _code_of(error)


class BlockingGrpcSystem:
    """One channel for all threads."""

    def __init__(self, channel: Any) -> None:
        self._call = _stub(channel)

    def caller(self, case: Case, inputs: Array, timeout: float = CALL_TIMEOUT) -> SyncCall:
        stub, build = self._call, _Message(case, inputs).build
        return lambda: _outputs(stub(build(), timeout=timeout))

    def code_of(self, error: Exception) -> str:
        return _code_of(error)


def _code_of(error: Exception) -> str:
    if isinstance(error, grpc.RpcError):
        return cast(str, cast(Any, error).code().name)
    return type(error).__name__


@asynccontextmanager
async def open_client(address: str) -> AsyncGenerator[GrpcSystem]:
    """Connect to ``host:port`` over one channel."""
    async with _connected(address, 1) as system:
        yield system


@asynccontextmanager
async def open_channels(address: str) -> AsyncGenerator[GrpcSystem]:
    """Connect to ``host:port`` over several channels with a connection each."""
    async with _connected(address, _CHANNELS) as system:
        yield system


@asynccontextmanager
async def _connected(address: str, count: int) -> AsyncGenerator[GrpcSystem]:
    # Without a pool of its own every channel would share one connection.
    options = [*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", int(count > 1))]
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(_aio.insecure_channel(address, options=options))
            for _ in range(count)
        ]
        for channel in channels:
            await channel.channel_ready()
        yield GrpcSystem(channels)


@contextmanager
def open_blocking(address: str) -> Generator[BlockingGrpcSystem]:
    """Connect to ``host:port`` over one channel; blocks until it is there.

    Raises:
        grpc.FutureTimeoutError: nobody answers there.
    """
    with _grpc.insecure_channel(address, options=list(CHANNEL_OPTIONS)) as channel:
        _grpc.channel_ready_future(channel).result(CALL_TIMEOUT)
        yield BlockingGrpcSystem(channel)
