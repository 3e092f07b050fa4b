"""Defences in the order of what they leak, and the differences between them in words."""

from __future__ import annotations

from dataclasses import dataclass

from leakbench.bench.comparison import ComparedDefense, Comparison, Pair
from leakbench.bench.records import Value
from leakbench.reports.vocabulary import bounds, describe, index_text, number, plain

_WORDS = {
    "leakage": ("leaks less than", "leaks more than"),
    "accuracy": ("is less accurate than", "is more accurate than"),
    "energy_ratio_int32": ("saves less energy than", "saves more energy than"),
}


@dataclass(frozen=True)
class Ranked:
    """A line of the ranking."""

    place: str
    """"1", or "1–3" where some of the others can't be distinguished from it"""
    label: str
    attack: str
    """the worst case"""
    index: str
    """of the worst case with its 95 % interval"""


@dataclass(frozen=True)
class Unranked:
    """A defence that has no place, and why."""

    label: str
    why: str


@dataclass(frozen=True)
class Ranking:
    """The defences of one data set."""

    dataset: str
    ranked: tuple[Ranked, ...]
    """those that leak least first"""
    unranked: tuple[Unranked, ...]
    note: str
    """how sure the order is, one sentence"""


def rankings(comparison: Comparison) -> list[Ranking]:
    """One for each data set."""
    return [_ranking(comparison, dataset) for dataset in comparison.datasets()]


def _ranking(comparison: Comparison, dataset: str) -> Ranking:
    here = [one for one in comparison.defenses if one.dataset == dataset]
    pairs = [p for p in comparison.pairs if p.dataset == dataset and p.quantity == "leakage" and not p.attack]
    ranked = tuple(
        Ranked(place_text(one.place), one.label, one.attack, index_text(one.index)) for one in here if one.place
    )
    return Ranking(
        dataset,
        ranked,
        tuple(Unranked(one.label, one.unranked) for one in here if not one.place),
        _note(here, pairs) if len(ranked) > 1 else "",
    )


def _note(here: list[ComparedDefense], pairs: list[Pair]) -> str:
    tested = [pair for pair in pairs if pair.adjusted is not None]
    apart = sum(pair.relation in ("less", "more") for pair in tested)
    seeds = {len(one.seeds) for one in here if one.place}
    few = " One seed is one network: with another the order may be another." if seeds == {1} else ""
    what = "pair differs" if apart == 1 else "pairs differ"
    return f"{apart} of {len(pairs)} {what} significantly (p below .05, corrected for their number).{few}"


def place_text(place: tuple[int, int] | None) -> str:
    """A place, or the first and the last that it may be; "–" for none."""
    if place is None:
        return "–"
    first, last = place
    return str(first) if first == last else f"{first}–{last}"


def sentence(pair: Pair) -> str:
    """As in "privatesnn leaks less than han2020"."""
    if pair.relation == "not distinguishable":
        return f"{pair.first} and {pair.second} are not distinguishable"
    if pair.relation == "not tested":
        return f"{pair.first} and {pair.second}: not tested"
    less, more = _WORDS[pair.quantity]
    return f"{pair.first} {less if pair.relation == 'less' else more} {pair.second}"


def difference_text(pair: Pair) -> str:
    """The difference with its 95 % interval, as in "+.12 [+.03, +.21]"; "–" where there is none."""
    if pair.value is None:
        return "–"
    numbers = [pair.value] + [end for end in (pair.low, pair.high) if end is not None]
    texts = [_signed(pair, x) for x in numbers]
    return f"{texts[0]} [{texts[1]}, {texts[2]}]" if len(texts) == 3 else texts[0]


def _signed(pair: Pair, x: float) -> str:
    name = {"leakage": "index_judge_accuracy"}.get(pair.quantity, pair.quantity)
    digits = plain(name, abs(x))
    return digits if not any(char in digits for char in "123456789") else f"{'+' if x > 0 else '−'}{digits}"


def p_text(pair: Pair) -> str:
    """The adjusted p, as in ".03"; "–" where there is none."""
    return "–" if pair.adjusted is None else plain("p_value", pair.adjusted)


def value_text(value: Value | None) -> str:
    """A defence's own value with its interval; "–" where there is none."""
    if value is None:
        return "–"
    metric = describe(value.metric)
    return " ".join(part for part in (number(metric, value), bounds(metric, value)) if part)
