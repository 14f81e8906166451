"""Part ``mutations``: millions of random and mutated messages through the compiled pump.

It runs in processes of its own, so that a crash is seen as one, over sockets within each; see :mod:`.fuzzer`
for how it is known that no message was lost and none was taken for a part of another. What a whole server
does with such messages is what ``python -m tensorwire.bench malformed`` shows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import msgspec

from ...rpc.pump import pump_kind
from ..malformed import VECTORS
from ..processes import Child, ChildError
from ..proofs import Figures, Proof, mebibytes, workplace
from .fuzzer import Salvo, Tally

NAME: Final = "mutations"
#: Resident memory may end this far over what it was when the first tenth was through: caches are full then.
RSS_SLACK: Final = 16 << 20
_SILENCE: Final = 60.0


class MutationsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """So many ``messages`` in each process, whose seeds are ``seed`` and those that follow."""

    messages: int = 500_000
    processes: int = 2
    seed: int = 1
    vectors: Path = VECTORS


def run(proof: Proof, full: bool) -> None:
    """Send all of it, and add the verdict to a proof."""
    settings = MutationsSettings(messages=5_000_000) if full else MutationsSettings()
    if pump_kind() == "python":
        proof.check(False, f"{NAME}: not built: there is no compiled pump to send anything to")
        return
    report(proof, fuzz(settings), settings)


class Outcome(msgspec.Struct):
    """What one process said last, and why it ended early, if it did."""

    seed: int
    tally: Tally = msgspec.field(default_factory=Tally)
    death: str = ""

    @property
    def over(self) -> bool:
        """Whether nothing more is to come."""
        return self.tally.done or bool(self.death)


def fuzz(settings: MutationsSettings) -> list[Outcome]:
    """Send everything, in all processes beside each other."""
    outcomes = [Outcome(settings.seed + number) for number in range(settings.processes)]
    with workplace() as (_, logs), ExitStack() as stack:
        children = [stack.enter_context(_child(settings, outcome.seed, logs)) for outcome in outcomes]
        while not all(outcome.over for outcome in outcomes):
            for outcome, child in zip(outcomes, children, strict=True):
                if not outcome.over:
                    _hear(outcome, child)
    return outcomes


def _child(settings: MutationsSettings, seed: int, logs: Path) -> Child:
    salvo = Salvo(vectors=str(settings.vectors), messages=settings.messages, seed=seed)
    arguments = ["-m", f"{__package__}.fuzzer", msgspec.json.encode(salvo).decode()]
    return Child(f"the fuzzed process with seed {seed}", arguments, logs / f"fuzzer-{seed}.log")


def _hear(outcome: Outcome, child: Child) -> None:
    try:
        outcome.tally = child.receive(Tally, _SILENCE)
    except ChildError as error:
        outcome.death = f"{error} (it had sent {outcome.tally.sent:,})"


def report(proof: Proof, outcomes: list[Outcome], settings: MutationsSettings) -> None:
    """Table and verdict."""
    tallies = [outcome.tally for outcome in outcomes]
    sent, valid, right, lost, dropped = (
        sum(getattr(tally, name) for tally in tallies)
        for name in ("sent", "valid", "right", "lost", "dropped")
    )
    rate = sum(tally.sent / tally.seconds for tally in tallies if tally.seconds)
    seeds = ", ".join(str(outcome.seed) for outcome in outcomes)
    rows = [(f"came out valid: {kind}", f"{n:,}") for kind, n in _total(tally.taken for tally in tallies)]
    rows += [(f"answered with {code}", f"{n:,}") for code, n in _total(tally.refused for tally in tallies)]
    rows += [
        ("dropped and counted", f"{dropped:,}"),
        ("valid requests among them, answered rightly", f"{right:,}"),
    ]
    title = (
        f"{NAME}: {sent:,} mutated messages, {rate:,.0f} a second in {len(tallies)} processes, seeds {seeds}"
    )
    proof.figures.append(Figures(title, ("what became of them", "messages"), rows))
    deaths = [outcome.death for outcome in outcomes if outcome.death]
    text = f"{NAME}: all processes came to their end: {'; '.join(deaths) or f'after {sent:,} messages'}"
    proof.check(not deaths and sent == settings.messages * settings.processes, text)
    text = f"{NAME}: every message was handed out, answered or counted as dropped: {lost} were not"
    proof.check(sent > 0 and not lost, text)
    wrong = [each for tally in tallies for each in tally.wrong]
    text = f"{NAME}: of {valid:,} valid requests among them {right:,} were answered rightly"
    proof.check(0 < right == valid and not wrong, "; ".join([text, *wrong]))
    for outcome in outcomes:
        _check_memory(proof, outcome)
    proof.raw[NAME] = outcomes


def _check_memory(proof: Proof, outcome: Outcome) -> None:
    rss = outcome.tally.rss
    if len(rss) > 1:
        limit = rss[0] + RSS_SLACK
        text = f"{NAME}: seed {outcome.seed}: memory after a tenth {mebibytes(rss[0])} MiB, "
        text += f"at the end {mebibytes(rss[-1])} MiB, at most {mebibytes(max(rss))} MiB; expected <= "
        proof.check(max(rss) <= limit, f"{text}{mebibytes(limit)}")


def _total(counts: Iterable[dict[str, int]]) -> list[tuple[str, int]]:
    """The sums by name."""
    return sorted(sum(map(Counter, counts), Counter[str]()).items())
