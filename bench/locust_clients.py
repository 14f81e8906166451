"""tensorwire and gRPC for greenlets: what Locust's users call.

Import it after gevent has patched the process, and before anything of gRPC is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol, cast

import grpc
import numpy as np
from grpc.experimental.gevent import init_gevent

from ..rpc.errors import RpcError, code_name
from .gevent_client import GeventClient
from .models import INPUT, Array, Case
from .peers import kserve
from .peers.grpc_options import CHANNEL_OPTIONS
from .systems import Answer, SyncCall

_grpc = cast(Any, grpc)
_DTYPE: Final = np.dtype("<f4")
# Once, for the whole process.
init_gevent()


class Connection(Protocol):
    """A client that all users of one kind share, as the handlers of a service do.

    Made of the server's address and the seconds that a call may take.
    """

    def caller(self, case: Case, inputs: Array) -> SyncCall:
        """A call that sends ``inputs`` and gives the outputs by name; other greenlets run meanwhile."""
        ...

    def reason_of(self, error: Exception) -> str:
        """Status code and message of a failed call."""
        ...

    def close(self) -> None:
        """Fail what is pending, and close the connection."""
        ...


class TensorwireConnection:
    """tensorwire's client with :mod:`.gevent_client` around it."""

    def __init__(self, address: str, timeout: float) -> None:
        """``address``: ``tcp://HOST:PORT``."""
        self._client = GeventClient(address, timeout=timeout)
        self._client.__enter__()

    def caller(self, case: Case, inputs: Array) -> SyncCall:
        """See :class:`Connection`."""
        predict, model, arguments = self._client.predict, case.model, {INPUT: inputs}
        return lambda: predict(model, arguments)

    def reason_of(self, error: Exception) -> str:
        """See :class:`Connection`."""
        return f"{code_name(error.code)}: {error.message}" if isinstance(error, RpcError) else repr(error)

    def close(self) -> None:
        """See :class:`Connection`."""
        self._client.close()


class GrpcConnection:
    """grpcio's blocking client, one channel, KServe v2 ``ModelInfer``; gRPC's own support of gevent."""

    def __init__(self, address: str, timeout: float) -> None:
        """``address``: ``HOST:PORT``."""
        self._timeout = timeout
        self._channel = _grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
        self._infer = self._channel.unary_unary(
            kserve.PATH,
            request_serializer=kserve.serialize_request,
            response_deserializer=kserve.parse_response,
        )

    def caller(self, case: Case, inputs: Array) -> SyncCall:
        """See :class:`Connection`."""
        template = kserve.new_request(case.model, INPUT, "FP32", inputs.shape)
        infer, new, timeout = self._infer, type(template), self._timeout

        def call() -> Answer:
            request = new()
            request.CopyFrom(template)
            request.raw_input_contents.append(inputs.tobytes())
            response: kserve.ModelInferResponse = infer(request, timeout=timeout)
            return {
                tensor.name: np.frombuffer(raw, _DTYPE).reshape(tensor.shape)
                for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True)
            }

        return call

    def reason_of(self, error: Exception) -> str:
        """See :class:`Connection`."""
        if isinstance(error, _grpc.RpcError):
            failed = cast(Any, error)
            return f"{failed.code().name}: {failed.details()}"
        return repr(error)

    def close(self) -> None:
        """See :class:`Connection`."""
        self._channel.close()


#: Kind of user -> what makes its connection.
CONNECT: Final[dict[str, Callable[[str, float], Connection]]] = {
    "tensorwire": TensorwireConnection,
    "gRPC": GrpcConnection,
}
