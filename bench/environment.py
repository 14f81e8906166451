"""What a result depends on: processor, memory, kernel, versions, settings, and which commit it is of."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Final

import msgspec
import psutil

_PACKAGES: Final = (
    "tensorwire",
    "pyzmq",
    "grpcio",
    "protobuf",
    "msgspec",
    "numpy",
    "onnxruntime",
    "uvloop",
    "thrift",
    "nvidia-pytriton",
)
#: What the kernel does with memory and connections, where Linux says so.
_KERNEL_SETTINGS: Final = {
    "transparent huge pages": Path("/sys/kernel/mm/transparent_hugepage/enabled"),
    "turbo off (intel_pstate)": Path("/sys/devices/system/cpu/intel_pstate/no_turbo"),
    "net.core.somaxconn": Path("/proc/sys/net/core/somaxconn"),
    "net.ipv4.tcp_rmem": Path("/proc/sys/net/ipv4/tcp_rmem"),
    "net.ipv4.tcp_wmem": Path("/proc/sys/net/ipv4/tcp_wmem"),
}
_GOVERNOR: Final = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
#: Variables that change how a system under test runs.
_VARIABLES: Final = (
    "TENSORWIRE_",
    "GRPC_POLL",
    "GRPC_EXPERIMENTS",
    "GRPC_TRACE",
    "OMP_",
    "MALLOC_",
    "PYTHONMALLOC",
)
_CHECKOUT: Final = Path(__file__).parents[1]
_GIT_SECONDS: Final = 10.0


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """Where a benchmark ran, and what.

    Attributes:
        load_average: the one-minute figure before the start.
        memory: bytes.
        governor: of the CPU's frequency; empty where that cannot be read.
        commit: what ``git describe`` says; empty where this is not a checkout.
        settings: of the kernel and from the environment, those that matter, as they are read.
    """

    cpu: str
    cores: int
    kernel: str
    python: str
    libzmq: str
    versions: dict[str, str]
    load_average: float
    memory: int = 0
    governor: str = ""
    commit: str = ""
    settings: dict[str, str] = {}

    @classmethod
    def read(cls) -> Environment:
        """This process's environment."""
        import zmq

        return cls(
            cpu=_cpu_model(Path("/proc/cpuinfo")),
            cores=cores(),
            kernel=f"{platform.system()} {platform.release()}",
            python=sys.version.split()[0],
            libzmq=zmq.zmq_version(),
            versions={name: version for name in _PACKAGES if (version := _version(name))},
            load_average=round(os.getloadavg()[0], 2),
            memory=psutil.virtual_memory().total,
            governor=_read(_GOVERNOR),
            commit=_commit(_CHECKOUT),
            settings=_settings(),
        )

    def lines(self) -> list[str]:
        """For people."""
        packages = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        load = f"load average {self.load_average:g} before the start"
        commit = f", commit {self.commit}" if self.commit else ""
        return [
            f"{self.cpu}, {self.cores} cores, {self.kernel}, {load}",
            f"Python {self.python}, libzmq {self.libzmq}, {packages}{commit}",
        ]


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _settings() -> dict[str, str]:
    kernel = {name: text for name, path in _KERNEL_SETTINGS.items() if (text := _read(path))}
    variables = {name: value for name, value in sorted(os.environ.items()) if name.startswith(_VARIABLES)}
    return {**kernel, **variables}


def _read(path: Path) -> str:
    try:
        return " ".join(path.read_text().split())
    except OSError:
        return ""


def _commit(directory: Path) -> str:
    """Of the checkout that this file is part of, not of one that an installation happens to lie in."""
    if not (directory / ".git").exists():
        return ""
    command = ["git", "-C", str(directory), "describe", "--always", "--dirty", "--tags"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_GIT_SECONDS)
    except (OSError, subprocess.SubprocessError):  # no git here, or it does not trust the folder
        return ""
    return found.stdout.strip()


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
