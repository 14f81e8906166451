"""The Thrift system under test, client side: blocking calls, each on a connection of its own meanwhile."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
from thriftpy2.rpc import make_client
from thriftpy2.transport import TTransportException

from ....rpc.errors import code_name
from ...models import INPUT, Array, Case
from ...systems import CALL_TIMEOUT, Answer, SyncCall
from ..codec import DATATYPES, DTYPES
from .idl import IDL, protocol, transport


class ThriftSystem:
    """Threads share as many connections as calls are in flight: Thrift has one call at a time on each."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._place = host, int(port)
        #: By timeout: a connection keeps that with which it was made.
        self._idle: defaultdict[float, deque[Any]] = defaultdict(deque)

    def caller(self, case: Case, inputs: Array, timeout: float = CALL_TIMEOUT) -> SyncCall:
        datatype, shape, content = DATATYPES[inputs.dtype], list(inputs.shape), inputs.tobytes
        model, idle = case.model, self._idle[timeout]

        def call() -> Answer:
            connection = self._take(timeout)
            request = IDL.InferRequest(model, "", [IDL.Tensor(INPUT, datatype, shape, content())])
            try:
                response = connection.infer(request)
            except IDL.InferError:
                idle.append(connection)
                raise
            except BaseException:
                connection.close()  # its answer may still come, and is not that of the next call
                raise
            idle.append(connection)
            return {
                tensor.name: np.frombuffer(tensor.content, DTYPES[tensor.datatype]).reshape(tensor.shape)
                for tensor in response.outputs
            }

        return call

    def _take(self, timeout: float) -> Any:
        try:
            return self._idle[timeout].pop()
        except IndexError:
            host, port = self._place
            milliseconds = max(1, round(timeout * 1000))
            return make_client(
                IDL.Inference,
                host,
                port,
                proto_factory=protocol(),
                trans_factory=transport(),
                timeout=milliseconds,
            )

    def code_of(self, error: Exception) -> str:
        if isinstance(error, IDL.InferError):
            return code_name(cast(Any, error).code)
        if isinstance(error, TimeoutError):
            return "DEADLINE_EXCEEDED"
        return "UNAVAILABLE" if isinstance(error, (TTransportException, OSError)) else type(error).__name__

    def close(self) -> None:
        """Close the connections; no call is in flight."""
        for idle in self._idle.values():
            while idle:
                idle.pop().close()


@contextmanager
def open_client(address: str) -> Generator[ThriftSystem]:
    """Connect to ``host:port``; connections are made when they are needed."""
    system = ThriftSystem(address)
    try:
        yield system
    finally:
        system.close()
