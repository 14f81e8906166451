"""Messages in, bundles out: validation and grouping of what a drain has read. No I/O.

The commonest message, small tensors of a known signature, takes the short way in :meth:`Intake.add`.
Whatever is new, large, of variable length or malformed goes through :mod:`..wire.message`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import ProtocolError
from ..wire.extra import Extra, decode_extra
from ..wire.header import Interner, Signature
from ..wire.message import Buffer, read_prefix, read_rows, read_tensors
from ..wire.prefix import MAGIC, MAX_COUNT, MAX_ID, PREFIX, PREFIX_SIZE, VERSION, Kind, Prefix
from .bundle import NO_DEADLINE, Bundle
from .interface import ControlMessage

Array = npt.NDArray[Any]
#: Header bytes; with priority and routing key where a message has them.
GroupKey = bytes | tuple[bytes, int, bytes | None]

_REQUEST: Final = int(Kind.REQUEST)
_CONTROLS: Final = frozenset((Kind.CANCEL, Kind.PING, Kind.CONTROL))
_ONE_ROW: Final = b"\1\0\0\0"
_unit_rows: dict[int, bytes] = {}
#: All counts up to this one together take 2 MB; a peer that varies larger ones must not fill the memory.
_UNIT_ROWS_KEPT: Final = 1024
#: Each keeps a signature alive.
_SINGLES_KEPT: Final = 256
#: Ids that cannot overflow, whatever the count; larger ones take the long way, which looks closely.
_PLAIN_IDS: Final = MAX_ID + 1 - MAX_COUNT


def unit_rows(count: int) -> bytes:
    """Row counts, as on the wire, of ``count`` requests of one row each."""
    found = _unit_rows.get(count)
    if found is None:
        found = _ONE_ROW * count
        if count <= _UNIT_ROWS_KEPT:
            _unit_rows[count] = found
    return found


class _Single(NamedTuple):
    """The length and inline limit of a message that was one request of one row, and where its tensors lay:
    the next with the same header is most likely the same."""

    signature: Signature
    end: int
    limit: int
    places: tuple[slice, ...]


class _Group:
    """A bundle that is being put together from small messages.

    Attributes:
        counts, rows: None as long as every message is one request, and every request one row.
    """

    __slots__ = (
        "counts",
        "deadlines",
        "ids",
        "parts",
        "peers",
        "rows",
        "signature",
        "total_rows",
    )

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.peers: list[bytes] = []
        self.ids: list[int] = []
        self.counts: list[int] | None = None
        self.deadlines: list[float] = []
        self.rows: list[int] | None = None
        self.total_rows = 0
        #: One list of buffers per tensor.
        self.parts: list[list[Buffer]] = [[] for _ in signature.layout.names]

    def count(self, requests: int, rows: list[int] | None, total_rows: int) -> None:
        """Enter a message into the columns that are left out while everything is single; before its peer."""
        if self.counts is None and requests != 1:
            self.counts = [1] * len(self.peers)
        if self.rows is None and rows is not None:
            self.rows = [1] * self.total_rows
        if self.counts is not None:
            self.counts.append(requests)
        if self.rows is not None:
            self.rows += rows or (1,) * requests
        self.total_rows += total_rows

    def seal(self, priority: int, routing_key: bytes | None, received: float) -> Bundle:
        """Copy the tensors into one aligned block each."""
        layout = self.signature.layout
        inputs: list[Array] = []
        nbytes = 0
        for parts, dtype, shape in zip(self.parts, layout.dtypes, layout.shapes, strict=True):
            block = b"".join(parts)
            nbytes += len(block)
            inputs.append(np.frombuffer(block, dtype).reshape(self.total_rows, *shape))
        return Bundle(
            self.signature,
            priority=priority,
            routing_key=routing_key,
            peers=self.peers,
            first_ids=self.ids,
            counts=self.counts,
            deadlines=self.deadlines,
            rows=self.rows,
            total_rows=self.total_rows,
            inputs=inputs,
            received=received,
            nbytes=nbytes,
        )


class Intake:
    """Groups the messages of one drain by header bytes, priority and routing key."""

    def __init__(self, signatures: Interner[Signature]) -> None:
        self._signatures = signatures
        self._known = signatures.known
        self._groups: dict[GroupKey, _Group] = {}
        self._singles: dict[bytes, _Single] = {}
        self._bundles: list[Bundle] = []
        self._controls: list[ControlMessage] = []

    def add(self, peer: bytes, head: bytes | memoryview, frames: Sequence[memoryview], now: float) -> int:
        """Take one message.

        Args:
            head: the head frame; its inline tensors are copied by :meth:`take`.
            frames: the tensor frames; kept without a copy.
            now: the pump's clock, from which the timeout counts.

        Returns:
            The number of requests in it.

        Raises:
            ProtocolError, UnimplementedError: the message is malformed; nothing was taken.
        """
        if len(head) < PREFIX_SIZE:
            read_prefix(head)
        magic, version, kind, _, _, first_id, timeout_us, count, header_len, extra_len, limit, _, _ = (
            PREFIX.unpack_from(head)
        )
        if (
            kind == _REQUEST
            and version == VERSION
            and magic == MAGIC
            and not extra_len
            and not frames
            and 0 < count <= MAX_COUNT
            and first_id <= _PLAIN_IDS
        ):
            start = PREFIX_SIZE + header_len
            raw = bytes(head[PREFIX_SIZE:start])
            single = self._singles.get(raw)
            if (
                single is not None
                and count == 1
                and len(head) == single.end
                and limit == single.limit
                and head[start : start + 4] == _ONE_ROW
            ):
                group = self._groups.get(raw)
                if group is None:
                    group = self._groups[raw] = _Group(single.signature)
                if group.counts is not None or group.rows is not None:
                    group.count(1, None, 1)
                else:
                    group.total_rows += 1
                group.peers.append(peer)
                group.ids.append(first_id)
                group.deadlines.append(now + timeout_us * 1e-6 if timeout_us else NO_DEADLINE)
                for parts, place in zip(group.parts, single.places, strict=True):
                    parts.append(head[place])
                return 1
            signature = self._known.get(raw)
            if signature is not None and signature.layout.groupable:
                self._append(raw, signature, peer, head, first_id, timeout_us, count, start, limit, now)
                return count
        return self._add_general(peer, memoryview(head), frames, now)

    def _append(
        self,
        key: GroupKey,
        signature: Signature,
        peer: bytes,
        head: Buffer,
        first_id: int,
        timeout_us: int,
        count: int,
        rows_at: int,
        limit: int,
        now: float,
    ) -> None:
        end = rows_at + 4 * count
        raw_rows = bytes(head[rows_at:end])
        rows: list[int] | None = None
        if raw_rows == unit_rows(count):
            total = count
        elif len(raw_rows) < 4 * count:
            raise ProtocolError(f"head frame of {len(head)} bytes has no room for {count} row counts")
        else:
            uneven: list[int] = np.frombuffer(raw_rows, "<u4").tolist()
            rows = uneven
            total = sum(uneven)
        slices, length, framed = signature.layout.place(total, end, limit)
        if framed or length != len(head):
            raise ProtocolError(
                f"{framed} tensor frames are missing"
                if framed
                else f"head frame has {len(head)} bytes, its contents add up to {length}"
            )
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(signature)
        # Behind an extra the tensors of the same lengths lie elsewhere.
        if count == total == 1 and rows is None and rows_at == PREFIX_SIZE + len(signature.raw):
            self._remember(signature, length, limit, slices)
        group.count(count, rows, total)
        group.peers.append(peer)
        group.ids.append(first_id)
        group.deadlines.append(now + timeout_us * 1e-6 if timeout_us else NO_DEADLINE)
        for parts, place in zip(group.parts, slices, strict=True):
            assert place is not None  # no tensor of this message is framed
            parts.append(head[place])

    def _remember(self, signature: Signature, end: int, limit: int, places: tuple[slice | None, ...]) -> None:
        if len(self._singles) >= _SINGLES_KEPT:
            self._singles.clear()
        inline = tuple(place for place in places if place is not None)
        self._singles[signature.raw] = _Single(signature, end, limit, inline)

    def _add_general(self, peer: bytes, head: memoryview, frames: Sequence[memoryview], now: float) -> int:
        prefix = read_prefix(head)
        body_end = PREFIX_SIZE + prefix.header_len
        if prefix.kind in _CONTROLS:
            if frames or len(head) != body_end + prefix.extra_len:
                raise ProtocolError("a control message is one frame, as long as its prefix says")
            body = bytes(head[PREFIX_SIZE:body_end])
            self._controls.append(
                ControlMessage(peer, prefix.kind, prefix.id, prefix.count, prefix.timeout_us, body)
            )
            return 0
        if prefix.kind != _REQUEST:
            raise ProtocolError(f"a server does not take messages of kind {prefix.kind}")
        signature = self._signatures.get(bytes(head[PREFIX_SIZE:body_end]))
        extra = decode_extra(bytes(head[body_end : body_end + prefix.extra_len]))
        if signature.layout.groupable and not frames:
            key: GroupKey = signature.raw
            if extra.priority or extra.routing_key is not None:
                key = (signature.raw, extra.priority, extra.routing_key)
            rows_at = body_end + prefix.extra_len
            self._append(
                key,
                signature,
                peer,
                head,
                prefix.id,
                prefix.timeout_us,
                prefix.count,
                rows_at,
                prefix.inline_limit,
                now,
            )
        else:
            self._bundles.append(_lone_bundle(peer, head, frames, prefix, signature, extra, now))
        return prefix.count

    def take(self, now: float) -> tuple[list[Bundle], list[ControlMessage]]:
        """Everything added since the last call."""
        bundles = self._bundles
        for key, group in self._groups.items():
            _, priority, routing_key = (key, 0, None) if isinstance(key, bytes) else key
            bundles.append(group.seal(priority, routing_key, now))
        controls = self._controls
        self._groups = {}
        self._bundles = []
        self._controls = []
        return bundles, controls


def _lone_bundle(
    peer: bytes,
    head: memoryview,
    frames: Sequence[memoryview],
    prefix: Prefix,
    signature: Signature,
    extra: Extra,
    now: float,
) -> Bundle:
    """A message that is a bundle of its own: its large tensors stay in the frames they came in."""
    layout = signature.layout
    rows, total, start = read_rows(head, prefix, layout)
    if rows is not None and rows.count(1) == len(rows):
        rows = None
    inputs = read_tensors(head, frames, layout, total, start, prefix.inline_limit)
    return Bundle(
        signature,
        priority=extra.priority,
        routing_key=extra.routing_key,
        peers=[peer],
        first_ids=[prefix.id],
        counts=None if prefix.count == 1 else [prefix.count],
        deadlines=[now + prefix.timeout_us * 1e-6 if prefix.timeout_us else NO_DEADLINE],
        rows=rows,
        total_rows=total,
        inputs=[array if array.flags.aligned else array.copy() for array in inputs],
        received=now,
        nbytes=len(head) + sum(map(len, frames)),
    )
