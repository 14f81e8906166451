"""Calls that wait: partial answers, deadlines, and that nothing stays behind."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorwire.client.pending import ID_BITS, Envelope, Pending, fail
from tensorwire.rpc.errors import UnavailableError

Call = Future[Any]


def envelope(count: int = 1, timeout: float | None = None) -> Envelope:
    made = Envelope(None, timeout)
    made.calls = [Call() for _ in range(count)]
    return made


class TestAnswers:
    def test_ids_are_consecutive_within_a_message_and_never_repeat(self) -> None:
        pending = Pending()
        first, second = envelope(3), envelope(3)
        ids = [pending.add(first, 0.0), pending.add(second, 0.0)]
        assert ids[1] - ids[0] >= 1 << ID_BITS
        assert pending.find(ids[0] + 2, 1) == (first, 2)
        assert pending.find(ids[1], 3) == (second, 0)

    def test_a_number_that_was_reserved(self) -> None:
        pending = Pending()
        unused, number = pending.reserve(), pending.reserve()
        made = envelope()
        pending.adopt(made, number, 5.0)
        assert pending.add(envelope(), 0.0) == (number + 1) << ID_BITS
        assert pending.find(unused << ID_BITS, 1) is None
        assert pending.find(number << ID_BITS, 1) == (made, 0)
        assert pending.next_deadline() == made.deadline == 5.0
        assert pending.expired(5.0) == [made]

    def test_all_at_once(self) -> None:
        pending = Pending()
        made = envelope(3)
        calls = list(made.calls)
        found = pending.find(pending.add(made, 0.0), 3)
        assert found is not None
        assert pending.take(*found, 3) == calls
        assert not pending.envelopes

    def test_in_parts_and_in_any_order(self) -> None:
        pending = Pending()
        made = envelope(5)
        calls = list(made.calls)
        first_id = pending.add(made, 0.0)
        for start, count in ((3, 2), (0, 1), (1, 2)):
            found = pending.find(first_id + start, count)
            assert found is not None
            assert pending.take(*found, count) == calls[start : start + count]
        assert not pending.envelopes

    def test_an_answer_that_came_before_is_not_given_again(self) -> None:
        pending = Pending()
        made = envelope(3)
        calls = list(made.calls)
        pending.add(made, 0.0)
        assert pending.take(made, 1, 1) == [calls[1]]
        assert pending.take(made, 0, 3) == [calls[0], None, calls[2]]
        assert not pending.envelopes

    @pytest.mark.parametrize(("offset", "count"), [(0, 4), (3, 1), (2, 2), (1 << ID_BITS, 1), (-1, 1)])
    def test_ids_that_nobody_has(self, offset: int, count: int) -> None:
        pending = Pending()
        assert pending.find(pending.add(envelope(3), 0.0) + offset, count) is None

    def test_the_largest_ids(self) -> None:
        assert Pending().find((1 << 64) - 1, 1) is None


class TestDeadlines:
    def test_the_earliest_is_next(self) -> None:
        pending = Pending()
        for timeout in (5.0, 1.0, None, 3.0):
            pending.add(envelope(1, timeout), 10.0)
        assert pending.next_deadline() == 11.0
        assert [made.deadline for made in pending.expired(13.0)] == [11.0, 13.0]
        assert pending.next_deadline() == 15.0
        assert len(pending.envelopes) == 2

    def test_none_at_all(self) -> None:
        pending = Pending()
        pending.add(envelope(1, None), 0.0)
        assert pending.next_deadline() is None
        assert pending.expired(1e9) == []

    def test_what_was_answered_does_not_expire(self) -> None:
        pending = Pending()
        made = envelope(2, 1.0)
        pending.add(made, 0.0)
        pending.take(made, 0, 2)
        assert pending.next_deadline() is None
        assert pending.expired(2.0) == []

    def test_the_unanswered_part_expires(self) -> None:
        pending = Pending()
        made = envelope(3, 1.0)
        calls = list(made.calls)
        pending.add(made, 0.0)
        pending.take(made, 1, 1)
        assert pending.expired(1.0) == [made]
        assert made.calls == [calls[0], None, calls[2]]

    def test_deadlines_of_answered_calls_do_not_pile_up(self) -> None:
        pending = Pending()
        keeper = envelope(1, 1e6)
        pending.add(keeper, 0.0)
        for _ in range(20_000):
            made = envelope(1, 2e6)
            pending.add(made, 0.0)
            pending.take(made, 0, 1)
        assert len(pending._deadlines) <= 2048
        assert pending.next_deadline() == 1e6
        assert pending.expired(1e6) == [keeper]


def test_clear_gives_everything() -> None:
    pending = Pending()
    made = [envelope(2, timeout) for timeout in (1.0, None)]
    for each in made:
        pending.add(each, 0.0)
    assert pending.clear() == made
    assert pending.next_deadline() is None
    assert pending.clear() == []


def test_fail_leaves_out_who_is_done() -> None:
    waiting, done = Call(), Call()
    done.set_result(1)
    fail([waiting, None, done], lambda: UnavailableError("gone"))
    assert isinstance(waiting.exception(0), UnavailableError)
    assert done.result() == 1


def test_each_call_fails_with_an_exception_of_its_own() -> None:
    first, second = Call(), Call()
    fail([first, second], lambda: UnavailableError("gone"))
    assert first.exception(0) is not second.exception(0)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    steps=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5), st.integers(1, 6)), max_size=20),
    expire_at=st.sampled_from([0.0, 2.5, 10.0]),
)
def test_every_call_comes_out_once(
    sizes: list[int], steps: list[tuple[int, int, int]], expire_at: float
) -> None:
    pending = Pending()
    made = [envelope(size, float(index + 1)) for index, size in enumerate(sizes)]
    everybody = [call for each in made for call in each.calls]
    first_ids = [pending.add(each, 0.0) for each in made]
    out: list[Any] = []
    for which, start, count in steps:
        found = pending.find(first_ids[which % len(sizes)] + start, count)
        if found is not None:
            out += [call for call in pending.take(*found, count) if call is not None]
    for each in (*pending.expired(expire_at), *pending.clear()):
        out += [call for call in each.calls if call is not None]
    assert sorted(map(id, out)) == sorted(map(id, everybody))
    assert not pending.envelopes
