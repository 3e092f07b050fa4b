"""What a run measured of each defence, in sentences: no verdict, only what the numbers carry."""

from __future__ import annotations

import math
from dataclasses import dataclass

from leakbench.reports.summary import JUDGED, NOISE, REAL, SMALL_N, Group, Place, Reading
from leakbench.reports.vocabulary import interval


@dataclass(frozen=True)
class Mark:
    """One value on the axis from 0 to 1 in percentages of its width, as SVG takes them."""

    centre: str
    low: str
    high: str


@dataclass(frozen=True)
class Level:
    """One row of a headline's table: the defence, or what it is to be read beside."""

    label: str
    role: str
    """"defense", "control" or "anchor" """
    text: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Headline:
    """One defence's lines at the top of the report."""

    defense: str
    attack: str
    """the worst case; empty where nothing was measured"""
    chip: str
    """what was found, in two or three words"""
    tone: str
    """"leaks", "quiet" or "silent": for the eye only, the chip says it"""
    lead: str
    consequence: str
    caveats: tuple[str, ...]
    """what weakens the number above"""
    remark: str
    """which attacks gave no number; empty where all did"""
    levels: tuple[Level, ...]


def headlines(group: Group) -> list[Headline]:
    """One headline a defence that is no control, in the order of the run."""
    return [_headline(group, label) for label in group.asked]


def succeeds(group: Group, defense: str, attack: str) -> bool | None:
    """Whether the judge tells the attack's images on that row from noise: its interval lies above noise's.

    None where the row, the noise images or an interval is missing.
    """
    reading, noise = group.reading(defense, attack, JUDGED), group.reading("", NOISE, JUDGED)
    return reading.above(noise) if reading and noise else None


@dataclass(frozen=True)
class _Finding:
    chip: str
    tone: str
    text: str


def _headline(group: Group, defense: str) -> Headline:
    worst = group.worst(defense)
    attacked = [
        place for (label, attack), place in group.places.items() if label == defense and attack in group.attacks
    ]
    if worst is None:
        lead, text = _nothing(group, defense)
        return Headline(defense, "", "nothing measured", "silent", lead, text, (), _unmeasured(attacked), ())
    attack, reading = worst
    measured = [place.attack for place in attacked if place.reading(JUDGED)]
    finding = _finding(group, defense, attack, measured)
    return Headline(
        defense,
        attack,
        finding.chip,
        finding.tone,
        _lead(group, attack, reading, len(measured)),
        finding.text,
        _weak(reading),
        _unmeasured(attacked),
        tuple(_levels(group, defense, attack, reading)),
    )


def _lead(group: Group, attack: str, reading: Reading, measured: int) -> str:
    which = f"Worst of {measured} attacks: {attack}." if measured > 1 else f"One attack was measured: {attack}."
    beside = []
    for plugin, words in (("ann", "on the unprotected ANN"), ("random", "on an untrained network")):
        label = group.named(plugin)
        control = group.reading(label, attack, JUDGED) if label else None
        beside.append(f"{control.short if control else 'no value'} {words}")
    noise = group.reading("", NOISE, JUDGED)
    beside.append(f"{noise.short if noise else 'no value'} for noise images")
    return (
        f"{which} The judge, unseen by any attack, recognises the target class in its images with accuracy "
        f"{reading.text}; beside it {', '.join(beside)}."
    )


def _finding(group: Group, defense: str, worst: str, measured: list[str]) -> _Finding:
    outcome = {name: succeeds(group, defense, name) for name in measured}
    leaking = [name for name in (worst, *measured) if outcome[name]]
    if leaking:
        findings = [_leak(group, defense, name) for name in leaking]
        return next((found for found in findings if found.tone == "leaks"), findings[0])
    if any(found is None for found in outcome.values()):
        return _Finding(
            "not calibrated",
            "silent",
            "There is no noise level with an interval to read this against: the number stands alone, and "
            "whether it is more than chance can't be told.",
        )
    return _no_leak(group, defense, measured)


