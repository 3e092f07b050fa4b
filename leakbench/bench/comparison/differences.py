"""Defences side by side: those of one run, or of several runs, with the differences between them.

A difference in leakage is of the scores behind the leakage index, by seed and class, before the index is cut to [0,
1], or of the area under it over the attacker's cost; one in accuracy is tested in log odds, one in the energy ratio in
logarithms. Where two defences descend from the same ANNs it is paired by seed and class, else Welch's. Each family of
differences (the worst case, its area, one attack, accuracy, the energy ratio; of one data set) is corrected for the
number of its pairs (Holm). The worst case of a pair is over the attacks that were run on both with the same settings.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np

from leakbench.bench.comparison.entries import Entry
from leakbench.bench.comparison.records import ENERGY, LEVEL, Pair
from leakbench.bench.comparison.settings import Obstacle
from leakbench.errors import UsageError
from leakbench.leakage.scaled_scores import ComparedScores, ScaledScores
from leakbench.leakage.seed_group import seed_group
from leakbench.metrics.intervals import Difference, holm, newcombe, paired_difference, unpaired_difference
from leakbench.records import Value

OTHER_DATA = "other data: the two defences were measured on different data sets"
"""of a pair whose runs have a data set in common, so that they are no obstacle to each other"""


_ORDERED = ("less", "more")
_Scores = TypeVar("_Scores")


def pairs_of(entries: Sequence[Entry], obstacles: Sequence[Obstacle]) -> list[Pair]:
    """Every pair of one data set's defences in everything that both have, corrected in each family."""
    families: list[list[Pair]] = []
    judged = [entry for entry in entries if not entry.incomparable]
    families.append([_leak_pair(a, b, judged, None) for a, b in itertools.combinations(judged, 2)])
    families.append([_leak_pair(a, b, judged, None, "area") for a, b in itertools.combinations(judged, 2)])
    for attack in dict.fromkeys(attack for entry in entries for attack in entry.attacks):
        tried = [entry for entry in entries if entry.scores(attack) is not None]
        families.append([_leak_pair(a, b, tried, attack) for a, b in itertools.combinations(tried, 2)])
    for metric in ("accuracy", ENERGY):
        measured = [entry for entry in entries if entry.measured(metric)]
        families.append([_value_pair(a, b, measured, metric) for a, b in itertools.combinations(measured, 2)])
    by_label = {entry.label: entry for entry in entries}
    runs = {entry.label: set(entry.runs) for entry in entries}
    datasets = {entry.label: entry.first.dataset for entry in entries}
    pairs = []
    for family in families:
        adjusted = holm([math.nan if pair.p is None else pair.p for pair in family])
        for pair, p in zip(family, adjusted, strict=True):
            pair = _weighed(pair.model_copy(update=_relation(pair, p)), by_label)
            between = runs[pair.first] | runs[pair.second]
            marks = [one.why for one in obstacles if one.runs <= between and one.dataset in ("", pair.dataset)]
            if not marks and datasets[pair.first] != datasets[pair.second]:
                marks = [OTHER_DATA]
            pairs.append(pair.model_copy(update={"marks": marks}))
    return pairs


def _relation(pair: Pair, adjusted: float) -> dict[str, Any]:
    if pair.value is None or math.isnan(adjusted):
        return {}
    relation = ("less" if pair.value < 0 else "more") if adjusted < LEVEL else "not distinguishable"
    return {"adjusted": adjusted, "relation": relation}


def _weighed(pair: Pair, entries: Mapping[str, Entry]) -> Pair:
    """Without an order of the worst cases that an attack contradicts which is valid on one of the two alone: the one
    that leaks less on what both were put to may leak more."""
    if pair.attack or pair.relation not in _ORDERED or pair.quantity not in ("leakage", "area"):
        return pair
    order = (pair.first, pair.second) if pair.relation == "less" else (pair.second, pair.first)
    less, more = (entries[label] for label in order)
    common = [x for x in less.attacks if _on_one_scale(less.scores(x), more.scores(x))]
    most = _leaked(less, less.attacks, pair.quantity)
    if most <= max(_leaked(less, common, pair.quantity), _leaked(more, more.attacks, pair.quantity)):
        return pair
    why = f"{order[0]} leaks more by attacks that are not valid on both"
    return pair.model_copy(update={"relation": "not distinguishable", "basis": f"{pair.basis}; {why}"})


def _leaked(entry: Entry, attacks: Iterable[str], quantity: Literal["leakage", "area"]) -> float:
    """By the worst case over those of these attacks that are valid on the defence."""
    if quantity == "leakage":
        worst = entry.worst(attacks)
        return (worst[1].mean or 0.0) if worst else 0.0
    area = entry.area(attacks)
    return area.value.value if area is not None and area.value is not None else 0.0


