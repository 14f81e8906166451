"""Python servables: what model.py may do, and what is said when it is wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
from tensorwire.manager.config import BatchingConfig, EngineConfig, ModelConfig
from tensorwire.manager.engines.python import PythonEngine, PythonServable
from tensorwire.rpc.errors import (
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
    ResourceExhaustedError,
    RpcError,
)
from tensorwire.rpc.types import TensorSpec

HEAD = """
    import numpy as np

    class Model:
        inputs = [("x", "float32", (None, 2))]
        outputs = [("y", "float32", (None,))]
        batched = True
"""
ONES = np.ones((3, 2), np.float32)


def modules() -> list[str]:
    return [name for name in sys.modules if name.startswith("tensorwire_model_m_")]


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    """Tests that never close their servable must not be seen by those that look for left-over modules."""
    yield
    for name in modules():
        del sys.modules[name]


def write(directory: Path, body: str) -> Path:
    path = directory / "model.py"
    path.write_text(dedent(body), encoding="utf-8")
    return path


def load(path: Path, config: ModelConfig | None = None) -> PythonServable:
    return PythonEngine().load(path, config or ModelConfig(), name="m", version=1)


def predicting(directory: Path, *lines: str) -> PythonServable:
    """The model of HEAD with these lines as the body of predict(self, x)."""
    body = "".join(f"            {line}\n" for line in lines)
    return load(write(directory, HEAD + "        def predict(self, x):\n" + body))


def failure(action: Callable[[], object], kind: type[RpcError]) -> str:
    with pytest.raises(kind) as caught:
        action()
    assert "\n" not in caught.value.message
    return caught.value.message


def test_a_model_with_everything(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("def total(x):\n    return x.sum(1)\n")
    path = write(
        tmp_path,
        """
        import numpy as np
        from .helper import total

        class Model:
            inputs = [("x", np.float32, (None, 2)), ("gain", "float32", (None,), True)]
            outputs = [("y", "float32", (None,)), ("text", "string", (None,))]
            batched = True
            concurrent = True

            def load(self, directory, config):
                self.name = (directory / "name.txt").read_text() + config["suffix"]
                self.closed = directory / "closed"

            def predict(self, x, gain=1):
                return {"text": np.full(len(x), self.name, object), "y": total(x) * gain}

            def close(self):
                self.closed.touch()
        """,
    )
    (tmp_path / "name.txt").write_text("a")
    config = ModelConfig(engine=EngineConfig(options={"suffix": "b"}), description="d")
    servable = load(path, config)
    metadata = servable.metadata
    assert metadata.inputs == (
        TensorSpec("x", "float32", (None, 2)),
        TensorSpec("gain", "float32", (None,), optional=True),
    )
    assert (metadata.platform, metadata.batched, metadata.max_batch_size) == ("python", True, 256)
    assert (metadata.description, servable.concurrent, servable.releases_gil) == ("d", True, False)
    text, y = servable.run({"x": ONES}, ["text", "y"])
    assert (text.tolist(), y.tolist()) == (["ab"] * 3, [2, 2, 2])
    gain = np.array([1, 2, 3], np.float32)
    assert servable.run({"x": ONES, "gain": gain}, ["y"])[0].tolist() == [2, 4, 6]
    assert not (tmp_path / "closed").exists()
    servable.close()
    assert (tmp_path / "closed").exists()
    assert failure(lambda: servable.run({"x": ONES}, ["y"]), FailedPreconditionError)
    assert not modules()
    assert not (tmp_path / "__pycache__").exists()
    assert PythonEngine().estimate_ram(path, config) >= path.stat().st_size


def test_versions_do_not_share_modules(tmp_path: Path) -> None:
    servables: list[PythonServable] = []
    for version in ("1", "2"):
        directory = tmp_path / version
        directory.mkdir()
        (directory / "helper.py").write_text(f"FACTOR = {version}\n")
        body = HEAD.replace("import numpy as np", "from .helper import FACTOR")
        path = write(directory, body + "        def predict(self, x): return {'y': x.sum(1) * FACTOR}\n")
        servables.append(load(path))
    assert [s.run({"x": ONES}, ["y"])[0][0] for s in servables] == [2, 4]
    servables[0].close()
    assert servables[1].run({"x": ONES}, ["y"])[0][0] == 4
    servables[1].close()


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    for factor in (1, 2):
        servable = predicting(tmp_path, f"return {{'y': x.sum(1) * {factor}}}")
        assert servable.run({"x": ONES}, ["y"])[0][0] == 2 * factor
        servable.close()


def test_defaults(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        class Model:
            def predict(self, x):
                return {"y": x}
        """,
    )
    assert (
        "class Model has no inputs; expected a list of (name, dtype, shape), here or as [[inputs]]"
        in failure(lambda: load(path), InvalidArgumentError)
    )
    specs = (TensorSpec("x", "int64", ()),), (TensorSpec("y", "int64", ()),)
    servable = load(path, ModelConfig(inputs=specs[0], outputs=specs[1]))
    assert (servable.metadata.inputs, servable.metadata.outputs) == specs
    assert (servable.metadata.batched, servable.concurrent) == (False, False)
    (y,) = servable.run({"x": np.array(3)}, ["y"])
    assert (y.shape, y.dtype) == ((), np.int64)


