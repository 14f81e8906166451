"""Admission: every limit, alone and together; the counters that they are held against."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from bundles import NEVER, bundle
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorwire.rpc.errors import ResourceExhaustedError, RpcError
from tensorwire.rpc.pump import Bundle, Slice, whole
from tensorwire.server import ServingConfig
from tensorwire.server.admission import Admission, Load


def rig(**limits: int) -> Admission:
    return Admission(ServingConfig(**limits))


def load(**options: Any) -> Load:
    made = Load("model 'm'", max_queued_rows=1000, max_in_flight=1000)
    for name, value in options.items():
        setattr(made, name, value)
    return made


def admit(admission: Admission, to: Load, made: Bundle, now: float = 0.0) -> tuple[int, RpcError | None]:
    return admission.admit(made, 0, made.requests, to, now)


def test_far_from_every_limit_all_come_in() -> None:
    assert admit(rig(), load(), bundle(1, 2, 3)) == (3, None)


@pytest.mark.parametrize(
    ("server", "model", "state", "reason"),
    [
        ({"max_queued_rows": 10}, {}, {"queued_rows": 8}, "the server's limit of 10 queued rows"),
        ({}, {"max_queued_rows": 10, "queued_rows": 8}, {}, "model 'm''s limit of 10 queued rows"),
        ({"max_in_flight": 10}, {}, {"in_flight": 8}, "the server's limit of 10 requests in flight"),
        ({}, {"max_in_flight": 10, "in_flight": 8}, {}, "model 'm''s limit of 10 requests in flight"),
    ],
)
def test_the_first_come_in_and_the_rest_is_refused(
    server: dict[str, int], model: dict[str, int], state: dict[str, int], reason: str
) -> None:
    admission = rig(**server)
    for name, value in state.items():
        setattr(admission, name, value)
    end, error = admit(admission, load(**model), bundle(1, 2, 3))
    assert end == 2
    assert isinstance(error, ResourceExhaustedError)
    assert error.message == f"over {reason}; retry later or against another server"


@pytest.mark.parametrize("excess", [0, 5])
@pytest.mark.parametrize(
    ("server", "model"),
    [({"max_queued_rows": 10}, {}), ({}, {"max_queued_rows": 10}), ({"max_in_flight": 10}, {})],
)
def test_over_the_limit_nothing_comes_in(server: dict[str, int], model: dict[str, int], excess: int) -> None:
    admission = rig(**server)
    to = load(**model)
    admission.queued_rows = to.queued_rows = admission.in_flight = to.in_flight = 10 + excess
    end, error = admit(admission, to, bundle(1, 2))
    assert end == 0
    assert isinstance(error, ResourceExhaustedError)


def test_rows_count_and_requests_are_not_cut() -> None:
    end, error = admit(rig(max_queued_rows=6), load(), bundle(1, 2, 3, rows=[2, 3, 2]))
    assert end == 2
    assert error is not None


def test_the_smallest_room_decides() -> None:
    admission = rig(max_queued_rows=100, max_in_flight=5)
    end, error = admit(admission, load(max_queued_rows=3), bundle(1, 2, 3, 4, 5, 6))
    assert end == 3
    assert error is not None
    assert "model 'm''s limit of 3 queued rows" in error.message


def test_a_part_of_a_bundle() -> None:
    made = bundle(*range(10))
    end, error = rig(max_queued_rows=3).admit(made, 4, 9, load(), 0.0)
    assert end == 7
    assert error is not None


class TestBytes:
    def test_over_the_limit_the_whole_bundle_is_refused(self) -> None:
        admission = rig(max_queued_bytes=1000)
        admission.queued_bytes = 500
        end, error = admit(admission, load(), bundle(1, 2, nbytes=600))
        assert end == 0
        assert error is not None
        assert "limit of 1000 bytes in flight" in error.message

    def test_a_request_larger_than_the_limit_comes_in_when_nothing_else_is_there(self) -> None:
        assert admit(rig(max_queued_bytes=1000), load(), bundle(1, nbytes=5000)) == (1, None)


class TestTimeouts:
    """One worker, 10 ms a row."""

    def test_as_many_as_are_expected_in_half_of_their_time(self) -> None:
        end, error = admit(rig(), load(row_seconds=0.01), bundle(*range(100), deadline=1.0))
        assert end == 50
        assert isinstance(error, ResourceExhaustedError)
        assert "the timeout: 0 rows wait for model 'm', about 0 ms" in error.message

    def test_what_waits_already_counts(self) -> None:
        to = load(row_seconds=0.01, queued_rows=49)
        end, error = admit(rig(), to, bundle(1, 2, deadline=1.0))
        assert end == 1
        assert error is not None
        assert "49 rows wait for model 'm', about 490 ms" in error.message

    def test_more_workers_take_more(self) -> None:
        end, _ = admit(rig(), load(row_seconds=0.01, workers=2), bundle(*range(200), deadline=1.0))
        assert end == 100

    def test_an_empty_queue_refuses_nobody(self) -> None:
        end, error = admit(rig(), load(row_seconds=9.0), bundle(1, 2, deadline=0.001))
        assert end == 1
        assert error is not None

    def test_nor_does_one_whose_deadline_has_passed(self) -> None:
        """It is dropped when it is dequeued, and counted there."""
        assert admit(rig(), load(row_seconds=1.0), bundle(1, deadline=1.0), now=2.0) == (1, None)

    def test_without_a_deadline_only_the_limits_count(self) -> None:
        to = load(row_seconds=9.0, queued_rows=500)
        assert admit(rig(), to, bundle(1, 2, deadline=NEVER)) == (2, None)

    def test_while_nothing_is_known_only_the_limits_count(self) -> None:
        assert admit(rig(), load(queued_rows=500), bundle(1, 2, deadline=0.001)) == (2, None)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    rows=st.lists(st.integers(0, 5), min_size=1, max_size=8),
    even=st.booleans(),
    cuts=st.sets(st.integers(1, 7)),
    nbytes=st.integers(0, 1000),
    admitted=st.integers(1, 8),
)
def test_what_has_come_in_leaves_nothing_behind(
    rows: list[int], even: bool, cuts: set[int], nbytes: int, admitted: int
) -> None:
    """However a bundle is cut on its way."""
    admission, to = rig(), load()
    made = bundle(*range(len(rows)), rows=None if even else rows, nbytes=nbytes)
    hi = min(admitted, len(rows))
    part = Slice(made, 0, hi)
    admission.enter(part, to)
    assert (admission.queued_rows, admission.in_flight) == (part.rows, hi)
    assert (to.queued_rows, to.in_flight) == (part.rows, hi)
    assert admission.queued_bytes <= nbytes
    edges = [0, *sorted(cut for cut in cuts if cut < hi), hi]
    for lo, end in pairwise(edges):
        admission.start(Slice(made, lo, end).rows, to)
        admission.leave(Slice(made, lo, end), to)
    assert (admission.queued_rows, admission.in_flight, admission.queued_bytes) == (0, 0, 0)
    assert (to.queued_rows, to.in_flight) == (0, 0)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    rows=st.lists(st.integers(0, 5), min_size=1, max_size=8),
    deadline=st.sampled_from([0.5, 1.0, 100.0, NEVER]),
    limits=st.tuples(*[st.integers(1, 20)] * 4),
    used=st.tuples(*[st.integers(0, 25)] * 4),
    row_seconds=st.sampled_from([0.0, 0.01, 0.2, 5.0]),
)
def test_limits_are_kept_and_refusals_have_a_reason(
    rows: list[int],
    deadline: float,
    limits: tuple[int, int, int, int],
    used: tuple[int, int, int, int],
    row_seconds: float,
) -> None:
    admission = rig(max_queued_rows=limits[0], max_in_flight=limits[1])
    to = load(max_queued_rows=limits[2], max_in_flight=limits[3], row_seconds=row_seconds)
    admission.queued_rows, admission.in_flight = used[:2]
    to.queued_rows, to.in_flight = used[2:]
    made = bundle(*range(len(rows)), rows=rows, deadline=deadline)
    end, error = admit(admission, to, made)
    assert 0 <= end <= made.requests
    assert (error is None) == (end == made.requests)
    admission.enter(Slice(made, 0, end), to)
    if end and made.row_span(0, end):
        assert admission.in_flight <= max(limits[1], used[1])
        assert to.in_flight <= max(limits[3], used[3])
        # One request comes into an empty queue, however large it is and whatever its estimate.
        if end > 1 or used[0]:
            assert admission.queued_rows <= limits[0]
        if end > 1 or used[2]:
            assert to.queued_rows <= limits[2]


def test_bytes_of_a_large_request() -> None:
    made = bundle(1, inputs=[np.zeros(100, np.uint8)], nbytes=100)
    admission, to = rig(), load()
    admission.enter(whole(made), to)
    assert admission.queued_bytes == 100
    admission.leave(whole(made), to)
    assert admission.queued_bytes == 0
