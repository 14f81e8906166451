"""What differs per request and is usually absent: priority, routing key, trace context, user metadata."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ..errors import ProtocolError

PRIORITY_NORMAL: Final = 0
PRIORITY_HIGH: Final = 1


class Extra(msgspec.Struct, frozen=True, omit_defaults=True):
    """Per-message options, a msgpack map; unknown keys are ignored."""

    priority: int = PRIORITY_NORMAL
    #: Sticky key for weighted routes: equal keys go to the same version.
    routing_key: bytes | None = None
    #: W3C trace context (``traceparent``, ``tracestate``).
    trace: dict[str, str] | None = None
    #: Free key-value pairs of the user.
    metadata: dict[str, Any] | None = None


class ErrorBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """The extra part of an ERROR message."""

    message: str = ""


class ControlCall(msgspec.Struct, frozen=True, omit_defaults=True):
    """The header part of a CONTROL message."""

    method: str
    params: dict[str, Any] = {}


_ENCODER: Final = msgspec.msgpack.Encoder()
_EXTRA: Final = msgspec.msgpack.Decoder(Extra)
_ERROR: Final = msgspec.msgpack.Decoder(ErrorBody)
_CONTROL: Final = msgspec.msgpack.Decoder(ControlCall)
_ANY: Final = msgspec.msgpack.Decoder()

NO_EXTRA: Final = Extra()


def encode_body(value: object) -> bytes:
    """msgpack bytes of an extra, an error body, a control call or a control result."""
    return _ENCODER.encode(value)


def decode_extra(raw: bytes) -> Extra:
    """Raises ProtocolError if the bytes are not a valid extra."""
    if not raw:
        return NO_EXTRA
    try:
        extra = _EXTRA.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"extra is not valid: {error}") from None
    if extra.priority not in (PRIORITY_NORMAL, PRIORITY_HIGH):
        raise ProtocolError(f"priority {extra.priority} is not known; expected 0 (normal) or 1 (high)")
    return extra


def decode_error(raw: bytes) -> str:
    """The message of an ERROR; a body that cannot be read gives a description of that, never an exception:
    the status code alone must reach the caller."""
    try:
        return _ERROR.decode(raw).message if raw else ""
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "(the error's text could not be read)"


def decode_control(raw: bytes) -> ControlCall:
    """Raises ProtocolError if the bytes are not a valid control call."""
    try:
        return _CONTROL.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"control call is not valid: {error}") from None


def decode_result(raw: bytes) -> Any:
    """The value in a CONTROL_REPLY. Raises ProtocolError if it is not msgpack."""
    try:
        return _ANY.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"control result is not valid: {error}") from None
