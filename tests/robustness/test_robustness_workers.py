"""Workers come, go and die under load: every request is answered, rightly and in time."""

from __future__ import annotations

import pytest
from tensorwire.bench.workers import crash, resize
from tensorwire.bench.workers.crash import CrashRun, CrashSettings
from tensorwire.bench.workers.models import WorkerKind
from tensorwire.bench.workers.resize import ResizeSettings

#: Deadlines as long as a busy machine may need: what is tested is that nothing is lost or mixed up.
CRASH = CrashSettings(
    callers=8, timeout=20.0, calm=0.2, kills=4, every=0.4, after=(0.0, 0.2), stops=1, hang_timeout=1.0
)
RESIZE = ResizeSettings(rate=50.0, stay=0.1)


def check(found: CrashRun) -> None:
    for passed, text in crash.correctness(found.tally, CRASH.timeout):
        assert passed, text
    assert found.tally.calls.failures() == {}
    assert found.tally.answered > CRASH.callers


def test_workers_that_are_killed_or_hang_cost_no_request() -> None:
    with crash.scene(CRASH) as where:
        killed = crash.kill(where)
        check(killed)
        assert len(killed.disturbances) == CRASH.kills
        # Not each: one that is killed while it starts has not come yet.
        assert 1 <= killed.lost <= CRASH.kills

        stopped = crash.stop(where)
        check(stopped)
        assert stopped.lost == 1
        assert [deed.gone >= CRASH.hang_timeout for deed in stopped.disturbances] == [True]


@pytest.mark.parametrize("kind", resize.KINDS)
def test_the_number_of_workers_changes_without_a_failed_request(kind: WorkerKind) -> None:
    with resize.scene(kind, RESIZE) as where:
        found = resize.change(where, RESIZE, resize.load_again(where))
    assert found.tally.calls.failures() == {}
    assert found.tally.answered == found.tally.sent > 0
    assert [change.after for change in found.changes] == [4, 2, 1]
