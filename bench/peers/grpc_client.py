"""The gRPC system under test, client side: ``grpc.aio`` with KServe v2 ``ModelInfer``."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import cycle
from typing import Any, cast

import grpc
import grpc.aio
import numpy as np

from ..models import INPUT, Array, Case
from ..systems import CALL_TIMEOUT, Answer, AsyncCall
from . import kserve
from .grpc_options import CHANNEL_OPTIONS, CHANNELS_VARIABLE

_aio = cast(Any, grpc.aio)


class GrpcSystem:
    """Callers spread over one or several channels."""

    def __init__(self, channels: list[Any]) -> None:
        self._stubs = cycle(
            channel.unary_unary(
                kserve.PATH,
                request_serializer=kserve.serialize_request,
                response_deserializer=kserve.parse_response,
            )
            for channel in channels
        )

    def caller(self, case: Case, inputs: Array, timeout: float = CALL_TIMEOUT) -> AsyncCall:
        # What does not change between calls is copied from a template: faster than building it anew.
        template = kserve.new_request(case.model, INPUT, "FP32", inputs.shape)
        stub, new = next(self._stubs), type(template)
        from_buffer, dtype = np.frombuffer, np.dtype("<f4")

        async def call() -> Answer:
            request = new()
            request.CopyFrom(template)
            request.raw_input_contents.append(inputs.tobytes())
            response: kserve.ModelInferResponse = await stub(request, timeout=timeout)
            return {
                tensor.name: from_buffer(raw, dtype).reshape(tensor.shape)
                for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True)
            }

        return call

    def code_of(self, error: Exception) -> str:
        if isinstance(error, _aio.AioRpcError):
            return cast(str, cast(Any, error).code().name)
        return type(error).__name__


@asynccontextmanager
async def open_client(address: str) -> AsyncGenerator[GrpcSystem]:
    """Connect to ``host:port`` over as many channels as the environment asks for (default 1)."""
    count = int(os.environ.get(CHANNELS_VARIABLE, "1"))
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
