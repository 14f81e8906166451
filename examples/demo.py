"""Everything at a glance, in about a minute: ``make demo``.

    python examples/demo.py [--skip-comparison]

Starts a real server on a repository of pretrained models; asks it about files, an image and voices with
the blocking client, futures and asyncio; replaces a model while callers go on; and runs gRPC beside it. It
ends by itself; the exit status is 0 if every answer was right and no call failed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import detect_speech
import file_type
import numpy as np
import read_text
import samples
from build_repository import build, publish
from packages import MissingPackageError
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from tensorwire.bench.processes import ChildError
from tensorwire.bench.quick import Group, run
from tensorwire.bench.report import NO_DIFFERENCE
from tensorwire.bench.results import Measurement, Results, Settings, p99, throughput
from tensorwire.bench.systems import FUSED, GRPC
from tensorwire.client import AsyncClient, Client
from tensorwire.rpc.errors import RpcError
from tensorwire.server.cli.rollout import DemoError, Rollout, Streams, phases_table, serving

#: Requests for the type of one file that are in flight at the same time.
FILES = 40
#: Live streams during the swap: each sends 32 ms of sound every 32 ms, for six seconds.
STREAMS = 32
SWAP_AFTER = 2.2
#: (request, callers at a time) of the comparison with gRPC.
COMPARED = (("64 B", 32), ("64 B", 256), ("602,112 B", 32))
SETTINGS = Settings(rounds=2, warmup=0.2, duration=0.8)
#: How far the beginning and the end of speech may be from where the voices were put, seconds. Where version
#: 2, in half precision, goes on with a state of version 1 in a voice, it hears the end of it 0.2 s later.
TOLERANCE = 0.3
VOICES = ((1.0, 3.0), (4.0, 5.5))

#: Not narrower than its tables where the output is a file.
console = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else 110)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 0 if all went well, 1 if not, 130 after Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(description="Everything at a glance, in about a minute.")
    parser.add_argument("--skip-comparison", action="store_true", help="leave gRPC out")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="tensorwire-demo-") as directory:
            show_server(Path(directory))
        if not options.skip_comparison:
            show_comparison()
    except (DemoError, MissingPackageError, ChildError, RpcError) as error:
        console.print(f"\n{error}", style="bold red", markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("\ninterrupted; all processes were stopped")
        return 130
    took = time.monotonic() - started
    console.print(f"\n[bold green]Every answer was right and no call failed[/]; {took:.0f} s.")
    return 0


def _interrupt(_signal: int, _frame: object) -> None:
    # SIGTERM unwinds as Ctrl-C does, so that the servers are stopped and the files removed.
    raise KeyboardInterrupt


# ---------------------------------------------------------------- what the server does


def show_server(directory: Path) -> None:
    """All that needs the server with the pretrained models."""
    repository = directory / "models"
    _headline("Six pretrained models, out of installed packages, become a model repository")
    build(repository)
    # A second version, which only has to be renamed into place later.
    staged = publish(directory / "staged", "speech", 2)
    _headline("tensorwire serve loads them and warms them up")
    with serving(repository, directory / "server.log") as address:
        with Client(address, timeout=30.0) as client:
            show_models(client)
            show_file_types(client)
            show_text(client)
            show_speech(client)
        show_rollout(address, lambda: os.rename(staged, repository / "speech" / "2"))


def show_models(client: Client) -> None:
    """What is served."""
    table = _table("model", "version", "state", "batches", "", right=("version",))
    for row in client.status():
        _expect(row.state == "AVAILABLE", f"{row.model} is {row.state}: {row.reason}")
        model = client.metadata(row.model)
        batches = f"up to {model.max_batch_size} rows" if model.batched else "no"
        table.add_row(row.model, str(row.version), row.state, batches, model.description.partition(" (")[0])
    console.print(table)


def show_file_types(client: Client) -> None:
    """One request for many files, then many requests at a time."""
    contents = samples.sample_contents()
    _headline("What kind of files are these? One request, one row for each (Client.predict)")
    found = file_type.classify_bytes(list(contents.values()), client.predict)
    for label, data, kind in zip(contents, contents.values(), found, strict=True):
        console.print(f"  {len(data):5} bytes: {kind.description} ({kind.confidence:.1%})", markup=False)
        _expect(kind.label == label, f"expected {label}")
    _headline(f"The same as {FILES} requests in flight at a time (Client.submit, futures)")
    started = time.monotonic()
    labels = [list(contents)[number % len(contents)] for number in range(FILES)]
    rows = [file_type.features(contents[label], contents[label])[np.newaxis] for label in labels]
    futures = [client.submit(file_type.MODEL, {"bytes": row}) for row in rows]
    answers = [file_type.interpret(future.result()["target_label"][0]).label for future in futures]
    took = time.monotonic() - started
    _expect(answers == labels, f"expected {labels}, found {answers}")
    console.print(f"  {FILES} answers in {took * 1e3:.0f} ms, the same types as before")


def show_text(client: Client) -> None:
    """Three models in a row, tensors of any size."""
    image = samples.render_text()
    _headline(f"What does this image say ({image.width} x {image.height} pixels)? Three models in a row")
    lines = read_text.read_text(image, client.predict)
    for line in lines:
        console.print(f"  “{line.text}” ({line.confidence:.0%})", markup=False)
    found = ["".join(line.text.split()) for line in lines]
    expected = ["".join(line.split()) for line in samples.TEXT]
    _expect(found == expected, f"expected {samples.TEXT}")  # the model leaves out spaces


def show_speech(client: Client) -> None:
    """A recording in one call."""
    _headline("When does somebody speak in these six seconds of sound?")
    found = detect_speech.detect_speech(samples.conversation(), client.predict)
    console.print(f"  {_in_words(found)}")
    _expect(_heard_the_voices(found), f"expected {VOICES}")


def _in_words(found: Sequence[detect_speech.Speech]) -> str:
    if not found:
        return "no speech"
    return "speech from " + ", and from ".join(f"{part.start:.1f} s to {part.end:.1f} s" for part in found)


def _heard_the_voices(found: Sequence[detect_speech.Speech]) -> bool:
    edges = [edge for part in found for edge in (part.start, part.end)]
    expected = [edge for voice in VOICES for edge in voice]
    return len(edges) == len(expected) and np.allclose(edges, expected, rtol=0, atol=TOLERANCE)


# ---------------------------------------------------------------- a new version under load


class LiveStreams:
    """Sound as microphones deliver it: a call for every 32 ms, and the model's state travels with the call.

    Every other stream is a conversation, the rest is noise.
    """

    def __init__(self, count: int) -> None:
        noise = np.random.default_rng(0).normal(0.0, 0.1, 6 * samples.SAMPLE_RATE).astype(np.float32)
        sounds = (samples.conversation(), noise)
        self._frames = [
            sounds[number % 2][: -(len(sounds[0]) % detect_speech.FRAME) or None] for number in (0, 1)
        ]
        self._states = [np.zeros((1, 2, 128), np.float32) for _ in range(count)]
        self.probabilities: list[list[float]] = [[] for _ in range(count)]

    @property
    def steps(self) -> int:
        """Calls of each stream."""
        return len(self._frames[0]) // detect_speech.FRAME

    async def call(self, client: AsyncClient, stream: int, step: int) -> None:
        """One call of one stream."""
        start = step * detect_speech.FRAME
        sound = self._frames[stream % 2]
        row = np.zeros((1, detect_speech.CONTEXT + detect_speech.FRAME), np.float32)
        heard = sound[max(0, start - detect_speech.CONTEXT) : start + detect_speech.FRAME]
        row[0, -len(heard) :] = heard
        inputs = {"input": row, "state_in": self._states[stream]}
        outputs = await client.predict(detect_speech.LIVE, inputs)
        self._states[stream] = outputs["state_out"]
        self.probabilities[stream].append(float(outputs["output"][0, 0]))

    def heard(self, stream: int) -> list[detect_speech.Speech]:
        """When somebody spoke."""
        return detect_speech.speech_intervals(np.array(self.probabilities[stream], np.float32))


def show_rollout(address: str, publish_version: Callable[[], None]) -> None:
    """Version 2 replaces version 1 in the middle of a sentence."""
    live = LiveStreams(STREAMS)
    rate = STREAMS / detect_speech.FRAME_SECONDS
    _headline(
        f"{STREAMS} live streams, {rate:,.0f} calls a second (AsyncClient); after {SWAP_AFTER:g} s version 2 "
        "is put into the repository"
    )
    streams = Streams(live.call, count=STREAMS, interval=detect_speech.FRAME_SECONDS, steps=live.steps)
    rollout = asyncio.run(streams.roll_out(address, detect_speech.LIVE, 2, publish_version, after=SWAP_AFTER))
    console.print(phases_table(rollout))
    _say_rollout(rollout)
    for stream in range(STREAMS):
        found = live.heard(stream)
        right = _heard_the_voices(found) if stream % 2 == 0 else not found
        _expect(right, f"stream {stream} heard {_in_words(found)}")
    console.print(f"  {STREAMS // 2} streams heard {_in_words(live.heard(0))}; the others, of noise, nothing")


def _say_rollout(rollout: Rollout) -> None:
    failed = sum(rollout.failures.values())
    console.print(
        f"  {rollout.calls:,} calls, {failed} failed; version 2 had replaced version 1 after "
        f"{rollout.swap_seconds * 1e3:.0f} ms"
    )
    _expect(not failed, f"calls failed during the swap: {rollout.failures}")


# ---------------------------------------------------------------- gRPC beside it


def show_comparison() -> None:
    """The same models behind tensorwire and behind grpc.aio, taking turns."""
    groups = [Group((FUSED, GRPC), GRPC, case, callers) for case, callers in COMPARED]
    console.print("\n[bold]tensorwire and grpc.aio take turns on this machine[/]")
    console.print(
        "  One asyncio client and one server process each; the same models, engine and batching in both.\n"
        "  The models are small on purpose (a matrix product, the mean of an image): the way is compared."
    )
    columns = (TextColumn("  {task.description}"), BarColumn())
    with Progress(*columns, console=console, auto_refresh=False, transient=True) as bar:
        task = bar.add_task("starting")

        def progress(done: float, total: float, what: str) -> None:
            bar.update(task, completed=done, total=total, description=what, refresh=console.is_terminal)

        results = run(groups, SETTINGS, progress)
    for line in results.environment.lines():
        console.print(f"  {line}", style="dim", markup=False)
    console.print(comparison_table(results))
    for cell in results.cells:
        failed = cell.failures or cell.errors
        _expect(not failed, f"{cell.system}, {cell.case}, {cell.concurrency} at a time: {failed}")


def comparison_table(results: Results) -> Table:
    """Throughput and p99 of both, and how they compare."""
    columns = ("callers", "tensorwire", "grpc.aio", "ratio")
    table = _table("request", "callers", "", *columns[1:], right=columns)
    for case, callers in COMPARED:
        rows: list[tuple[str, Callable[[Measurement], float], float, str]] = [
            ("requests/s", throughput, 1.0, ",.0f"),
            ("p99 ms", p99, 1e3, ",.2f"),
        ]
        for name, figure, factor, form in rows:
            cells = [results.cell(system, case, callers) for system in (FUSED, GRPC)]
            values = [spread.median if cell and (spread := cell.spread(figure)) else 0.0 for cell in cells]
            shown = [format(value * factor, form) for value in values]
            first = name == "requests/s"
            situation = (case, str(callers)) if first else ("", "")
            table.add_row(*situation, name, *shown, _ratio(results, case, callers, figure))
    return table


def _ratio(results: Results, case: str, callers: int, figure: Callable[[Measurement], float]) -> str:
    cell = results.cell(FUSED, case, callers)
    compared = cell and results.compare(cell, GRPC, figure)
    if not compared or not compared.ratio:
        return "-"
    return f"{compared.ratio:.3g}x" if compared.shown else NO_DIFFERENCE


# ---------------------------------------------------------------- output


def _headline(title: str) -> None:
    """Printed before the work that it announces."""
    console.print(f"\n[bold]{title}[/]")


def _table(*columns: str, right: Sequence[str] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=True)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left")
    return table


def _expect(condition: object, otherwise: str) -> None:
    if not condition:
        raise DemoError(otherwise)


if __name__ == "__main__":
    sys.exit(main())
