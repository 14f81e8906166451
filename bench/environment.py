"""What a result depends on besides the code: processor, kernel, versions."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Final

import msgspec

_PACKAGES: Final = (
    "tensorwire",
    "pyzmq",
    "grpcio",
    "protobuf",
    "msgspec",
    "numpy",
    "onnxruntime",
    "uvloop",
)


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """Where a benchmark ran. ``load_average`` is the one-minute figure before the start."""

    cpu: str
    cores: int
    kernel: str
    python: str
    libzmq: str
    versions: dict[str, str]
    load_average: float

    @classmethod
    def read(cls) -> Environment:
        """This process's environment."""
        import zmq

        return cls(
            cpu=_cpu_model(Path("/proc/cpuinfo")),
            cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
            kernel=f"{platform.system()} {platform.release()}",
            python=sys.version.split()[0],
            libzmq=zmq.zmq_version(),
            versions={name: version for name in _PACKAGES if (version := _version(name))},
            load_average=round(os.getloadavg()[0], 2),
        )

    def lines(self) -> list[str]:
        """For people."""
        packages = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        load = f"load average {self.load_average:g} before the start"
        return [
            f"{self.cpu}, {self.cores} cores, {self.kernel}, {load}",
            f"Python {self.python}, libzmq {self.libzmq}, {packages}",
        ]


def _cpu_model(cpuinfo: Path) -> str:
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