def test_batching_can_be_switched_off(tmp_path: Path) -> None:
    path = write(tmp_path, HEAD + "        def predict(self, x): return {'y': x.sum(1)[:1]}\n")
    servable = load(path, ModelConfig(batching=BatchingConfig(enabled=False)))
    assert not servable.metadata.batched
    assert servable.run({"x": ONES}, ["y"])[0].shape == (1,)


def test_outputs_are_made_contiguous_and_scalars_arrays(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        class Model:
            inputs = [("x", "float32", (None, 2))]
            outputs = [("t", "float32", (2, None)), ("s", "float32", ())]
            def predict(self, x):
                return {"t": x.T, "s": x.sum()}
        """,
    )
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    t, s = load(path).run({"x": x}, ["t", "s"])
    assert t.flags.c_contiguous
    assert t.tolist() == x.T.tolist()
    assert (s.shape, s.tolist()) == ((), 15)


def test_strings_and_bytes(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        import numpy as np

        class Model:
            inputs = [("x", "bytes", (None,)), ("how", "int64", ())]
            outputs = [("b", "bytes", (None,)), ("s", "string", (None,))]
            def predict(self, x, how):
                s = [item.decode() for item in x]
                if how == 0:
                    return {"b": x, "s": np.array(s, object)}
                if how == 1:
                    return {"b": x.astype("S"), "s": np.array(s)}
                return {"b": x, "s": x}
        """,
    )
    servable = load(path)
    x = np.array([b"a", b"\xc3\xa9"], object)
    for how in (0, 1):
        b, s = servable.run({"x": x, "how": np.array(how)}, ["b", "s"])
        assert (b.dtype, b.tolist(), s.dtype, s.tolist()) == (object, [b"a", b"\xc3\xa9"], object, ["a", "é"])
    text = failure(lambda: servable.run({"x": x, "how": np.array(2)}, ["b", "s"]), InternalError)
    assert "output 's' is object; expected an object array of str" in text


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("return x", "predict() returned ndarray; expected a dict of arrays"),
        ("return None", "predict() returned NoneType; expected a dict of arrays"),
        ("return {}", "predict() returned the outputs []; expected ['y']"),
        ("return {'y': x[:, 0], 'z': x}", "predict() returned the outputs ['y', 'z']; expected ['y']"),
        ("return {'y': [1.0, 2.0, 3.0]}", "output 'y' is a list; expected a NumPy array"),
        ("return {'y': x[:, 0].astype('f8')}", "output 'y' is float64; expected y: float32[?]"),
        ("return {'y': x[:, 0].astype('>f4')}", "output 'y' is >f4; expected y: float32[?]"),
        ("return {'y': x}", "output 'y' has the shape [3, 2]; expected y: float32[?]"),
        ("return {'y': x[:1, 0]}", "output 'y' has 1 rows for 3 rows of input"),
        ("raise ValueError('one\\ntwo')", "predict() raised ValueError: one two (model.py:9)"),
        ("raise SystemExit(3)", "predict() raised SystemExit: 3 (model.py:9)"),
        ("return np.linalg.inv(x)", "predict() raised LinAlgError: "),
    ],
)
def test_wrong_answers_name_the_model(tmp_path: Path, line: str, expected: str) -> None:
    servable = predicting(tmp_path, line)
    text = failure(lambda: servable.run({"x": ONES}, ["y"]), InternalError)
    assert text.startswith("model 'm' version 1: ")
    assert expected in text


def test_errors_with_a_code_pass_through(tmp_path: Path) -> None:
    servable = predicting(
        tmp_path,
        "from tensorwire.rpc.errors import ResourceExhaustedError",
        "raise ResourceExhaustedError('no seats')",
    )
    assert failure(lambda: servable.run({"x": ONES}, ["y"]), ResourceExhaustedError) == "no seats"


def test_an_unknown_output(tmp_path: Path) -> None:
    servable = predicting(tmp_path, "return {'y': x[:, 0]}")
    text = failure(lambda: servable.run({"x": ONES}, ["z"]), InvalidArgumentError)
    assert "unknown output 'z'; expected one of ['y']" in text


PREDICT = "\n        def predict(self, x): return {}\n"


