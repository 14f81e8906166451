"""The error registry."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
from tensorwire.rpc import errors
from tensorwire.rpc.errors import (
    InvalidArgumentError,
    ProtocolError,
    RpcError,
    StatusCode,
    UnavailableError,
    code_name,
    error_from_code,
)

DOCS = Path(__file__).parents[2] / "docs" / "protocol.md"
#: gRPC's list, written out: names and numbers are part of the protocol.
CANONICAL = [
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
    "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
]  # fmt: skip


def test_codes_are_grpcs() -> None:
    assert [(code.name, code.value) for code in StatusCode] == [(n, i) for i, n in enumerate(CANONICAL)]


def test_the_docs_list_every_code() -> None:
    rows = re.findall(r"^\| (\d+) \| ([A-Z_]+) \|", DOCS.read_text(), re.MULTILINE)
    codes = [(int(code), name) for code, name in rows if name in CANONICAL]
    assert codes == [(code.value, code.name) for code in StatusCode]


@pytest.mark.parametrize("code", [c for c in StatusCode if c not in (StatusCode.OK, StatusCode.UNKNOWN)])
def test_every_code_has_one_class(code: StatusCode) -> None:
    classes = [cls for cls in RpcError.__subclasses__() if cls.default_code is code]
    assert len(classes) == 1
    error = error_from_code(code, "why")
    assert type(error) is classes[0]
    assert (error.code, error.message, str(error)) == (code, "why", f"{code.name}: why")


def test_unknown_codes_are_preserved() -> None:
    error = error_from_code(99, "later")
    assert type(error) is RpcError
    assert (error.code, str(error)) == (99, "CODE_99: later")
    assert error_from_code(StatusCode.UNKNOWN, "x").code is StatusCode.UNKNOWN
    assert [code_name(code) for code in (5, 17, -1)] == ["NOT_FOUND", "CODE_17", "CODE_-1"]


def test_a_protocol_error_is_an_invalid_argument_on_the_wire() -> None:
    error = ProtocolError("bad bytes")
    assert error.code is StatusCode.INVALID_ARGUMENT
    assert type(error_from_code(error.code, error.message)) is InvalidArgumentError


@pytest.mark.parametrize(
    "error",
    [
        RpcError("a", 99),
        RpcError("a"),
        UnavailableError("b"),
        ProtocolError("c"),
        InvalidArgumentError("d", 4),
    ],
)
def test_errors_survive_pickling(error: RpcError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.code, copy.message, str(copy)) == (
        type(error),
        error.code,
        error.message,
        str(error),
    )


def test_the_module_has_no_other_exceptions() -> None:
    found = [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, Exception)]
    assert all(issubclass(item, RpcError) for item in found)