def _leak_pair(
    a: Entry, b: Entry, peers: Sequence[Entry], attack: str | None, quantity: Literal["leakage", "area"] = "leakage"
) -> Pair:
    """Of one attack, or (None) of the worst case over the attacks that both were put to and that are valid on both."""
    both = [attack] if attack else [x for x in a.attacks if x in b.attacks]
    # what failed, found no gradient or is not valid on one has shown nothing there, and is no protection
    common = [x for x in both if _on_one_scale(a.scores(x), b.scores(x))]
    pair = Pair(
        dataset=a.first.dataset, first=a.label, second=b.label, quantity=quantity, attack=attack or "", basis=""
    )
    of_a, of_b = (_quantity_of(entry, common, quantity) for entry in (a, b))
    if of_a is None or of_b is None:
        why = (
            "no attack with the same settings was run on both"
            if not both
            else "no attack is valid on both with the same null and headline"
        )
        return pair.model_copy(update={"basis": why})
    (by_a, x), (by_b, y) = of_a, of_b
    classes = sorted(set(x.classes) & set(y.classes))
    seeds = _shared_seeds(a, b, x.seeds, y.seeds)
    if not classes:
        return pair.model_copy(update={"basis": "no class in common"})
    try:
        if seeds:

            def of_peer(peer: Entry) -> np.ndarray | None:
                worst = _quantity_of(peer, [attack] if attack else peer.attacks, quantity)
                if worst is None or not set(classes) <= set(worst[1].classes) or not set(seeds) <= set(worst[1].seeds):
                    return None
                return worst[1].at(seeds, classes)

            others = _of_peers(a, b, peers, seeds, of_peer)
            difference = paired_difference(x.at(seeds, classes), y.at(seeds, classes), others)
            basis = f"paired over {_count(len(seeds), 'seed')} and {_count(len(classes), 'class')}"
        else:
            difference = unpaired_difference(x.at(x.seeds, classes), y.at(y.seeds, classes))
            basis = f"unpaired, of other ANNs: {_count(len(x.seeds), 'seed')} against {len(y.seeds)}, "
            basis += _count(len(classes), "class")
    except UsageError as error:
        return pair.model_copy(update={"basis": str(error)})
    if not attack and by_a:
        basis += f"; {by_a}" if by_a == by_b else f"; {by_a} against {by_b}"
    return pair.model_copy(update={"basis": basis, "paired": bool(seeds), **_numbers(difference)})


def _quantity_of(entry: Entry, attacks: Iterable[str], quantity: str) -> tuple[str, ComparedScores] | None:
    """Of the worst case over ``attacks``, with the attack's name where it is of one."""
    if quantity == "leakage":
        return entry.worst(attacks)
    area = entry.area(attacks)
    return ("", area) if area is not None else None


def _on_one_scale(a: ScaledScores | None, b: ScaledScores | None) -> bool:
    """Whether both have scores of one metric (of each run and model its headline is chosen by how many images its
    evaluation models accept), and both or neither the untrained network's (--no-controls) to measure them from."""
    return a is not None and b is not None and a.metric == b.metric and bool(a.random) == bool(b.random)


def _shared_seeds(a: Entry, b: Entry, *having: Sequence[int]) -> list[int]:
    """Seeds at which both come from the same ANN; none where some seed of both has two ANNs."""
    both = set.intersection(set(a.anns), set(b.anns), *map(set, having))
    same = {seed for seed in both if a.anns[seed] == b.anns[seed]}
    return sorted(same) if same == both else []


def _of_peers(
    a: Entry, b: Entry, peers: Sequence[Entry], seeds: Sequence[int], scores_of: Callable[[Entry], _Scores | None]
) -> list[_Scores]:
    """The scores of the peers that come from the same ANNs as the pair, the pair left out, where they have any. The
    same networks are one peer, however often they were attacked: what varies between them varies once."""
    same = {seed: a.anns[seed] for seed in seeds}
    known = {tuple(one.networks.get(seed) for seed in seeds) for one in (a, b)}
    others = []
    for peer in peers:
        networks = tuple(peer.networks.get(seed) for seed in seeds)
        if networks in known or not same.items() <= peer.anns.items():
            continue
        if (scores := scores_of(peer)) is not None:
            others.append(scores)
            known.add(networks)
    return others


