"""The one registry of errors: gRPC's canonical status codes and an exception class for each.

Codes have gRPC's names and numbers (https://grpc.github.io/grpc/core/md_doc_statuscodes.html), so a
service that migrates keeps its handling. A code that this version does not know is preserved as a plain
``int`` on an :class:`RpcError`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class StatusCode(IntEnum):
    """gRPC's canonical status codes."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class RpcError(Exception):
    """Base of everything that a call can fail with.

    Attributes:
        code: the status code; a :class:`StatusCode`, or a plain ``int`` for a code unknown to this version.
        message: what was wrong and what was expected, for a person to read.
    """

    default_code: ClassVar[StatusCode] = StatusCode.UNKNOWN

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code: int = self.default_code if code is None else code

    def __str__(self) -> str:
        return f"{code_name(self.code)}: {self.message}"

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.message, self.code))


class CancelledError(RpcError):
    """The caller, or the server on its behalf, cancelled the call."""

    default_code = StatusCode.CANCELLED


class InvalidArgumentError(RpcError):
    """The request can never succeed as it is: wrong name, dtype, shape, option."""

    default_code = StatusCode.INVALID_ARGUMENT


class ProtocolError(InvalidArgumentError):
    """Bytes that are not a valid tensorwire message."""


class DeadlineExceededError(RpcError):
    """The call's timeout passed before its answer arrived."""

    default_code = StatusCode.DEADLINE_EXCEEDED


class NotFoundError(RpcError):
    """No such model, version, label or method."""

    default_code = StatusCode.NOT_FOUND


class AlreadyExistsError(RpcError):
    """The thing to create is there already."""

    default_code = StatusCode.ALREADY_EXISTS


class PermissionDeniedError(RpcError):
    """The caller is known but may not do this."""

    default_code = StatusCode.PERMISSION_DENIED


class ResourceExhaustedError(RpcError):
    """A limit was reached: queue, in-flight requests, memory budget."""

    default_code = StatusCode.RESOURCE_EXHAUSTED


class FailedPreconditionError(RpcError):
    """The system is not in the state that the operation needs."""

    default_code = StatusCode.FAILED_PRECONDITION


class AbortedError(RpcError):
    """The operation was given up, typically because of a concurrent change."""

    default_code = StatusCode.ABORTED


class OutOfRangeError(RpcError):
    """A value lies outside its valid range."""

    default_code = StatusCode.OUT_OF_RANGE


class UnimplementedError(RpcError):
    """The server does not know this operation or protocol version."""

    default_code = StatusCode.UNIMPLEMENTED


class InternalError(RpcError):
    """The model or the server failed while it computed the answer."""

    default_code = StatusCode.INTERNAL


class UnavailableError(RpcError):
    """No server, or one that is shutting down or has lost the worker; a retry may succeed."""

    default_code = StatusCode.UNAVAILABLE


class DataLossError(RpcError):
    """Data was lost or is corrupt."""

    default_code = StatusCode.DATA_LOSS


class UnauthenticatedError(RpcError):
    """The caller did not prove who it is."""

    default_code = StatusCode.UNAUTHENTICATED


_CLASS_OF_CODE: dict[int, type[RpcError]] = {
    cls.default_code: cls for cls in RpcError.__subclasses__() if cls.default_code is not StatusCode.UNKNOWN
}


def code_name(code: int) -> str:
    """``"NOT_FOUND"`` for 5; ``"CODE_99"`` for a code that this version does not know."""
    try:
        return StatusCode(code).name
    except ValueError:
        return f"CODE_{code}"


def error_from_code(code: int, message: str) -> RpcError:
    """The exception for a status that came over the wire; unknown codes give a plain :class:`RpcError`."""
    cls = _CLASS_OF_CODE.get(code)
    if cls is not None:
        return cls(message)
    # OK is no error: a peer that says so in one is confused.
    return RpcError(message, StatusCode.UNKNOWN if code == StatusCode.OK else code)
