"""The Java clients of the benchmark: what they are asked and say; the whole of it where they were built."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tensorwire.bench.java import CALLERS, GRPC_JAVA, TENSORWIRE, JavaSettings, run
from tensorwire.bench.java_clients import classpath
from tensorwire.bench.processes import NotBuiltError


def is_built() -> bool:
    try:
        classpath()
    except NotBuiltError:
        return False
    return shutil.which("java") is not None


def test_no_programs_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(NotBuiltError, match="run make bench-java"):
        classpath(tmp_path)


def test_the_class_path_has_the_programs_and_their_libraries(tmp_path: Path) -> None:
    (tmp_path / "tensorwire-bench.jar").touch()
    assert classpath(tmp_path) == f"{tmp_path}/tensorwire-bench.jar:{tmp_path}/lib/*"


@pytest.mark.skipif(not is_built(), reason="the Java clients are not built: make bench-java")
def test_both_are_measured_and_no_call_fails() -> None:
    proof = run(JavaSettings(rounds=1, compiling=1.0, warmup=0.2, duration=0.5))
    found = proof.raw["java"][f"64 B, {CALLERS} threads"]
    assert set(found) == {TENSORWIRE, GRPC_JAVA}
    assert [str(check) for check in proof.checks if "no call failed" in check.text] == [
        "PASS  java: no call failed"
    ]
