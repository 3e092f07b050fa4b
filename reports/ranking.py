"""Defences in the order of what they leak, and the differences between them in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from leakbench.bench.comparison import ComparedDefense, Comparison, Pair
from leakbench.bench.comparison.records import DROP, ENERGY, Quantity
from leakbench.metrics.metric import Unit
from leakbench.records import Value
from leakbench.reports.conclusion import brief
from leakbench.reports.verdict import CHIPS, Mark, mark_of
from leakbench.reports.vocabulary import Vocabulary, bare, bounds, index_text, number, plain

_WORDS = {
    "leakage": ("leaks less than", "leaks more than"),
    "area": ("leaks less over cost than", "leaks more over cost than"),
    "accuracy": ("is less accurate than", "is more accurate than"),
    ENERGY: ("saves less energy than", "saves more energy than"),
}
MOST_NAMES = 3
"""in one sentence; of more their number"""


@dataclass(frozen=True)
class Ranked:
    """A line of the ranking."""

    rank: str
    """"1", or "1–3" where some of the others can't be distinguished from it"""
    label: str
    attack: str
    """the worst case"""
    index: str
    """of the worst case with its 95 % interval"""
    mark: Mark | None
    """the same on the axis"""
    area: str
    """under the index over the attacker's cost, with its 95 % interval"""
    area_rank: str
    chip: str
    tone: str
    """the verdict, as its card has it"""
    against: str
    """whether it leaks more than the first line; empty for the first"""
    than: str
    """the first line, as the sentence goes on"""
    difference: str
    """how much more"""
    obstacles: tuple[int, ...]
    """numbers, from 1, of what forbids a comparison with some other"""
    defense: ComparedDefense = field(repr=False)


@dataclass(frozen=True)
class Unranked:
    """A defence that has no rank, and why."""

    label: str
    why: str
    chip: str
    obstacles: tuple[int, ...]
    defense: ComparedDefense = field(repr=False)


@dataclass(frozen=True)
class Ranking:
    """The defences of one data set."""

    dataset: str
    ranked: tuple[Ranked, ...]
    """those that leak least first"""
    unranked: tuple[Unranked, ...]
    note: str
    """how many differences are significant, one sentence"""
    answer: str
    """which leaks least and whether that is significant, one sentence"""

    @property
    def open(self) -> list[Unranked]:
        """Those without a rank that were attacked."""
        return [one for one in self.unranked if one.defense.attacks]

    @property
    def attacked(self) -> int:
        """How many defences some attack was run on."""
        return len(self.ranked) + len(self.open)


@dataclass(frozen=True)
class Scope:
    """The part of a comparison whose defences have pairs: a data set, or all of them where pairs cross (--anyway)."""

    dataset: str
    defenses: list[ComparedDefense]
    pairs: list[Pair]
    vocabulary: Vocabulary = field(repr=False)


def scopes(comparison: Comparison) -> list[Scope]:
    """In the order of the defences."""
    dataset = {one.label: one.dataset for one in comparison.defenses}
    vocabulary = Vocabulary(comparison.metrics)
    if any(dataset[pair.first] != dataset[pair.second] for pair in comparison.pairs):
        return [Scope(", ".join(comparison.datasets()), comparison.defenses, comparison.pairs, vocabulary)]
    return [
        Scope(
            name,
            [one for one in comparison.defenses if one.dataset == name],
            [pair for pair in comparison.pairs if pair.dataset == name],
            vocabulary,
        )
        for name in comparison.datasets()
    ]


def rankings(comparison: Comparison) -> list[Ranking]:
    """One for each data set."""
    return [_ranking(scope, comparison.obstacles) for scope in scopes(comparison)]


def _ranking(scope: Scope, obstacles: Sequence[str]) -> Ranking:
    pairs = [pair for pair in scope.pairs if pair.quantity == "leakage" and not pair.attack]
    with_rank = [one for one in scope.defenses if one.rank]
    ranked = tuple(_ranked(one, with_rank[0], pairs, scope, obstacles) for one in with_rank)
    unranked = tuple(
        Unranked(one.label, brief(one.unranked), chip(one), obstacles_of(one, scope.pairs, obstacles), one)
        for one in scope.defenses
        if not one.rank
    )
    # one that leaks and lost too much accuracy is compared, and has no rank
    labels = {one.label for one in with_rank}
    among = [pair for pair in pairs if {pair.first, pair.second} <= labels]
    note = _note(with_rank, among) if len(with_rank) > 1 else ""
    return Ranking(scope.dataset, ranked, unranked, note, _answer(with_rank, among))


