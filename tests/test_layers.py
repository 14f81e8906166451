"""Imports go one way only: see "Layout" in CONTRIBUTING.md."""

from __future__ import annotations

import ast
import configparser
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("rpc", "manager", "server", "client", "bench")

#: Part -> the parts that it may import, besides itself. The longest name that fits decides.
ALLOWED: dict[str, tuple[str, ...]] = {
    "rpc": (),
    "rpc.errors": (),
    "rpc.switch": (),
    "rpc.types": ("rpc.errors",),
    "rpc.wire": ("rpc.errors", "rpc.types"),
    "rpc.pump": ("rpc.errors", "rpc.types", "rpc.wire", "rpc.transport", "rpc.switch"),
    "rpc.transport": ("rpc.errors", "rpc.types", "rpc.wire"),
    "rpc.ends": ("rpc.pump", "rpc.transport", "rpc.wire"),
    "manager": ("rpc.errors", "rpc.types"),
    "server": (
        "rpc",
        "manager",
        "server.processes",
        "server.acceptor",
        "server.config",
        "server.interpreter",
        "server.logs",
    ),
    "server.interpreter": (),
    "server.logs": (),
    "client": ("rpc",),
    # What the child imports it pays for at each start: no sockets of ZeroMQ, no front end.
    "server.processes": (
        "rpc.errors",
        "rpc.switch",
        "rpc.types",
        "rpc.wire",
        "manager",
        "server.interpreter",
        "server.logs",
    ),
    # Started often, and nothing but a way to the server: no models, no scheduler.
    "server.acceptor": (
        "rpc",
        "manager.memory",
        "server.config",
        "server.interpreter",
        "server.logs",
        "server.processes",
    ),
    "server.config": (),
    "server.cli": ("rpc", "manager", "server", "client", "bench"),
    "bench": ("rpc", "manager", "server", "client"),
}
#: Packages from outside that a part must not know.
FOREIGN: dict[str, tuple[str, ...]] = {
    # Bytes in, values out: no sockets, no loops, no clocks, no output.
    "rpc.wire": ("zmq", "asyncio", "time", "logging", "socket", "threading", "random"),
    "rpc.errors": ("zmq", "asyncio", "time", "logging", "numpy", "msgspec"),
    "rpc.types": ("zmq", "asyncio", "time", "logging"),
    "manager": ("zmq", "asyncio"),
    "server.processes": ("zmq", "asyncio"),
    "client": ("onnxruntime", "typer", "rich", "psutil"),
    "rpc": ("onnxruntime", "typer", "rich", "psutil", "asyncio"),
}


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the library: dotted name without ``tensorwire.``, and its file."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = list(path.relative_to(ROOT).with_suffix("").parts)
            if parts[-1] == "__init__":
                parts.pop()
            yield ".".join(parts), path


MODULES = dict(modules())
each_module = pytest.mark.parametrize("name", MODULES)


def imports(name: str) -> Iterator[tuple[int, str, bool]]:
    """(line, dotted name, is it of the library) of everything that a module imports, wherever it stands."""
    path = MODULES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, *_absolute(alias.name)
        elif isinstance(node, ast.ImportFrom):
            if not node.level:
                yield node.lineno, *_absolute(node.module or "")
                continue
            steps = package.split(".")
            base = ".".join(steps[: len(steps) - node.level + 1] + ([node.module] if node.module else []))
            for alias in node.names:
                inner = f"{base}.{alias.name}" if base else alias.name
                yield node.lineno, inner if inner in MODULES else base, True


def _absolute(module: str) -> tuple[str, bool]:
    own = module == "tensorwire" or module.startswith("tensorwire.")
    return (module.removeprefix("tensorwire").lstrip("."), True) if own else (module, False)


def inside(module: str, part: str) -> bool:
    return module == part or module.startswith(part + ".")


def part_of(module: str) -> str:
    """The longest part of ``ALLOWED`` that a module belongs to."""
    return max((part for part in ALLOWED if inside(module, part)), key=len, default="")


@each_module
def test_imports_go_one_way(name: str) -> None:
    part = part_of(name)
    assert part, f"{name} belongs to no part: add it to ALLOWED"
    for line, module, own in imports(name):
        if own:
            target = part_of(module)
            fine = target == part or any(inside(module, allowed) for allowed in ALLOWED[part])
            assert fine, f"{MODULES[name]}:{line}: {part} must not import {module}"


@each_module
def test_parts_do_not_know_what_is_not_theirs(name: str) -> None:
    refused = {package for part, packages in FOREIGN.items() if inside(name, part) for package in packages}
    for line, module, own in imports(name):
        assert own or module.partition(".")[0] not in refused, (
            f"{MODULES[name]}:{line}: {name} must not import {module}"
        )


@each_module
def test_the_library_uses_relative_imports(name: str) -> None:
    if inside(name, "bench"):
        return  # it is a user of the library
    tree = ast.parse(MODULES[name].read_text())
    for node in ast.walk(tree):
        found = (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and not node.level
            else []
        )
        for module in found:
            assert module.partition(".")[0] not in ("tensorwire", *FOLDERS), (
                f"{MODULES[name]}:{node.lineno}: import {module} relatively"
            )


@each_module
def test_modules_are_of_readable_length(name: str) -> None:
    assert len(MODULES[name].read_text().splitlines()) <= 500


def test_setup_lists_every_package() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = config["options"]["packages"].split()
    folders = dict(line.split(" = ") for line in config["options"]["package_dir"].strip().splitlines())
    assert folders == {f"tensorwire.{folder}": folder for folder in FOLDERS}
    found = {f"tensorwire.{'.'.join(path.parent.relative_to(ROOT).parts)}" for _, path in modules()}
    assert sorted(listed) == sorted(found)
    for folder in FOLDERS:
        assert (ROOT / folder / "py.typed").is_file(), f"{folder} has no py.typed"
