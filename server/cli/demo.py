"""``tensorwire demo``: a server, the three ways of calling it, and a new version under load, in five seconds.

The model is a Python file that needs NumPy only. ``make demo`` in a checkout shows pretrained models, and
gRPC beside it (examples/demo.py).
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

import typer

from .common import fail, print_table

if TYPE_CHECKING:
    from ...client import AsyncClient, Client
    from .rollout import Rollout

_MODEL: Final = "weighted_sum"
_WIDTH: Final = 16
_CALLS: Final = 200
_STREAMS: Final = 20
_INTERVAL: Final = 0.02
_STEPS: Final = 150
_SWAP_AFTER: Final = 1.0
_INTERRUPTED: Final = 130

#: ``{version}`` is filled in; the answers tell which version they are from.
_SOURCE: Final = """\
import numpy as np


class Model:
    inputs = [("x", "float32", (None, 16))]
    outputs = [("sum", "float32", (None,)), ("version", "int32", (None,))]
    batched = True

    def predict(self, x):
        weights = np.arange(16, dtype=np.float32)
        return {{"sum": x @ weights, "version": np.full(len(x), {version}, np.int32)}}
"""


def demo() -> None:
    """Serve a small model here, call it in three ways, and replace it under load. Takes five seconds."""
    from ...bench.processes import ChildError
    from ...rpc.errors import RpcError
    from .rollout import DemoError

    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with tempfile.TemporaryDirectory(prefix="tensorwire-demo-") as directory:
            _demo(Path(directory))
    except (DemoError, ChildError, RpcError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted; the server was stopped", _INTERRUPTED)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    # SIGTERM unwinds as Ctrl-C does, so that the server is stopped.
    raise KeyboardInterrupt


def _demo(directory: Path) -> None:
    from ...client import Client
    from .rollout import phases_table, serving

    repository = directory / "models"
    publish(repository, 1)
    typer.echo(f"A model repository with one model: {_MODEL}/1/model.py\n\n{_SOURCE.format(version=1)}")
    with serving(repository, directory / "server.log") as address:
        typer.echo(f"tensorwire serve {repository.name} listens at {address}")
        with Client(address) as client:
            call_blocking(client)
            call_with_futures(client)
        asyncio.run(call_with_asyncio(address))
        typer.echo(
            f"\nNow {_STREAMS} callers, {1 / _INTERVAL:.0f} calls a second each; after {_SWAP_AFTER:g} s "
            "version 2 is put into the repository ..."
        )
        rollout, versions = asyncio.run(roll_out(address, repository))
    print_table(phases_table(rollout))
    answered = " and ".join(f"{count} by version {version}" for version, count in sorted(versions.items()))
    typer.echo(f"{rollout.calls} calls, {answered}; failed: {sum(rollout.failures.values())}")
    if rollout.failures or set(versions) != {1, 2}:
        fail(f"that is not as it should be: {rollout.failures or versions}")
    typer.echo("\nAll of it stopped and removed. `tensorwire serve --help` is the way on.")


def publish(repository: Path, version: int) -> None:
    """Write a version under a hidden name, then rename it: so the server never sees half of it."""
    model = repository / _MODEL
    hidden = model / f".{version}"
    hidden.mkdir(parents=True)
    (hidden / "model.py").write_text(_SOURCE.format(version=version))
    os.rename(hidden, model / str(version))


def call_blocking(client: Client) -> None:
    """``predict``: waits for the answer."""
    import numpy as np

    outputs = client.predict(_MODEL, {"x": np.ones((2, _WIDTH), np.float32)})
    _expect(outputs["sum"].tolist() == [120.0, 120.0], f"the model answered {outputs}")
    typer.echo(f"predict, blocking: sum = {outputs['sum']}, from version {outputs['version'][0]}")


def call_with_futures(client: Client) -> None:
    """``submit``: many calls in flight from one thread."""
    import numpy as np

    rows = [np.full((1, _WIDTH), number, np.float32) for number in range(_CALLS)]
    futures = [client.submit(_MODEL, {"x": row}) for row in rows]
    sums = [float(future.result()["sum"][0]) for future in futures]
    _expect(sums == [120.0 * number for number in range(_CALLS)], "the futures' answers are wrong")
    typer.echo(f"submit, futures: {_CALLS} calls in flight, every answer right")


async def call_with_asyncio(address: str) -> None:
    """The same, awaited."""
    import numpy as np

    from ...client import AsyncClient

    rows = [np.full((1, _WIDTH), number, np.float32) for number in range(_CALLS)]
    async with AsyncClient(address) as client:
        answers = await asyncio.gather(*(client.predict(_MODEL, {"x": row}) for row in rows))
    sums = [float(answer["sum"][0]) for answer in answers]
    _expect(sums == [120.0 * number for number in range(_CALLS)], "the awaited answers are wrong")
    typer.echo(f"AsyncClient: {_CALLS} calls awaited, every answer right")


async def roll_out(address: str, repository: Path) -> tuple[Rollout, Counter[int]]:
    """Replace version 1 by version 2 while callers keep calling; also how often each version answered."""
    import numpy as np

    from .rollout import Streams

    row = np.ones((1, _WIDTH), np.float32)
    versions: Counter[int] = Counter()

    async def call(client: AsyncClient, _stream: int, _step: int) -> None:
        outputs = await client.predict(_MODEL, {"x": row})
        _expect(outputs["sum"][0] == 120.0, f"the model answered {outputs}")
        versions[int(outputs["version"][0])] += 1

    streams = Streams(call, count=_STREAMS, interval=_INTERVAL, steps=_STEPS)
    rollout = await streams.roll_out(address, _MODEL, 2, lambda: publish(repository, 2), after=_SWAP_AFTER)
    return rollout, versions


def _expect(condition: object, otherwise: str) -> None:
    from .rollout import DemoError

    if not condition:
        raise DemoError(otherwise)