def _ranked(
    one: ComparedDefense, first: ComparedDefense, pairs: Sequence[Pair], scope: Scope, obstacles: Sequence[str]
) -> Ranked:
    against, difference = _against(one, first, pairs)
    word = {"leaks less": "than", "leaks more": "than", "not distinguishable": "from"}.get(against, "against")
    return Ranked(
        rank=rank_text(one.rank),
        label=one.label,
        attack=one.attack,
        index=index_text(one.index),
        mark=mark_of(one.index),
        area=f"{number('share', one.area)} {bounds('share', one.area)}".rstrip() if one.area else "–",
        area_rank=rank_text(one.area_rank),
        chip=chip(one),
        tone=CHIPS[one.outcome][1] if one.outcome else "silent",
        against=against,
        than=f"{word} {first.label}",
        difference=difference,
        obstacles=obstacles_of(one, scope.pairs, obstacles),
        defense=one,
    )


def chip(defense: ComparedDefense) -> str:
    """The verdict in words."""
    return CHIPS[defense.outcome][0] if defense.outcome else "not attacked"


def obstacles_of(defense: ComparedDefense, pairs: Sequence[Pair], obstacles: Sequence[str]) -> tuple[int, ...]:
    """Numbers, from 1, of the obstacles to any of its pairs."""
    marks = {why for pair in pairs if defense.label in (pair.first, pair.second) for why in pair.marks}
    return numbers(marks, obstacles)


def numbers(marks: Sequence[str] | set[str], obstacles: Sequence[str]) -> tuple[int, ...]:
    """The numbers of the marks among the obstacles, from 1."""
    return tuple(number for number, why in enumerate(obstacles, start=1) if why in marks)


def _against(defense: ComparedDefense, first: ComparedDefense, pairs: Sequence[Pair]) -> tuple[str, str]:
    """Whether it leaks more than the first, and by how much; empty for the first itself."""
    for pair in pairs:
        if {pair.first, pair.second} == {defense.label, first.label}:
            turned = pair if pair.first == defense.label else flipped(pair)
            words = {"less": "leaks less", "more": "leaks more"}.get(turned.relation, turned.relation)
            return words, difference_text(turned, "share") if turned.value is not None else turned.basis
    return "", ""


def _note(ranked: Sequence[ComparedDefense], pairs: Sequence[Pair]) -> str:
    seeds = {len(one.seeds) for one in ranked}
    few = " One seed is one network: with another the order may be another." if 1 in seeds else ""
    return f"{apart_text(pairs)} (p below .05, corrected for their number).{few}"


def apart_text(pairs: Sequence[Pair]) -> str:
    """How many differ, as in "1 of 15 pairs differs significantly"."""
    apart = sum(pair.relation in ("less", "more") and not pair.marks for pair in pairs)
    verb = "differs" if 1 in (apart, len(pairs)) else "differ"
    left = _left_out(pairs)
    rest = f", {left}" if left else ""
    return f"{apart} of {len(pairs)} {'pair' if len(pairs) == 1 else 'pairs'} {verb} significantly{rest}"


def _left_out(pairs: Sequence[Pair]) -> str:
    """The pairs that say nothing of an order, as in "2 were not tested"; empty where there are none."""
    left = [pair for pair in pairs if pair.relation == "not tested" or pair.marks]
    why = "not tested or should not be compared" if any(pair.marks for pair in left) else "not tested"
    return f"{len(left)} {'was' if len(left) == 1 else 'were'} {why}" if left else ""


