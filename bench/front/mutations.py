"""Part ``mutations``: millions of random and mutated messages through the compiled pump.

It runs in a process of its own, so that a crash is seen as one, over sockets within it; see :mod:`.fuzzer` for
how it is known that no message was lost and none was taken for a part of another. What a whole server does with
such messages is what ``python -m tensorwire.bench malformed`` shows.
"""

from __future__ import annotations

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
    """How much of it."""

    messages: int = 1_000_000
    seed: int = 1
    vectors: Path = VECTORS


def run(proof: Proof, full: bool) -> None:
    """Send all of it, and add the verdict to a proof."""
    settings = MutationsSettings(messages=10_000_000) if full else MutationsSettings()
    if pump_kind() == "python":
        proof.check(False, f"{NAME}: not built: there is no compiled pump to send anything to")
        return
    tally, death = fuzz(settings)
    report(proof, tally, death, settings)


def fuzz(settings: MutationsSettings) -> tuple[Tally, str]:
    """What became of the messages, and why it ended early, if it did."""
    salvo = Salvo(vectors=str(settings.vectors), messages=settings.messages, seed=settings.seed)
    arguments = ["-m", f"{__package__}.fuzzer", msgspec.json.encode(salvo).decode()]
    tally = Tally()
    with workplace() as (_, logs), Child("the fuzzed process", arguments, logs / "fuzzer.log") as child:
        try:
            while not tally.done:
                tally = child.receive(Tally, _SILENCE)
        except ChildError as error:
            return tally, str(error)
    return tally, ""


def report(proof: Proof, tally: Tally, death: str, settings: MutationsSettings) -> None:
    """Table and verdict."""
    rate = tally.sent / tally.seconds if tally.seconds else 0.0
    title = f"{NAME}: {tally.sent:,} mutated messages, seed {settings.seed}, {rate:,.0f} a second"
    rows = [(f"came out valid: {kind}", f"{count:,}") for kind, count in sorted(tally.taken.items())]
    rows += [(f"answered with {code}", f"{count:,}") for code, count in sorted(tally.refused.items())]
    rows += [
        ("dropped and counted", f"{tally.dropped:,}"),
        ("valid requests among them, answered rightly", f"{tally.right:,}"),
    ]
    proof.figures.append(Figures(title, ("what became of them", "messages"), rows))
    ended = death or f"after {tally.sent:,} of {settings.messages:,}"
    proof.check(
        not death and tally.sent == settings.messages,
        f"{NAME}: the process came to its end: {ended}; mutated again with seed {settings.seed}",
    )
    text = f"{NAME}: every message was handed out, answered or counted as dropped: {tally.lost} were not"
    proof.check(tally.sent > 0 and not tally.lost, text)
    text = f"{NAME}: of {tally.valid:,} valid requests among them {tally.right:,} were answered rightly"
    right = 0 < tally.right == tally.valid and not tally.wrong
    proof.check(right, "; ".join([text, *tally.wrong]))
    if len(tally.rss) > 1:
        first, last = tally.rss[0], tally.rss[-1]
        text = f"{NAME}: memory after a tenth {mebibytes(first)} MiB, at the end {mebibytes(last)} MiB"
        proof.check(last <= first + RSS_SLACK, f"{text}; expected <= {mebibytes(first + RSS_SLACK)}")
    proof.raw[NAME] = {"tally": tally, "seed": settings.seed, "death": death}
