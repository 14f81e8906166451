"""``tensorwire predict``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .common import (
    USAGE,
    JsonOption,
    LabelOption,
    ServerOption,
    VersionOption,
    fail,
    print_json,
    server_address,
)

if TYPE_CHECKING:
    from ...rpc.types import ModelMetadata
    from .tensors import Array

_Model = Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model.", show_default=False)]
_Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        "-i",
        metavar="NAME=VALUE",
        help="VALUE: FILE.npy, FILE.json, JSON such as '[[1, 2]]', @TEXT, or a FILE whose content is one "
        "bytes or string element. FILE.npz without a name holds several inputs. Repeatable.",
    ),
]
_Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE.npz", help="Write the outputs into this file.")
]
_Timeout = Annotated[float, typer.Option("--timeout", min=0.001, help="Seconds that the model has.")]
_Record = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Append the request to FILE, for `tensorwire press --dump FILE`."),
]
_RoutingKey = Annotated[str | None, typer.Option(help="Equal keys go to the same target of a sticky route.")]


def predict(
    ctx: typer.Context,
    model: _Model,
    inputs: _Inputs = None,
    version: VersionOption = None,
    label: LabelOption = None,
    output: _Output = None,
    record: _Record = None,
    timeout: _Timeout = 10.0,
    routing_key: _RoutingKey = None,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Run a model once. Values take the model's dtypes; one row may be written without the batch axis."""
    if output is not None and output.suffix != ".npz":
        fail(f"--output: found {output}; expected a file name that ends with .npz", USAGE)
    address = server_address(ctx, server)
    outputs = _call(address, model, inputs or [], version, label, timeout, routing_key, record)
    from ...rpc.errors import InvalidArgumentError
    from .tensors import as_json, readable, save

    if output is not None:
        try:
            save(output, outputs)
        except InvalidArgumentError as error:
            fail(error.message)
    if json:
        print_json({"model": model, "outputs": {name: as_json(array) for name, array in outputs.items()}})
    elif output is not None:
        typer.echo(f"written to {output}: {', '.join(outputs)}")
    else:
        for name, array in outputs.items():
            typer.echo(readable(name, array))


def _call(
    address: str,
    model: str,
    texts: list[str],
    version: int | None,
    label: str | None,
    timeout: float,
    routing_key: str | None,
    record: Path | None,
) -> dict[str, Array]:
    from ...rpc.errors import InvalidArgumentError
    from .common import connected
    from .tensors import expected, read_inputs

    with connected(address, timeout) as client:
        metadata: ModelMetadata = client.metadata(model, version=version, label=label)
        try:
            inputs = read_inputs(texts, metadata)
        except InvalidArgumentError as error:
            fail(error.message, USAGE)
        if record is not None:
            _append(record, inputs)
        try:
            return client.predict(model, inputs, version=version, label=label, routing_key=routing_key)
        except InvalidArgumentError as error:
            told = "" if "expected" in error.message else f"; {expected(metadata.inputs)}"
            fail(f"{error}{told}")


def _append(path: Path, inputs: dict[str, Array]) -> None:
    from ...bench.press.recorded import record

    try:
        record(path, inputs)
    except OSError as error:
        fail(f"--record: {path} cannot be written: {error.strerror or error}", USAGE)
