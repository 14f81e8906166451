"""The pumps there are, by name: every test of one runs on both."""

from __future__ import annotations

import functools
import os
import shlex
import subprocess
import sysconfig
from collections.abc import Callable
from typing import Final

import pytest
from tensorwire.rpc.pump import Pump, PythonPump

NAMES: Final = ("python", "compiled")


def pump_named(name: str) -> Callable[..., Pump]:
    """A class of pumps. Skips the test if it was not built, as it should be without a C compiler; with one
    that is a failure."""
    if name == "python":
        return PythonPump
    try:
        from tensorwire.rpc.pump.compiled import CompiledPump
    except ImportError as error:
        if can_compile():
            pytest.fail(f"there is a C compiler, but no compiled pump: {error}; run `make setup` again")
        pytest.skip(f"the compiled pump was not built: {error}")
    return CompiledPump


@functools.cache
def can_compile() -> bool:
    """Whether the compiler that the build takes can compile for this interpreter."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    include = f"-I{sysconfig.get_path('include')}"
    try:
        done = subprocess.run(
            [*compiler, include, "-fsyntax-only", "-x", "c", "-"],
            input=b"#include <Python.h>\n",
            capture_output=True,
            check=False,
            timeout=60,
        )
    except OSError:
        return False
    return done.returncode == 0
