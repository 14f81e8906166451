"""Writes the model repository of the Java client's integration tests: ``java_models.py DIRECTORY``."""

import sys
from pathlib import Path

import models
from tensorwire.rpc.types import DTYPE_NAMES

directory = Path(sys.argv[1])

EVERY = """
class Model:
    inputs = [(name, name, (None, 2)) for name in {names!r}]
    outputs = [("got_" + name, name, (None, 2)) for name in {names!r}]
    batched = True

    def predict(self, **inputs):
        return {{"got_" + name: value for name, value in inputs.items()}}
"""
NAP = """
import time


class Model:
    inputs = [("seconds", "float64", (None,))]
    outputs = [("slept", "float64", (None,))]
    batched = True

    def predict(self, seconds):
        time.sleep(float(seconds.max(initial=0)))
        return {"slept": seconds}
"""


def python_model(name: str, code: str, batch: int) -> None:
    folder = directory / name
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.py").write_text(code)
    # A thread of the server: these tests are about the client.
    (folder / "model.toml").write_text(f'[workers]\nkind = "thread"\n[batching]\nmax_batch_size = {batch}\n')


python_model("every", EVERY.format(names=sorted(DTYPE_NAMES)), 8)
python_model("nap", NAP, 1)
models.scale(directory / "scale" / "1", 2.0)
models.scale(directory / ".scale-3" / "2", 3.0)
models.matmul(directory / "matmul" / "1")
models.identity(directory / "identity" / "1")
models.image(directory / "image" / "1")
models.unbatched(directory / "transpose" / "1")
