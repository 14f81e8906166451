"""The first lines of every report: the answer, and where tensorwire is slower. Plain sentences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from .figures import BASELINE, FIGURES, NO_DIFFERENCE, family, is_grpc, times
from .results import REST, ScenarioInfo, Suite
from .verdict import Standing, Verdict

#: More points than this are named by the first, the last and their number.
_NAMED: Final = 4
_HEADLINES: Final = {
    "yes": "Yes: by the figure that decides, in no scenario was gRPC faster than tensorwire.",
    "mostly": "For most of what was measured, by the figure that decides; read where not first.",
    "no": "No: by the figure that decides, gRPC was faster too often.",
    "open": "This run cannot say: it shows no difference to gRPC, or did not measure both.",
}


class Glance(msgspec.Struct, frozen=True, kw_only=True):
    """One scenario in one line: ranges of ratios to grpc.aio (``python``) and to gRPC C++ (``cpp``)."""

    scenario: str
    title: str
    figure: str
    best: str
    python: str
    cpp: str
    slower: str


class Lead(msgspec.Struct, frozen=True, kw_only=True):
    """What is read first.

    Attributes:
        headline: the answer in one sentence.
        counts: how often tensorwire was faster and slower than gRPC.
        slower: where its best system was slower than a peer, gRPC first; a sentence each.
        others: the same for its other systems.
        tails: where the p99 of its best system was worse than a peer's, though throughput decides there.
        cautions: what a reader must know before believing it.
    """

    headline: str
    counts: str
    slower: list[str]
    others: list[str]
    tails: list[str]
    cautions: list[str]
    glances: list[Glance]


def lead(suite: Suite, verdict: Verdict) -> Lead:
    """The first lines of a run."""
    titles = {info.key: info for info in suite.scenarios}
    headline = _HEADLINES[verdict.answer]
    lost = [one for one in verdict.standings if one.lost]
    if verdict.answer == "yes" and any(one.best for one in lost):
        headline = f"{headline.removesuffix('.')}; another peer was, see below."
    return Lead(
        headline=headline,
        counts=_counts(verdict),
        slower=_sentences([one for one in lost if one.best], titles),
        others=_sentences([one for one in lost if not one.best], titles),
        # Where nothing was answered, throughput has said so.
        tails=_sentences([one for one in verdict.tails if one.lost and one.best and one.failed < 1], titles),
        cautions=_cautions(suite, verdict),
        glances=[_glance(info, verdict) for info in suite.scenarios],
    )


def _counts(verdict: Verdict) -> str:
    found = [one for one in verdict.against() if is_grpc(one.theirs)]
    if not found:
        return "Nothing was measured with both tensorwire and gRPC."
    by = {outcome: sum(one.outcome == outcome for one in found) for outcome in {one.outcome for one in found}}
    parts = [
        f"{f'{by[outcome]} times' if by[outcome] > 1 else 'once'} {word}"
        for outcome, word in (
            ("faster", "faster"),
            ("slower", "slower"),
            (NO_DIFFERENCE, f'with "{NO_DIFFERENCE}"'),
            ("one round", "with one round only, which shows nothing"),
            ("failed", "without an answer, or with too many failed calls, where gRPC did better"),
            ("peer failed", "better because gRPC gave no answer, or failed too many calls"),
        )
        if outcome in by
    ]
    several = "comparisons" if len(found) > 1 else "comparison"
    return (
        f"tensorwire's best system of each scenario against gRPC, Python and C++, in {len(found)} {several}: "
        f"{', '.join(parts)}."
    )


def _sentences(lost: Sequence[Standing], titles: dict[str, ScenarioInfo]) -> list[str]:
    """One for each scenario and pair of systems; against gRPC first, then by how much."""
    groups: dict[tuple[str, str, str, str], list[Standing]] = {}
    for one in lost:
        groups.setdefault((one.scenario, one.variant, one.ours, one.theirs), []).append(one)
    ordered = sorted(groups.values(), key=lambda group: (not is_grpc(group[0].theirs), _worst(group)))
    return [_sentence(group, titles[group[0].scenario]) for group in ordered]


def _worst(group: Iterable[Standing]) -> float:
    return min(one.gain.ratio for one in group)


def _sentence(group: Sequence[Standing], info: ScenarioInfo) -> str:
    first = group[0]
    variant = f" ({first.variant})" if first.variant else ""
    where = f"{info.key} {info.title}{variant}, at {_labels(group)}"
    silent = [one for one in group if one.outcome == "failed"]
    if len(silent) == len(group):
        return f"{where}: {first.ours} {_silence(silent)}, {first.theirs} did better."
    ratios = sorted(one.gain.ratio for one in group if one.outcome == "slower")
    figure = FIGURES[first.figure]
    if figure.more_is_better:
        told = f"has {_range(ratios)} of {first.theirs}'s {figure.title}"
    else:
        told = f"has {_range(sorted(1 / ratio for ratio in ratios))} {first.theirs}'s {figure.title}"
    tail = f", and {_silence(silent)} at {_labels(silent)}" if silent else ""
    return f"{where}: {first.ours} {told}{tail}."


def _silence(silent: Sequence[Standing]) -> str:
    """What it was that failed."""
    shares = sorted(one.failed for one in silent)
    if shares[0] == 1:
        return "gave no answer"
    low, high = (f"{share:.1%}" for share in (shares[0], shares[-1]))
    return f"failed {low if low == high else f'{low} to {high}'} of its calls"


def _labels(group: Sequence[Standing]) -> str:
    labels = list(dict.fromkeys(one.label for one in group))
    if len(labels) > _NAMED:
        return f"{labels[0]} to {labels[-1]} ({len(labels)} points)"
    return ", ".join(labels)


def _range(ratios: Sequence[float]) -> str:
    low, high = times(ratios[0]), times(ratios[-1])
    return low if low == high else f"{low} to {high}"


def _cautions(suite: Suite, verdict: Verdict) -> list[str]:
    found: list[str] = []
    if suite.interrupted:
        found.append("The run was interrupted: what follows is what was measured until then.")
    if broken := list(dict.fromkeys(one.scenario for one in suite.not_run if one.system == REST)):
        found.append(f"Ended before its end: {', '.join(broken)}; why is said below.")
    if any(one.outcome == "one round" for one in verdict.standings):
        found.append("With one round there is no spread, which shows nothing: such ratios stand in brackets.")
    doubtful = sum(one.doubtful for one in verdict.against())
    if doubtful:
        found.append(
            f"In {doubtful} of {len(verdict.against())} comparisons with all peers the median of its best "
            "system is worse, but a difference is not shown."
        )
    if not any(is_grpc(point.system) and point.rounds for point in suite.points):
        found.append("No gRPC system was measured.")
    missing = list(dict.fromkeys(one.system for one in suite.not_run if not one.scenario))
    if missing:
        found.append(f"Not run: {', '.join(missing)}; why is said below.")
    failing = list(dict.fromkeys(point.system for point, _, _ in verdict.unanswered))
    if failing:
        found.append(f"Calls failed, or whole rounds: {', '.join(failing)}; see below.")
    return found


def _glance(info: ScenarioInfo, verdict: Verdict) -> Glance:
    found = verdict.against(scenario=info.key)
    return Glance(
        scenario=info.key,
        title=info.title,
        figure=FIGURES[info.figure].title,
        best=verdict.best.get(info.key, ""),
        python=_gains([one for one in found if one.theirs == BASELINE]),
        cpp=_gains([one for one in found if family(one.theirs) == "grpc c++"]),
        slower=_slower_than(found, [one for one in verdict.tails if one.best and one.scenario == info.key]),
    )


def _slower_than(found: Sequence[Standing], tails: Sequence[Standing]) -> str:
    """Peers that did better by what decides, then those that did by p99 only."""
    peers, by_p99 = (list(dict.fromkeys(one.theirs for one in each if one.lost)) for each in (found, tails))
    if not found:
        return ""
    told = ", ".join(peers) if peers else "none shown"
    others = [peer for peer in by_p99 if peer not in peers]
    return f"{told}; by p99: {', '.join(others)}" if others else told


def _gains(found: Sequence[Standing]) -> str:
    """The range of ratios that are shown."""
    shown = sorted(one.gain.ratio for one in found if one.outcome in ("faster", "slower"))
    if not shown:
        single = sorted(one.gain.ratio for one in found if one.outcome == "one round" and one.gain.ratio)
        if single:
            return f"({_range(single)})"
        return NO_DIFFERENCE if any(one.outcome == NO_DIFFERENCE for one in found) else ""
    open_ones = sum(one.outcome == NO_DIFFERENCE for one in found)
    return _range(shown) + (f"; {open_ones} of {len(found)}: {NO_DIFFERENCE}" if open_ones else "")
