"""tensorwire's own clients as systems under test: the public API and nothing else."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from itertools import cycle
from typing import Final

from ...client import AsyncClient, Client
from ...rpc.errors import RpcError, code_name
from ..models import INPUT, Array, Case
from ..systems import CALL_TIMEOUT, AsyncCall, SyncCall

#: Longer than a round trip of a small tensor takes on most machines.
_SPIN_SECONDS: Final = 0.0005
#: The kernel deals them out by a hash; that all land at one of two front ends has a chance of 1 in 128.
_CONNECTIONS: Final = 8


def _code_of(error: Exception) -> str:
    return code_name(error.code) if isinstance(error, RpcError) else type(error).__name__


class TensorwireSystem:
    """``AsyncClient.predict`` as a user calls it."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    def caller(self, case: Case, inputs: Array, timeout: float = CALL_TIMEOUT) -> AsyncCall:
        predict, model, arguments = self._client.predict, case.model, {INPUT: inputs}
        return lambda: predict(model, arguments, timeout=timeout)

    def code_of(self, error: Exception) -> str:
        return _code_of(error)


class SeveralSystem:
    """Callers spread over several clients, each with a connection of its own."""

    def __init__(self, clients: Sequence[AsyncClient]) -> None:
        self._systems = cycle([TensorwireSystem(client) for client in clients])

    def caller(self, case: Case, inputs: Array, timeout: float = CALL_TIMEOUT) -> AsyncCall:
        return next(self._systems).caller(case, inputs, timeout)

    def code_of(self, error: Exception) -> str:
        return _code_of(error)


class SyncTensorwireSystem:
    """``Client.predict`` as a user calls it."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def caller(self, case: Case, inputs: Array, timeout: float = CALL_TIMEOUT) -> SyncCall:
        predict, model, arguments = self._client.predict, case.model, {INPUT: inputs}
        return lambda: predict(model, arguments, timeout=timeout)

    def code_of(self, error: Exception) -> str:
        return _code_of(error)


@asynccontextmanager
async def open_fused(address: str) -> AsyncGenerator[TensorwireSystem]:
    """The default client: calls of one event-loop tick share an envelope."""
    async with AsyncClient(address, timeout=CALL_TIMEOUT, fuse=True) as client:
        yield TensorwireSystem(client)


@asynccontextmanager
async def open_unfused(address: str) -> AsyncGenerator[TensorwireSystem]:
    """One message per call."""
    async with AsyncClient(address, timeout=CALL_TIMEOUT, fuse=False) as client:
        yield TensorwireSystem(client)


@asynccontextmanager
async def open_several(address: str) -> AsyncGenerator[SeveralSystem]:
    """Clients whose connections the kernel deals out among the front ends."""
    async with AsyncExitStack() as stack:
        yield SeveralSystem(
            [
                await stack.enter_async_context(AsyncClient(address, timeout=CALL_TIMEOUT, fuse=False))
                for _ in range(_CONNECTIONS)
            ]
        )


@contextmanager
def open_sync(address: str) -> Generator[SyncTensorwireSystem]:
    """The blocking client."""
    with Client(address, timeout=CALL_TIMEOUT) as client:
        yield SyncTensorwireSystem(client)


@contextmanager
def open_spinning(address: str) -> Generator[SyncTensorwireSystem]:
    """The blocking client, which looks for its answer for a while before it sleeps."""
    with Client(address, timeout=CALL_TIMEOUT, spin=_SPIN_SECONDS) as client:
        yield SyncTensorwireSystem(client)