def _leak(group: Group, defense: str, attack: str) -> _Finding:
    ann, random = group.named("ann"), group.named("random")
    reading = group.reading(defense, attack, JUDGED)
    open_book = group.reading(ann, attack, JUDGED) if ann and ann != defense else None
    untrained = group.reading(random, attack, JUDGED) if random else None
    if reading and untrained and random and succeeds(group, random, attack) and not reading.above(untrained):
        return _Finding(
            "inconclusive",
            "silent",
            f"{attack} is clearly better than noise on an untrained network too, and {defense} is not clear "
            "of that: what the judge recognises need not come from the training data.",
        )
    text = (
        f"The interval of {attack} lies above that of noise images: it draws something of the classes out of {defense}"
    )
    if untrained is None:
        text += ", unless it does so on an untrained network too, which was not measured"
    if reading and open_book:
        text += _beside_ann(defense, reading, open_book)
    return _Finding("above noise", "leaks", f"{text}. Another attack may draw more.")


def _beside_ann(defense: str, reading: Reading, ann: Reading) -> str:
    if ann.above(reading) is None:
        return ""
    if ann.above(reading):
        return ". The unprotected ANN gives more: its interval lies higher"
    if reading.above(ann):
        return ". The unprotected ANN gives less: its interval lies lower"
    return f". That {defense} gives less than the unprotected ANN can't be told: their intervals overlap"


def _no_leak(group: Group, defense: str, measured: list[str]) -> _Finding:
    ann = group.named("ann")
    if ann is None:
        return _Finding(
            "no control",
            "silent",
            "The interval does not lie above that of noise images, and without the unprotected ANN as a "
            "control nothing shows that these attacks could have succeeded: this says nothing about "
            f"{defense}.",
        )
    valid = [name for name in measured if succeeds(group, ann, name)]
    if not valid:
        return _Finding(
            "attacks too weak",
            "silent",
            "The interval does not lie above that of noise images, but no attack measured here is clearly "
            f"better than noise on the unprotected ANN either: they say nothing about {defense}.",
        )
    one = len(valid) == 1
    return _Finding(
        "not told from noise",
        "quiet",
        f"The interval does not lie above that of noise images, while {_listed(valid)} "
        f"{'is' if one else 'are'} clearly better than noise on the unprotected ANN. That {defense} "
        f"withstood {'this attack' if one else 'these attacks'} proves nothing about others.",
    )


def _weak(reading: Reading) -> tuple[str, ...]:
    found = []
    smallest = min(value.n for _, value in reading.values)
    if smallest < SMALL_N:
        found.append(f"Only {smallest} image{'' if smallest == 1 else 's'}: too few to tell much apart.")
    if any(interval(value) is None for _, value in reading.values):
        found.append("No interval was recorded for this value.")
    return tuple(found)


def _unmeasured(attacked: list[Place]) -> str:
    without = [place for place in attacked if not place.reading(JUDGED)]
    if not without:
        return ""
    words = {"failed": "failed", "not-applicable": "not applicable"}
    named = [f"{place.attack} ({words[place.bad[0].status] if place.bad else 'not judged'})" for place in without]
    return f"No value from {_listed(named)}."


def _nothing(group: Group, defense: str) -> tuple[str, str]:
    alone = group.places.get((defense, ""))
    bad = [cell for place in group.places.values() if place.defense == defense for cell in place.bad]
    reason = next((cell.reason for cell in [*(alone.bad if alone else ()), *bad] if cell.reason), "")
    lead = f"No attack on {defense} gave a judge accuracy{f': {reason}' if reason else ''}."
    return lead, f"This run says nothing about what {defense} gives away."


def _levels(group: Group, defense: str, attack: str, reading: Reading) -> list[Level]:
    def control(plugin: str) -> Reading | None:
        label = group.named(plugin)
        return group.reading(label, attack, JUDGED) if label and label != defense else None

    rows: list[tuple[str, str, Reading | None]] = [
        ("real images", "anchor", group.reading("", REAL, JUDGED)),
        ("unprotected ANN", "control", control("ann")),
        (defense, "defense", reading),
        ("untrained network", "control", control("random")),
        ("noise images", "anchor", group.reading("", NOISE, JUDGED)),
    ]
    return [Level(label, role, found.short, _marks(found)) for label, role, found in rows if found]


def _marks(reading: Reading) -> tuple[Mark, ...]:
    marks = []
    for _, value in reading.values:
        low, high = interval(value) or (value.value, value.value)
        if not math.isnan(value.value):
            marks.append(Mark(_percent(value.value), _percent(low), _percent(high)))
    return tuple(marks)


def _percent(share: float) -> str:
    # 1 % to 99 %: a dot at either end stays whole.
    return f"{1 + 98 * min(1.0, max(0.0, share)):.2f}%"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
