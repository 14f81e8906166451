"""The client stays thin: what importing it brings in (``make bench-import`` says what it costs)."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from tensorwire.bench import import_time

#: Top-level packages from elsewhere that ``import tensorwire.client`` may load.
THIN = {"numpy", "zmq", "msgspec", "ml_dtypes"}
PROGRAM = """
import json, sys
{statement}
print(json.dumps([sorted(sys.modules), sorted(sys.stdlib_module_names)]))
"""


def modules_after(statement: str) -> tuple[set[str], set[str]]:
    """Modules that a statement in a fresh interpreter leaves loaded, and those of the standard library."""
    command = [sys.executable, "-I", "-c", PROGRAM.format(statement=statement)]
    loaded, standard = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
    return set(loaded), set(standard)


def test_the_client_brings_in_its_four_requirements_and_nothing_else() -> None:
    before, _ = modules_after("pass")
    after, standard = modules_after("import tensorwire.client")
    new = {name.partition(".")[0] for name in after - before}
    # Compiled helpers of wheels have names that begin with an underscore or are made by Cython.
    foreign = {name for name in new - standard if not name.startswith("_") and name != "cython_runtime"}
    # msgspec looks for it, and takes it where it is there.
    assert foreign - {"typing_extensions"} == THIN | {"tensorwire"}


@pytest.mark.parametrize("part", ["server", "manager", "bench"])
def test_the_client_does_not_load_the_other_parts(part: str) -> None:
    loaded, _ = modules_after("import tensorwire.client")
    assert f"tensorwire.{part}" not in loaded


@pytest.mark.parametrize("package", ["onnxruntime", "typer", "rich", "psutil", "onnx", "grpc", "uvloop"])
@pytest.mark.parametrize("statement", ["import tensorwire.client", "import tensorwire.server.service"])
def test_nothing_heavy_is_imported_before_it_is_needed(package: str, statement: str) -> None:
    loaded, _ = modules_after(statement)
    assert package not in loaded


def test_import_times_are_measured() -> None:
    taken = import_time.measure(1)
    assert set(taken) == set(import_time.STATEMENTS)
    assert all(0 < seconds < 30 for (seconds,) in taken.values())
