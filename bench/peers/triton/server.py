"""Runs Triton: ``python -m tensorwire.bench.peers.triton.server REPOSITORY``, until stdin closes.

Triton's model repository is made from tensorwire's: the newest version of each ONNX model that takes batches.
Others are left out, with a line on stderr.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, cast

from ....manager.config import derive_max_batch_size, load_model_config
from ....rpc.types import TensorSpec
from ...child import Ready, say, stop_event
from ...processes import Child, NotBuiltError, watch
from ...servers import free_port

#: Where ``make bench-triton`` leaves it.
INSTALLED: Final = Path(__file__).parents[3] / "build" / "peers" / "triton"
_READY_SECONDS: Final = 60.0
#: ONNX element type -> Triton's.
_TYPES: Final = {1: "TYPE_FP32", 2: "TYPE_UINT8", 6: "TYPE_INT32", 7: "TYPE_INT64", 11: "TYPE_FP64"}


def _program(installed: Path) -> Path:
    return installed / "pytriton" / "tritonserver" / "bin" / "tritonserver"


def _stub(installed: Path) -> Path:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stubs = installed / "pytriton" / "tritonserver" / "python_backend_stubs"
    return stubs / version / "triton_python_backend_stub"


def missing(installed: Path = INSTALLED) -> str:
    """Why Triton cannot run; "" where it can. Looks at the files, and asks the loader for their libraries."""
    program, stub = _program(installed), _stub(installed)
    if not program.is_file():
        return "tritonserver is not installed: run make bench-triton"
    if not stub.is_file():
        return f"its Python backend is not made for Python {stub.parent.name}"
    for path in (program, stub):
        reason = _unresolved(path)
        if reason:
            return reason
    return ""


def _unresolved(program: Path) -> str:
    """What the loader does not find for a program, glibc's versions included."""
    try:
        found = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"cannot tell what {program.name} needs: {error}"
    lines = [line.strip() for line in (found.stdout + found.stderr).splitlines() if "not found" in line]
    if lines:
        return f"{program.name}: {lines[0]}"
    return f"{program.name}: {found.stderr.strip()}" if found.returncode else ""


def convert(repository: Path, target: Path, site: Path = INSTALLED, *, instances: int = 1) -> list[str]:
    """Make Triton's model repository in ``target / "models"``; batches have the limit that tensorwire has.

    Args:
        instances: of each model, which run batches at the same time.
        site: packages for its Python backend.

    Returns:
        The models that were left out.
    """
    (target / "site").symlink_to(site.resolve())
    left_out: list[str] = []
    for model in sorted(path for path in repository.iterdir() if path.is_dir()):
        names = [path.parent.name for path in model.glob("*/model.onnx")]
        newest = max((int(name) for name in names if name.isdecimal()), default=None)
        config = None if newest is None else _config(model, newest, instances)
        if config is None:
            left_out.append(model.name)
            continue
        place = target / "models" / model.name / "1"
        place.mkdir(parents=True)
        (place.parent / "config.pbtxt").write_text(config)
        shutil.copy(Path(__file__).with_name("servable.py"), place / "model.py")
        shutil.copytree(model / str(newest), place, dirs_exist_ok=True)
    return left_out


def _config(model: Path, version: int, instances: int) -> str | None:
    """The configuration for an ONNX model; None where its first dimensions are not the batch."""
    import onnx

    path = model / str(version) / "model.onnx"
    graph = cast(Any, onnx).load(str(path), load_external_data=False).graph
    weights = {weight.name for weight in graph.initializer}
    inputs, outputs = [each for each in graph.input if each.name not in weights], list(graph.output)
    specs = [_spec(each) for each in (*inputs, *outputs)]
    if None in specs:
        return None
    return (
        f'backend: "python"\nmax_batch_size: {_most_rows(model, inputs)}\n'
        f"input [{', '.join(map(str, specs[: len(inputs)]))}]\n"
        f"output [{', '.join(map(str, specs[len(inputs) :]))}]\n"
        f"instance_group [{{ kind: KIND_CPU count: {instances} }}]\ndynamic_batching {{ }}\n"
    )


def _most_rows(model: Path, inputs: Iterable[Any]) -> int:
    """What the model's file says, else what tensorwire derives from its inputs."""
    from onnx import helper

    said = load_model_config(model / "model.toml").batching.max_batch_size
    if said is not None:
        return said
    tensors = [(each.name, each.type.tensor_type) for each in inputs]
    return derive_max_batch_size(
        tuple(
            TensorSpec(
                name,
                helper.tensor_dtype_to_np_dtype(tensor.elem_type).name,
                tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim),
            )
            for name, tensor in tensors
        )
    )


def _spec(value: Any) -> str | None:
    tensor = value.type.tensor_type
    batch, *rest = tensor.shape.dim or (None,)
    if batch is None or batch.HasField("dim_value") or tensor.elem_type not in _TYPES:
        return None
    dims = ", ".join(str(dim.dim_value if dim.HasField("dim_value") else -1) for dim in rest)
    return f'{{ name: "{value.name}" data_type: {_TYPES[tensor.elem_type]} dims: [{dims}] }}'


def _backends(target: Path, installed: Path) -> Path:
    """The backends, with the process of this version of Python where Triton looks for it."""
    python = target / "backends" / "python"
    python.mkdir(parents=True)
    for path in (installed / "pytriton" / "tritonserver" / "backends" / "python").iterdir():
        (python / path.name).symlink_to(path)
    (python / "triton_python_backend_stub").symlink_to(_stub(installed))
    return python.parent


def _arguments(target: Path, backends: Path, port: int) -> Iterable[str]:
    yield f"--model-repository={target / 'models'}"
    yield f"--backend-directory={backends}"
    # Several servers on one machine must not share the memory through which they talk to their backends.
    yield f"--backend-config=python,shm-region-prefix-name=tensorwire_bench_{port}"
    yield from (
        "--grpc-address=127.0.0.1",
        f"--grpc-port={port}",
    )
    yield from ("--allow-http=false", "--allow-metrics=false", "--log-info=false", "--exit-timeout-secs=2")


def _listens(port: int) -> bool:
    """It listens when all models are loaded."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def main() -> None:
    """Serve until stdin closes.

    Raises:
        NotBuiltError: it cannot run here.
        ChildError: it did not become ready, or has ended.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("repository", type=Path)
    parser.add_argument(
        "--executor", type=int, default=1, metavar="N", help="instances of each model (default 1)"
    )
    options = parser.parse_args()
    if reason := missing():
        raise NotBuiltError(reason)
    stopped, port = stop_event(), free_port()
    with tempfile.TemporaryDirectory(prefix="tensorwire-triton-") as folder:
        target = Path(folder)
        for model in convert(options.repository, target, instances=options.executor):
            print(f"not served by Triton: {model}", file=sys.stderr)
        arguments = list(_arguments(target, _backends(target, INSTALLED.resolve()), port))
        log = target / "triton.log"
        # It does not read its stdin, so it would outlive this process where that is killed.
        command = ["-m", f"{__package__}.launch", str(_program(INSTALLED)), *arguments]
        with Child("tritonserver", command, log, ends_with_stdin=False) as triton:
            triton.wait_until(lambda: stopped.is_set() or _listens(port), _READY_SECONDS)
            say(Ready(f"127.0.0.1:{port}"))
            watch([triton], stopped)


if __name__ == "__main__":
    main()
