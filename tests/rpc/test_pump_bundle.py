"""Bundles: their columns against a plain list of requests."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import bundles
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorwire.rpc.pump import Bundle, MessageSlice, Slice, whole
from tensorwire.rpc.pump.bundle import NO_DEADLINE
from tensorwire.rpc.wire.header import RequestHeader, Signature, encode_header

SIGNATURE = Signature(encode_header(RequestHeader("m", ())))
relaxed = settings(deadline=None, derandomize=True, max_examples=100)


class Request(NamedTuple):
    """One request, as an object."""

    peer: bytes
    id: int
    rows: int
    deadline: float
    message: int


class Model:
    """A bundle, and the same as a list of requests."""

    def __init__(self, messages: list[tuple[bytes, int, list[int], float]], uneven: bool) -> None:
        self.requests = [
            Request(peer, first + index, count if uneven else 1, deadline, number)
            for number, (peer, first, rows, deadline) in enumerate(messages)
            for index, count in enumerate(rows)
        ]
        counts = [len(rows) for _, _, rows, _ in messages]
        self.bundle = Bundle(
            SIGNATURE,
            priority=0,
            routing_key=None,
            peers=[peer for peer, *_ in messages],
            first_ids=[first for _, first, *_ in messages],
            counts=None if set(counts) == {1} else counts,
            deadlines=[deadline for *_, deadline in messages],
            rows=[request.rows for request in self.requests] if uneven else None,
            total_rows=sum(request.rows for request in self.requests),
            inputs=[],
            received=0.0,
            nbytes=0,
        )


@st.composite
def models(draw: st.DrawFn) -> Model:
    single = draw(st.booleans())
    rows = st.lists(st.integers(0, 4), min_size=1, max_size=1 if single else 4)
    deadline = st.sampled_from([1.0, 2.0, 3.0, NO_DEADLINE])
    # Ids of one peer do not repeat; several peers use the same ones.
    drawn = draw(st.lists(st.tuples(st.sampled_from([b"a", b"b"]), rows, deadline), min_size=1, max_size=6))
    messages: list[tuple[bytes, int, list[int], float]] = []
    following = {b"a": 0, b"b": 2}
    for peer, counts, limit in drawn:
        messages.append((peer, following[peer], counts, limit))
        following[peer] += len(counts) + draw(st.integers(0, 2))
    return Model(messages, uneven=draw(st.booleans()))


@st.composite
def spans(draw: st.DrawFn) -> tuple[Model, int, int]:
    model = draw(models())
    lo = draw(st.integers(0, len(model.requests)))
    return model, lo, draw(st.integers(lo, len(model.requests)))


@relaxed
@given(spans())
def test_rows(drawn: tuple[Model, int, int]) -> None:
    model, lo, hi = drawn
    bundle = model.bundle
    assert bundle.requests == len(model.requests)
    assert bundle.row_start(lo) == sum(request.rows for request in model.requests[:lo])
    assert bundle.row_span(lo, hi) == sum(request.rows for request in model.requests[lo:hi])
    assert Slice(bundle, lo, hi).rows == bundle.row_span(lo, hi)
    assert whole(bundle) == Slice(bundle, 0, bundle.requests)
    assert whole(bundle).requests == bundle.requests


@relaxed
@given(spans(), st.integers(0, 12))
def test_fit_takes_as_many_requests_as_have_room(drawn: tuple[Model, int, int], max_rows: int) -> None:
    model, lo, hi = drawn
    end = model.bundle.fit(lo, hi, max_rows)
    assert lo <= end <= hi
    assert model.bundle.row_span(lo, end) <= max_rows
    if end < hi:
        assert model.bundle.row_span(lo, end + 1) > max_rows


@relaxed
@given(spans())
def test_messages_cover_a_span(drawn: tuple[Model, int, int]) -> None:
    model, lo, hi = drawn
    found = list(model.bundle.messages(lo, hi))
    at = lo
    for part in found:
        assert isinstance(part, MessageSlice)
        assert part.start == at
        assert part.requests > 0
        for offset in range(part.requests):
            request = model.requests[at + offset]
            assert (part.peer, part.first_id + offset) == (request.peer, request.id)
        at += part.requests
    assert at == hi
    # One part per message: an envelope is answered in one piece where it can be.
    assert len(found) == len({request.message for request in model.requests[lo:hi]})


@relaxed
@given(spans(), st.sampled_from([b"a", b"b", b"c"]), st.integers(0, 30), st.integers(1, 8))
def test_overlaps(span: tuple[Model, int, int], peer: bytes, first_id: int, count: int) -> None:
    model, lo, hi = span
    wanted = [
        index
        for index in range(lo, hi)
        if model.requests[index].peer == peer and first_id <= model.requests[index].id < first_id + count
    ]
    found = model.bundle.overlaps(lo, hi, peer, first_id, count)
    assert [index for begin, end in found for index in range(begin, end)] == wanted


@relaxed
@given(spans(), st.sampled_from([0.0, 1.0, 1.5, 2.0, 99.0]))
def test_split_expired(drawn: tuple[Model, int, int], now: float) -> None:
    model, lo, hi = drawn
    alive, expired = model.bundle.split_expired(lo, hi, now)
    for ranges, late in ((alive, False), (expired, True)):
        covered = [index for start, end in ranges for index in range(start, end)]
        assert covered == [i for i in range(lo, hi) if (now >= model.requests[i].deadline) is late]
        # Neighbours are joined: each range costs a step later.
        assert all(left[1] < right[0] for left, right in pairwise(ranges))


def test_a_deadline_is_over_when_it_is_reached() -> None:
    bundle = Model([(b"a", 0, [1], 5.0)], uneven=False).bundle
    assert bundle.earliest_deadline == 5.0
    assert bundle.split_expired(0, 1, 4.999) == ([(0, 1)], [])
    assert bundle.split_expired(0, 1, 5.0) == ([], [(0, 1)])


@pytest.mark.parametrize("uneven", [False, True])
def test_fit_takes_nothing_where_nothing_fits(uneven: bool) -> None:
    bundle = Model([(b"a", 0, [5, 1], 1.0)], uneven).bundle
    assert bundle.fit(0, 2, 0) == 0
    assert bundle.fit(0, 2, 3) == (0 if uneven else 2)


def test_a_single_request_is_one_row_with_all_its_rows_in_it() -> None:
    blocks = [np.arange(6)[:, None], np.arange(6) * 10]
    several = bundles.bundle(5, 6, 7, rows=[1, 3, 2], deadline=[1.0, 2.0, 3.0], inputs=blocks)
    alone = several.single(1)
    assert bundles.ids([whole(alone)]) == [6]
    assert [block.tolist() for block in alone.inputs] == [[[1], [2], [3]], [10, 20, 30]]
    assert (alone.requests, alone.total_rows, alone.rows, alone.counts) == (1, 1, None, None)
    assert (alone.deadlines, alone.earliest_deadline) == ([2.0], 2.0)
    assert alone.nbytes == sum(block[1:4].nbytes for block in blocks)
    assert whole(alone).rows == 1
    assert several.overlaps(0, 3, b"a", 6, 1) == [(1, 2)]
    assert alone.overlaps(0, 1, b"a", 6, 1) == [(0, 1)]


def test_a_single_request_of_an_envelope() -> None:
    envelope = bundles.bundle(5, 6, 7, rows=[1, 3, 2], envelope=True, inputs=[np.arange(6)])
    assert [bundles.ids([whole(envelope.single(index))]) for index in range(3)] == [[5], [6], [7]]
    assert [envelope.single(index).inputs[0].tolist() for index in range(3)] == [[0], [1, 2, 3], [4, 5]]
