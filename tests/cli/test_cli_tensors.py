"""What is typed at `tensorwire predict`, as arrays of the model's dtypes, and arrays as text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from tensorwire.rpc.errors import InvalidArgumentError
from tensorwire.rpc.types import ModelMetadata, TensorSpec
from tensorwire.server.cli.tensors import as_json, read_inputs, readable, save


def metadata(*specs: TensorSpec, batched: bool = False) -> ModelMetadata:
    return ModelMetadata(name="m", version=1, platform="", inputs=specs, outputs=(), batched=batched)


def read(dtype: str, value: str, shape: tuple[int | None, ...] = (None,), batched: bool = False) -> Any:
    return read_inputs([f"x={value}"], metadata(TensorSpec("x", dtype, shape), batched=batched))["x"]


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        ("uint8", "[0, 255]", [0, 255]),
        ("bool", "[true, 0]", [True, False]),
        ("float16", "[1]", [1.0]),
        ("bfloat16", "[0.5]", [0.5]),
        ("float8_e4m3fn", "[-2]", [-2.0]),
        ("complex64", "[1]", [1 + 0j]),
        ("int64", "[2.0]", [2]),
        ("int64", "[-9223372036854775808]", [-(2**63)]),
        ("uint64", "[18446744073709551615]", [2**64 - 1]),
        ("string", "@[x", ["[x"]),
        ("bytes", '["a", "b"]', [b"a", b"b"]),
        ("float32", "[NaN]", None),
    ],
)
def test_values_take_the_models_dtype(dtype: str, value: str, expected: list[Any] | None) -> None:
    found = read(dtype, value)
    assert found.tolist() == expected if expected is not None else np.isnan(found).all()


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("uint8", "[-1]"),
        ("uint64", "[-1]"),
        ("int8", "[128]"),
        ("bool", "[2]"),
        ("int64", "[2.5]"),
        ("int64", "[1e30]"),
        ("int64", "[NaN]"),
        ("int64", "[1180591620717411303424]"),
        ("float16", "[1e6]"),
        ("float8_e4m3fn", "[1e6]"),
        ("float32", '["x"]'),
        ("float32", "[null]"),
        ("float32", "[[1], [2, 3]]"),
        ("string", "[1]"),
        ("bytes", "null"),
    ],
)
def test_values_that_do_not_fit_are_refused(dtype: str, value: str) -> None:
    with pytest.raises(InvalidArgumentError, match=rf": input 'x': .*expected x: {dtype}\[\?\]$"):
        read(dtype, value)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "input a, b is missing; expected inputs: a: float32[?, 3]; b: int64[?]; c: int64[] (optional)"),
        (["d=1"], "no input 'd'; expected inputs: a: float32[?, 3]; b: int64[?]"),
        (["a"], "--input: found 'a'; expected NAME=FILE.npy"),
        (["a=[[1, 2, 3]"], "input 'a': '[[1, 2, 3]' is neither JSON nor a file"),
        (["a=missing.npy"], "input 'a': no such file: missing.npy"),
        (["missing.npz"], "input 'missing.npz': no such file: missing.npz"),
        (["b=[1.5]"], "input 'b': 1.5 does not fit into int64; expected b: int64[?]"),
        (["b=[1]", "b=[1]"], "input 'b' was given twice"),
        ([f"b={'1' * 5000}x"], "input 'b': '1111"),
    ],
)
def test_what_is_wrong_is_told_with_what_is_expected(inputs: list[str], message: str) -> None:
    specs = (
        TensorSpec("a", "float32", (None, 3)),
        TensorSpec("b", "int64", (None,)),
        TensorSpec("c", "int64", (), optional=True),
    )
    with pytest.raises(InvalidArgumentError) as caught:
        read_inputs(inputs, metadata(*specs))
    assert caught.value.message.startswith(message)


def test_one_row_may_be_written_without_the_batch_axis() -> None:
    assert read("float32", "[1, 2]", (None, 2), batched=True).shape == (1, 2)
    assert read("float32", "[[1, 2]]", (None, 2), batched=True).shape == (1, 2)
    assert read("float32", "[1, 2]", (None, 2)).shape == (2,)
    assert read("string", "@x", ()).shape == ()


def test_files(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([0.5, 2], ml_dtypes.bfloat16))
    assert read("bfloat16", str(tmp_path / "x.npy")).tolist() == [0.5, 2.0]
    (tmp_path / "x.jpeg").write_bytes(b"\xff\xd8")
    assert read("bytes", str(tmp_path / "x.jpeg")).tolist() == [b"\xff\xd8"]
    with pytest.raises(InvalidArgumentError, match="the content is not UTF-8 text"):
        read("string", str(tmp_path / "x.jpeg"))
    (tmp_path / "x.npy").write_bytes(b"no array")
    with pytest.raises(InvalidArgumentError, match=r"x\.npy cannot be read: "):
        read("float32", str(tmp_path / "x.npy"))
    np.save(tmp_path / "o.npy", np.array([print], object))
    with pytest.raises(InvalidArgumentError, match=r"o\.npy cannot be read: "):
        read("float32", str(tmp_path / "o.npy"))


def test_outputs_as_text_and_json() -> None:
    assert readable("y", np.ones((1, 2), "f4")) == "y: float32[1, 2]\n[[1. 1.]]"
    assert len(readable("y", np.zeros(10_000))) < 300
    assert as_json(np.array([b"\xff"], object)) == {"dtype": "bytes", "shape": [1], "data": ["/w=="]}
    assert as_json(np.array([1 + 2j])) == {"dtype": "complex128", "shape": [1], "data": [[1.0, 2.0]]}
    found = as_json(np.array([0.5], ml_dtypes.bfloat16))
    assert json.dumps(found) == '{"dtype": "bfloat16", "shape": [1], "data": [0.5]}'


def test_outputs_in_a_file(tmp_path: Path) -> None:
    outputs = {
        "s": np.array(["ä", ""], object),
        "b": np.array([b"\0x"], object),
        "h": np.array([0.5], ml_dtypes.bfloat16),
        "file": np.ones(1),
    }
    save(tmp_path / "o.npz", outputs)
    with np.load(tmp_path / "o.npz", allow_pickle=False) as written:
        assert written["s"].tolist() == ["ä", ""]
        assert written["b"].tolist() == [b"\0x"]
        assert written["h"].view(ml_dtypes.bfloat16).tolist() == [0.5]
        assert written["file"].tolist() == [1]
    with pytest.raises(InvalidArgumentError, match="end with NUL"):
        save(tmp_path / "o.npz", {"b": np.array([b"x\0"], object)})
