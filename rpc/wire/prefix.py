"""The fixed prefix that every head frame starts with: 48 bytes, little-endian, one ``struct`` call."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

import msgspec

MAGIC: Final = b"TWIR"
VERSION: Final = 1

#: magic, version, kind, flags, status, id, timeout_us, count, header_len, extra_len, inline_limit,
#: queue_us, compute_us
PREFIX: Final = struct.Struct("<4sBBBBQQIIIIII")
PREFIX_SIZE: Final = PREFIX.size
#: Where the id ends. A frame that is at least this long and has the right magic can be answered.
ANSWERABLE_SIZE: Final = 16
#: Where the count begins, and ends.
COUNT_SPAN: Final = (24, 28)
ALIGNMENT: Final = 16

MAX_COUNT: Final = 65_536
#: Of the last request of a message, too.
MAX_ID: Final = (1 << 64) - 1
MAX_HEADER: Final = 65_536
MAX_EXTRA: Final = 65_536
MAX_TENSORS: Final = 256
MAX_RANK: Final = 32
U32_MAX: Final = 0xFFFF_FFFF


class Kind(IntEnum):
    """What a message is. Values are part of the protocol."""

    REQUEST = 1
    REPLY = 2
    ERROR = 3
    CANCEL = 4
    PING = 5
    PONG = 6
    CONTROL = 7
    CONTROL_REPLY = 8


class Prefix(msgspec.Struct, frozen=True):
    """The prefix's fields, in wire order (without magic and version)."""

    kind: int
    flags: int
    status: int
    id: int
    timeout_us: int
    count: int
    header_len: int
    extra_len: int
    inline_limit: int
    queue_us: int
    compute_us: int

    def pack(self) -> bytes:
        """The 48 bytes on the wire."""
        return PREFIX.pack(MAGIC, VERSION, *msgspec.structs.astuple(self))


def aligned(offset: int) -> int:
    """The next multiple of :data:`ALIGNMENT` at or after ``offset``."""
    return (offset + ALIGNMENT - 1) & -ALIGNMENT