@dataclass(frozen=True)
class _Scale:
    """On which networks of different methods vary about alike, so that others tell what few seeds don't.

    Shares near 1 hardly vary and those halfway do: of three seeds of eighteen methods on the digits the standard
    deviations of accuracies are .002 to .12, those of their log odds .06 to .7.
    """

    of: Callable[[Value], float]
    back: Callable[[float], float]

    def difference(self, a: Sequence[Value], b: Sequence[Value], found: Difference) -> Difference:
        """``found`` on this scale as a difference of the values themselves: that of their means, with the interval
        about the point halfway between the two."""
        means = [math.fsum(one.value for one in values) / len(values) for values in (a, b)]
        middle = math.fsum(math.fsum(map(self.of, values)) / len(values) for values in (a, b)) / 2
        value = means[0] - means[1]
        low, high = (self.back(middle + end / 2) - self.back(middle - end / 2) for end in (found.low, found.high))
        # the mean on the scale is not the scale's of the mean, and may even be on the other side
        p = found.p if value * found.value >= 0 else 1.0
        return replace(found, value=value, low=min(low, value), high=max(high, value), p=p)


_LEAST_RATIO = 1e-9
"""of energies: a record that says less is none of ours"""


def _log_odds(share: Value) -> float:
    """Of a share of n images, with half an image more right and half an image more wrong (Haldane, Anscombe)."""
    right = min(max(share.value, 0.0), 1.0) * share.n
    return math.log((right + 0.5) / (share.n - right + 0.5))


_LOG_ODDS = _Scale(_log_odds, lambda x: 1 / (1 + math.exp(-x)))
_LOGARITHM = _Scale(lambda ratio: math.log(max(ratio.value, _LEAST_RATIO)), math.exp)


def _value_pair(a: Entry, b: Entry, peers: Sequence[Entry], metric: str) -> Pair:
    """Of a value that a defence has once a seed: its log odds are compared, of the energy ratio its logarithm."""
    scale = _LOG_ODDS if metric == "accuracy" else _LOGARITHM
    x, y = _values(a, metric), _values(b, metric)
    seeds = _shared_seeds(a, b, list(x), list(y))
    pair = Pair(
        dataset=a.first.dataset,
        first=a.label,
        second=b.label,
        quantity="accuracy" if metric == "accuracy" else "energy_ratio_int32",
        basis="",
        paired=bool(seeds),
    )
    if len(seeds) > 1:

        def of_peer(peer: Entry) -> list[list[float]] | None:
            known = _values(peer, metric)
            return [[scale.of(known[seed])] for seed in seeds] if set(seeds) <= known.keys() else None

        others = _of_peers(a, b, peers, seeds, of_peer)
        first, second = ([values[seed] for seed in seeds] for values in (x, y))
        of_first, of_second = ([[scale.of(one)] for one in values] for values in (first, second))
        found = paired_difference(of_first, of_second, others, alike=True)
        difference = scale.difference(first, second, found)
        basis = f"paired over {len(seeds)} seeds"
    elif not seeds and len(x) > 1 and len(y) > 1:
        first, second = list(x.values()), list(y.values())
        found = unpaired_difference(*([[scale.of(one)] for one in values] for values in (first, second)))
        difference = scale.difference(first, second, found)
        basis = f"unpaired, of other ANNs: {len(x)} seeds against {len(y)}"
    else:
        # the seed that both have, not one seed of the one against the mean of the other
        one, two = (
            seed_group((c for c in e.utility_cells.cells if not seeds or c.seed in seeds), e.utility_cells.declared)
            for e in (a, b)
        )
        if metric == "accuracy" and len(one.cells) == len(two.cells) == 1:
            difference = newcombe(*(known for group in (one, two) if (known := group.estimate(metric)) is not None))
            basis = "the test images of one seed" if seeds else "unpaired, of other ANNs; the test images of one seed"
        else:
            mean, other = one.mean(metric), two.mean(metric)
            value = None if mean is None or other is None else mean - other
            return pair.model_copy(update={"value": value, "basis": "one seed: no interval"})
    return pair.model_copy(update={"basis": basis, **_numbers(difference)})


def _values(entry: Entry, metric: str) -> dict[int, Value]:
    """Seed -> the value of its network."""
    return {c.seed: value for c in entry.utility_cells.cells for value in c.values if value.metric == metric}


def _numbers(difference: Difference) -> dict[str, Any]:
    known = {"value": difference.value, "low": difference.low, "high": difference.high, "p": difference.p}
    return {name: None if math.isnan(number) else number for name, number in known.items()}


def ranks_of(labels: Sequence[str], pairs: Sequence[Pair], quantity: str) -> dict[str, tuple[int, int]]:
    """First and last rank of each of ``labels``: after all of these that leak significantly less, before all that leak
    more."""
    better = dict.fromkeys(labels, 0)
    worse = dict.fromkeys(labels, 0)
    for pair in pairs:
        of_both = pair.first in better and pair.second in better
        if of_both and pair.quantity == quantity and not (pair.attack or pair.marks) and pair.relation in _ORDERED:
            less, more = (pair.first, pair.second) if pair.relation == "less" else (pair.second, pair.first)
            better[more] += 1
            worse[less] += 1
    return {label: (1 + better[label], len(labels) - worse[label]) for label in labels}


def _count(number: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"