def _answer(ranked: Sequence[ComparedDefense], pairs: Sequence[Pair]) -> str:
    if len(ranked) < 2:
        return f"Only {ranked[0].label} has a rank." if ranked else "No defence has a rank."
    if all(pair.marks for pair in pairs):
        return "No rank says anything: these runs should not be compared."
    tested = [pair for pair in pairs if pair.relation != "not tested" and not pair.marks]
    if not tested:
        return "No two of them could be tested: their ranks say nothing."
    left = _left_out(pairs)
    untested = f" Of {len(pairs)} pairs {left}." if left else ""
    first = [one.label for one in ranked if one.rank and one.rank[0] == 1]
    if not first:
        return "None leaks least: each leaks significantly more than another, by the attacks that the two share."
    if len(first) == len(ranked):
        return f"By the leakage index none of the {len(ranked)} leaks significantly less than another.{untested}"
    if len(first) > 1:
        rest = [one.label for one in ranked if one.label not in first]
        least = _listed(first) if len(first) <= MOST_NAMES else f"{len(first)} of the {len(ranked)}"
        most = _listed(rest) if len(rest) <= MOST_NAMES else f"the other {len(rest)}"
        more = f"{most} {'leaks' if len(rest) == 1 else 'leak'} significantly more than at least one of these"
        return f"{least} leak least and are not distinguishable; {more}.{untested}"
    less = sum(
        (pair.first, pair.relation) == (first[0], "less") or (pair.second, pair.relation) == (first[0], "more")
        for pair in pairs
        if not pair.marks
    )
    others = len(ranked) - 1
    than = ("the other" if others == 1 else "each of the others") if less == others else f"{less} of {others} others"
    return f"{first[0]} leaks least: significantly less than {than}.{untested}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def rank_text(rank: tuple[int, int] | None) -> str:
    """A rank, or the first and the last that it may be; "–" for none."""
    if rank is None:
        return "–"
    first, last = rank
    return str(first) if first == last else f"{first}–{last}"


def sentence(pair: Pair) -> str:
    """As in "privatesnn leaks less than han2020"."""
    if pair.relation == "not distinguishable":
        return f"{pair.first} and {pair.second} are not distinguishable"
    if pair.relation == "not tested":
        return f"{pair.first} and {pair.second}: not tested"
    less, more = _WORDS[pair.quantity]
    return f"{pair.first} {less if pair.relation == 'less' else more} {pair.second}"


def flipped(pair: Pair) -> Pair:
    """The same pair the other way round."""
    turned = {
        name: None if x is None else -x for name, x in (("value", pair.value), ("low", pair.high), ("high", pair.low))
    }
    relation = {"less": "more", "more": "less"}.get(pair.relation, pair.relation)
    return pair.model_copy(update={"first": pair.second, "second": pair.first, "relation": relation, **turned})


def unit_of(quantity: Quantity, vocabulary: Vocabulary) -> Unit:
    """How a difference in it is written; leakage and area are those of the index."""
    return "share" if quantity in ("leakage", "area") else vocabulary.unit(quantity)


def difference_text(pair: Pair, unit: Unit) -> str:
    """The difference with its 95 % interval, as in "+.12 [+.03, +.21]"; "–" where there is none."""
    if pair.value is None:
        return "–"
    numbers = [pair.value] + [end for end in (pair.low, pair.high) if end is not None]
    # what is told from 0 reads so: rounded, its interval may seem to have 0 in it
    told = len(numbers) == 3 and numbers[1] * numbers[2] > 0
    decimals = next((d for d in range(2, 7) if not told or all(round(end, d) for end in numbers[1:])), 7)
    texts = [_signed(x, unit, decimals) for x in numbers]
    return f"{texts[0]} [{texts[1]}, {texts[2]}]" if len(texts) == 3 else texts[0]


def _signed(x: float, unit: Unit, decimals: int) -> str:
    """``decimals`` of a share; others are written with as many digits as their values."""
    digits = bare(abs(x), decimals) if unit == "share" else plain(unit, abs(x))
    return digits if not any(char in digits for char in "123456789") else f"{'+' if x > 0 else '−'}{digits}"


def p_text(pair: Pair) -> str:
    """The adjusted p, as in ".03"; "–" where there is none."""
    return "–" if pair.adjusted is None else plain("p", pair.adjusted)


def cut(value: Value, unit: Unit) -> Value:
    """The value with its interval cut to what it can be: Student's knows no bounds."""
    bounded = unit in ("share", "ratio", "seconds", "count") and value.metric != DROP
    if not bounded or value.low is None or value.high is None:
        return value
    high = min(1.0, value.high) if unit == "share" else value.high
    return value.model_copy(update={"low": max(0.0, value.low), "high": high})


def value_text(value: Value | None, vocabulary: Vocabulary) -> str:
    """A defence's own value with its interval, cut to what it can be; "–" where there is none."""
    if value is None:
        return "–"
    unit = vocabulary.unit(value.metric)
    value = cut(value, unit)
    return " ".join(part for part in (number(unit, value), bounds(unit, value)) if part)
