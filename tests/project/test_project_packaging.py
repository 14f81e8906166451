"""The wheel: what is in it, and that the client needs no more than it says."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import models
import pumps
import pytest

ROOT = Path(__file__).parents[2]
SOURCES = (
    "rpc",
    "manager",
    "server",
    "client",
    "bench",
    "setup.cfg",
    "setup.py",
    "pyproject.toml",
    "README.md",
    "LICENSE",
)
#: What a thin installation must do without.
EXTRAS = ("onnxruntime", "typer", "rich", "psutil", "onnx", "grpc", "uvloop", "PIL")
CALLS = """
import asyncio, importlib.util, sys
import numpy as np
import tensorwire.client
from tensorwire.client import AsyncClient, Client
address, *absent = sys.argv[1:]
assert [name for name in absent if importlib.util.find_spec(name)] == []
assert sys.prefix in tensorwire.client.__file__, tensorwire.client.__file__
x = np.ones((1, 4), np.float32)
with Client(address, timeout=20.0) as client:
    print(client.predict("double", {"x": x})["y"].tolist())
    print(client.submit("double", {"x": 2 * x}).result()["y"].tolist())

async def main():
    async with AsyncClient(address, timeout=20.0) as client:
        answers = await asyncio.gather(*(client.predict("double", {"x": x}) for _ in range(10)))
        print(len(answers), *(await client.health()).models)

asyncio.run(main())
"""


def config() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def names(lines: str) -> list[tuple[str, str]]:
    """(normalised name, lower bound) of each requirement in a list of setup.cfg."""
    found = (re.match(r"([\w.-]+) >= ([\d.]+)$", line) for line in lines.split("\n"))
    return [(match[1].lower().replace("_", "-"), match[2]) for match in found if match]


def run(*command: str | Path, cwd: Path | None = None, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def build(source: Path, *what: str, **environment: str) -> Path:
    """The working tree copied to ``source``, built there; setuptools and Cython are at hand, so no network is
    needed. Gives the directory with what was built."""
    source.mkdir()
    ignore = shutil.ignore_patterns("__pycache__", "java", "*.so")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=ignore)
        else:
            shutil.copy(ROOT / name, source)
    said = run(sys.executable, "-m", "build", *what, "--no-isolation", cwd=source, **environment)
    assert "eprecat" not in said
    return source / "dist"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of the working tree, by way of a source distribution as ``make wheel`` does it."""
    (path,) = build(tmp_path_factory.mktemp("wheel") / "source").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def plain_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel that was built where no C compiler is."""
    source = tmp_path_factory.mktemp("plain") / "source"
    (path,) = build(source, "--wheel", CC="/bin/false").glob("*.whl")
    return path


def modules_in(wheel: Path) -> tuple[set[str], list[str]]:
    """Files of a wheel: those of the sources, and the compiled ones."""
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    compiled = sorted(name for name in found if name.endswith(".so"))
    return found - set(compiled), compiled


@pytest.mark.slow
def test_wheel_holds_every_module_and_nothing_else(wheel: Path) -> None:
    folders = config()["options"]["package_dir"].split("\n")
    expected = {
        f"tensorwire/{path.relative_to(ROOT)}"
        for folder in (line.split(" = ")[1] for line in folders if line)
        for path in (ROOT / folder).rglob("*")
        # The Java client lies there, too, with the pages of its Javadoc once it was built.
        if ROOT / "client/java" not in path.parents
        if path.suffix in (".py", ".pyi", ".css", ".html", ".thrift") or path.name == "py.typed"
    }
    found, compiled = modules_in(wheel)
    built = [name.partition(".")[0] for name in compiled]
    assert built == (
        ["tensorwire/rpc/pump/compiled", "tensorwire/server/processes/compiled"]
        if pumps.can_compile()
        else []
    )
    with zipfile.ZipFile(wheel) as archive:
        (licence,) = (name for name in archive.namelist() if name.endswith("/LICENSE"))
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
        (about,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        assert b"License-Expression: Apache-2.0" in archive.read(about)
    assert found == expected


@pytest.mark.slow
def test_without_a_compiler_the_wheel_lacks_the_compiled_pump_alone(wheel: Path, plain_wheel: Path) -> None:
    modules, compiled = modules_in(plain_wheel)
    assert compiled == []
    assert modules == modules_in(wheel)[0]


@pytest.fixture(scope="module")
def thin(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and its requirements, which are links to those of this environment.

    pip gets no index: if the wheel required anything else, or another version, it would fail.
    """
    where = tmp_path_factory.mktemp("thin")
    run(sys.executable, "-m", "venv", "--without-pip", where)
    (site,) = where.glob("lib/python*/site-packages")
    for requirement, _ in names(config()["options"]["install_requires"]):
        files = metadata.files(requirement) or []
        for top in {Path(file).parts[0] for file in files} - {".."}:
            located = Path(str(metadata.distribution(requirement).locate_file(top)))
            if located.exists() and not (site / top).exists():
                (site / top).symlink_to(located)
    pip = (sys.executable, "-m", "pip", "--python", where / "bin/python")
    run(*pip, "install", "--no-index", "--quiet", wheel)
    run(*pip, "check")
    return where


@pytest.mark.slow
def test_client_works_with_its_hard_requirements_alone(thin: Path, serve, tmp_path: Path) -> None:
    directory = tmp_path / "models/double/1"
    directory.mkdir(parents=True)
    models.scale(directory, 2.0)
    server = serve(tmp_path / "models")
    said = run(thin / "bin/python", "-W", "error", "-I", "-c", CALLS, server.endpoint, *EXTRAS)
    assert said.splitlines() == ["[[2.0, 2.0, 2.0, 2.0]]", "[[4.0, 4.0, 4.0, 4.0]]", "10 double"]


@pytest.mark.slow
def test_command_line_says_what_it_needs(thin: Path) -> None:
    done = subprocess.run(
        [thin / "bin/tensorwire", "--help"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0
    assert "pip install 'tensorwire[server]'" in done.stderr


def test_every_requirement_is_pinned_to_a_version_that_it_allows() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.lower().replace("_", "-").split("==") for line in lines if not line.startswith("#"))
    options = config()
    lists = [options["options"]["install_requires"], *options["options.extras_require"].values()]
    wanted = [requirement for lines in lists for requirement in names(lines)]
    assert len(wanted) > 15
    for name, lowest in wanted:
        assert tuple(map(int, pins[name].split("."))) >= tuple(map(int, lowest.split("."))), name