@pytest.mark.parametrize(
    ("body", "kind", "expected"),
    [
        ("x = (", InvalidArgumentError, "model.py:1: SyntaxError: '(' was never closed"),
        ("x = 1", InvalidArgumentError, "model.py: has no class Model"),
        ("Model = 1", InvalidArgumentError, "model.py: has no class Model"),
        ("\nx = 1\n1 / 0", InvalidArgumentError, "raised ZeroDivisionError: division by zero (model.py:3)"),
        ("import sys\nsys.exit(1)", InvalidArgumentError, "raised SystemExit: 1 (model.py:2)"),
        (
            "import nothing_like_it",
            FailedPreconditionError,
            "No module named 'nothing_like_it'; install it where",
        ),
        (HEAD, InvalidArgumentError, "model.py:4: class Model has no method predict()"),
        (
            HEAD + "        async def predict(self, x): ...",
            InvalidArgumentError,
            "model.py:8: predict() must not be",
        ),
        (
            HEAD + "        def predict(self, y): ...",
            InvalidArgumentError,
            "model.py:8: predict(y) cannot take the",
        ),
        (
            HEAD + "        def predict(self, x, z): ...",
            InvalidArgumentError,
            "missing a required argument: 'z'",
        ),
        (
            HEAD + "        inputs = 3" + PREDICT,
            InvalidArgumentError,
            "model.py:4: Model.inputs: found 3; expected",
        ),
        (
            HEAD + "        inputs = [('x', 'f4')]" + PREDICT,
            InvalidArgumentError,
            "Model.inputs[0]: found ('x', 'f4')",
        ),
        (
            HEAD + "        inputs = [('x', 'f4', ())]" + PREDICT,
            InvalidArgumentError,
            "inputs[0]: unknown dtype 'f4'",
        ),
        (
            HEAD + "        inputs = [('x', np.str_, ())]" + PREDICT,
            InvalidArgumentError,
            "inputs[0]: dtype <U0 cannot",
        ),
        (
            HEAD + "        inputs = [('a b', 'int8', ())]" + PREDICT,
            InvalidArgumentError,
            "where name is a Python ident",
        ),
        (
            HEAD + "        inputs = [('x', 'int8', 4)]" + PREDICT,
            InvalidArgumentError,
            "found the shape 4; expected a",
        ),
        (
            HEAD + "        inputs = [('x', 'int8', (-1,))]" + PREDICT,
            InvalidArgumentError,
            "found the shape (-1,); exp",
        ),
        (
            HEAD + "        inputs = [('x', 'int8', (2,))]" + PREDICT,
            InvalidArgumentError,
            "batched is True, but x: int8[2]",
        ),
        (
            HEAD + "        inputs = [('x', 'int8', (None,))] * 2" + PREDICT,
            InvalidArgumentError,
            "expected each name once",
        ),
        (
            HEAD + "        inputs = []\n        def predict(self): ...",
            InvalidArgumentError,
            "there are no inputs",
        ),
        (
            HEAD + "        outputs = []" + PREDICT,
            InvalidArgumentError,
            "Model.outputs is empty; expected at least one",
        ),
        (
            HEAD + "        batched = 1" + PREDICT,
            InvalidArgumentError,
            "Model.batched: found 1; expected True or False",
        ),
        (
            HEAD + "        def __init__(self): raise OSError('no disk')" + PREDICT,
            FailedPreconditionError,
            "model.py: Model() raised OSError: no disk (model.py:8)",
        ),
        (
            HEAD + "        def load(self, directory, config): config['path']" + PREDICT,
            FailedPreconditionError,
            "model.py: load() raised KeyError: 'path' (model.py:8)",
        ),
    ],
)
def test_a_model_that_cannot_be_loaded(
    tmp_path: Path, body: str, kind: type[RpcError], expected: str
) -> None:
    path = write(tmp_path, body)
    text = failure(lambda: load(path), kind)
    assert text.startswith(str(path))
    assert expected in text
    assert not modules()


def test_a_failed_load_closes_what_it_opened(tmp_path: Path) -> None:
    body = HEAD + (
        "        batched = 1\n"
        "        def load(self, directory, config): self.directory = directory\n"
        "        def predict(self, x): ...\n"
        "        def close(self): (self.directory / 'closed').touch(); raise ValueError\n"
    )
    path = write(tmp_path, body)
    failure(lambda: load(path), InvalidArgumentError)
    assert (tmp_path / "closed").exists()


def test_a_failing_close_is_reported_and_forgets_the_module(tmp_path: Path) -> None:
    path = write(tmp_path, HEAD + PREDICT + "        def close(self): raise ValueError('stuck')\n")
    servable = load(path)
    text = failure(servable.close, InternalError)
    assert "close() raised ValueError: stuck (model.py:" in text
    assert not modules()


def test_a_missing_directory_is_not_a_model(tmp_path: Path) -> None:
    assert PythonEngine().find(tmp_path / "none") is None
    path = write(tmp_path, "")
    assert PythonEngine().find(tmp_path) == path


def test_declarations_may_be_made_in_load(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        class Model:
            def load(self, directory, config):
                self.inputs = [("x", "int8", (config["width"],))]
                self.outputs = self.inputs
            def predict(self, x):
                return {"x": x}
        """,
    )
    options: dict[str, Any] = {"width": 3}
    servable = load(path, ModelConfig(engine=EngineConfig(options=options)))
    assert servable.metadata.inputs == (TensorSpec("x", "int8", (3,)),)


def test_the_example_of_the_documentation_works(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "engines.md").read_text(encoding="utf-8")
    example = text.partition("```python\n")[2].partition("```")[0]
    servable = load(write(tmp_path, example), ModelConfig(engine=EngineConfig(options={"scale": 2})))
    assert servable.run({"x": np.ones((2, 16), np.float32)}, ["score"])[0].tolist() == [32, 32]
    servable.close()
