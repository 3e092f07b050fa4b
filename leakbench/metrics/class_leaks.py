"""Whether networks leak classes, and which: one test of all attacks and classes together, from their votes.

Two nulls, both exact however alike an attack's images are and however much the attacks agree with each other:

- *Own network*: what an attack draws has nothing to do with the class that it was meant for. Then the classes of a
  network may be permuted: one permutation a network, the same for all attacks.
- *Controls*: nor have the defended networks anything that the null networks (untrained, or trained on shuffled
  labels) lack. Then any S of the S + U networks may be the defended ones, their classes permuted, too.

A count of votes T[a, k] is turned into its exact tail probability under the null first, p[a, k], and minima are taken
over these: a class that an attack's images resemble whatever they were meant for would dominate counts. Minima over
attacks and classes are then compared with those of random draws (Westfall & Young 1993), so that no Bonferroni factor
lets many attacks hide what one shows. All draws include the observed one: the smallest p is 1 / (1 + draws).

Both nulls need the attacks' starts to be fresh for each network: the same start for a class on all networks is
accepted as the same wrong class on all of them, which permutations of each network's own don't imitate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from leakbench.errors import UsageError
from leakbench.metrics.class_votes import SIGNIFICANT, Votes

Array = NDArray[np.float64]
Integers = NDArray[np.intp]

DRAWS = 9999
BATCH = 1000
"""draws at a time, for memory: each takes 8 bytes for an attack and a class"""
OWN_NETWORK = 0.05
"""level of a named class's p against its own networks"""
NETWORKS, CONTROLS = 3, 6
"""the fewest that a class is named with"""
CONTROLS_ALONE = 20
"""the fewest null networks beside which it says something that a class is not significant, no class permuted"""
LESS_OFTEN = 0.05
"""level, for all attacks together, at which one shows a class of fewer null networks, where it shows it of any"""
NEARLY_ALL = 0.8


@dataclass(frozen=True, eq=False)
class ClassLeaks:
    """Which classes leak. Classes and attacks are indices into the votes; p's are one-sided and in (0, 1]."""

    p: float
    """that no class leaks; some class does if it is at most .01"""
    tails: Array
    """p[a, k] [attacks, C]: the chance of as many votes under the own-network null, of this attack and class alone"""
    own: Array
    """[C]: share of draws under the own-network null whose least tail over attacks is no larger; not adjusted"""
    against_controls: Array
    """[C]: p under the controls' null, adjusted for the number of classes (step-down); NaN where none can be named"""
    against_controls_alone: Array
    """[C]: the same where networks are exchanged and no class permuted; NaN where no class is named"""
    named: tuple[int, ...]
    """classes with ``p`` and ``against_controls`` at most .01 and ``own`` at most .05"""
    as_often: tuple[int, ...]
    """those named that controls show as often: of each attack that shows one, some control shows it, and exchanging
    networks and controls gives as much in more than .05 of cases, over the number of attacks"""
    doubtful: tuple[int, ...]
    """these, and where each attack was run on 20 controls those not significant at .01 against controls alone"""
    uncontrolled: tuple[int, ...]
    """attacks run on fewer than 6 null networks, which can't name a class"""
    notes: tuple[str, ...]
    """what limits the names, a sentence each"""

    @property
    def leaks(self) -> bool:
        """Whether some class leaks, be it named or not."""
        return self.p <= SIGNIFICANT


NO_NAMES = "no class is named with fewer than "
"""how a note begins that says what names lack"""


def leaking_classes(own: Votes, controls: Votes | None = None, seed: int = 0, draws: int = DRAWS) -> ClassLeaks:
    """Test S defended networks against permuted classes and against U null networks.

    ``controls`` None: there are none. Names need at least 3 networks and, of each attack that takes part, 6 controls;
    20 are recommended. Where an attack was not run on all null networks, it draws from those that it was run on (see
    :func:`_draw`). ``seed`` of the draws: the same votes and seed give the same p's; another seed or order of classes
    moves p within its random error, sqrt(p (1 - p) / draws).

    Simulated with favourite classes, correlated attacks and overdispersed acceptance (1000 studies of 3 or 4 networks
    each, tests/metrics/test_class_leaks_simulated.py): where no class leaks, p is at most .01 in .2 to 1.4 % of studies
    and some class is named in at most .5 %; beside classes that leak, another is named in at most .9 %. Of 10 classes,
    one that is drawn from 80 % of networks is named in 69, 86, 94 % with 3, 4, 5 networks. Known limit: where nearly
    all classes leak, the last may be named by chance, as the images of those that leak are never accepted as it.

    Raises UsageError for controls with other attacks or classes, and for fewer than 1 draw.
    """
    if draws < 1:
        raise UsageError(f"a permutation test needs at least 1 draw, got {draws}")
    if controls is not None and controls.accepted.shape[1:] != own.accepted.shape[1:]:
        shapes = f"{own.accepted.shape[1:]} and {controls.accepted.shape[1:]}"
        raise UsageError(f"networks and controls need the same attacks and classes, got {shapes}")
    generator = np.random.default_rng(seed)
    permuted = _draw(own, own.networks, draws, generator)
    p = _overall(own, permuted)
    own_p = np.asarray((permuted.least <= permuted.least[0]).mean(0))
    available = np.zeros(own.attacks, dtype=int) if controls is None else controls.run.sum(0)
    nothing = np.full(own.classes, math.nan)
    names = alone = nothing
    named = as_often = doubtful = np.zeros(0, dtype=np.intp)
    enough = available >= CONTROLS
    if controls is not None and own.networks >= NETWORKS and enough.any():
        together = Votes(np.concatenate([own.accepted, controls.accepted]), np.concatenate([own.run, controls.run]))
        tried = _only(together, enough)
        names = _step_down(_draw(tried, own.networks, draws, generator).least)
        named = np.flatnonzero((p <= SIGNIFICANT) & (names <= SIGNIFICANT) & (own_p <= OWN_NETWORK))
        if len(named):
            alone = _step_down(_draw(_unpermuted(tried), own.networks, draws, generator).least)
            shows = (permuted.tails <= OWN_NETWORK) & enough[:, None]
            less = [_shows_less(own, controls, np.flatnonzero(shows[:, k]), k) for k in named.tolist()]
            as_often = named[~np.array(less)]
            insignificant = named[alone[named] > SIGNIFICANT]
            doubtful = np.union1d(as_often, insignificant) if min(available[enough]) >= CONTROLS_ALONE else as_often
    return ClassLeaks(
        p=p,
        tails=permuted.tails,
        own=own_p,
        against_controls=names,
        against_controls_alone=alone,
        named=tuple(named.tolist()),
        as_often=tuple(as_often.tolist()),
        doubtful=tuple(doubtful.tolist()),
        uncontrolled=tuple(np.flatnonzero(available < CONTROLS).tolist()),
        notes=tuple(_notes(own, available, len(named))),
    )


def _notes(own: Votes, controls: NDArray[np.int_], named: int) -> Iterator[str]:
    """``controls`` [attacks]: how many null networks each was run on."""
    if own.networks < NETWORKS:
        yield f"{NO_NAMES}{NETWORKS} networks, got {own.networks}"
    if controls.max() < CONTROLS:
        yield f"{NO_NAMES}{CONTROLS} null networks, got {controls.max()}"
    elif controls.min() < CONTROLS:
        yield f"an attack on fewer than {CONTROLS} null networks names no class"
    if (fewest := controls[controls >= CONTROLS].min(initial=CONTROLS_ALONE)) < CONTROLS_ALONE:
        yield (
            f"null networks: {fewest}; whether they show the named classes as often is tested from {CONTROLS_ALONE} on"
        )
    if named >= NEARLY_ALL * own.classes:
        yield (
            "nearly all classes are named: one that does not leak may be among them by chance (simulated: 2 to 19 % of "
            "studies), if these networks' images are falsely accepted 3 times as often as the controls'"
        )


class _Draws(NamedTuple):
    """What was observed, first, and random draws under a null."""

    tails: Array
    """[attacks, C], of what was observed"""
    least: Array
    """[1 + draws, C]: the least tail probability over attacks"""
    totals: Integers
    """[1 + draws, attacks]: votes for the target class, over all classes"""


def _draw(votes: Votes, networks: int, draws: int, generator: np.random.Generator) -> _Draws:
    """Draw ``networks`` of all networks, without replacement, and permute the classes of each.

    What was observed are the first ``networks``, unpermuted. An attack that was run on n of these draws n of the
    networks that it was run on: the first n in a random order that all attacks share. So each attack by itself has its
    exact null, and attacks keep their dependence but where they must take different networks; less dependence makes
    the least of their tails smaller, which errs towards too large a p.
    """
    sizes = votes.run[:networks].sum(0)
    places = int((sizes + (~votes.run).sum(0)).max())  # so many first networks hold those of every attack
    tails = _tails(votes, sizes)
    flat = np.ascontiguousarray(tails.transpose(1, 0, 2)).ravel()
    offsets = np.arange(votes.classes * votes.attacks).reshape(votes.classes, votes.attacks) * tails.shape[2]
    dealt = np.ascontiguousarray(votes.accepted.transpose(0, 2, 3, 1)).reshape(-1, votes.attacks)
    classes = np.arange(votes.classes)
    least, totals = [], []
    for orders, permutations in _arrangements(votes, places, draws, generator):
        run = votes.run[orders]
        taken = run & (run.cumsum(1) <= sizes)
        counts = np.zeros((len(orders), votes.classes, votes.attacks), dtype=np.intp)
        for place in range(places):
            rows = (orders[:, place, None] * votes.classes + permutations[:, place]) * votes.classes + classes
            counts += dealt[rows] & taken[:, place, None]
        least.append(flat[offsets + counts].min(2))
        totals.append(counts.sum(1))
    observed = votes.of_target[:networks].sum(0)
    return _Draws(
        np.take_along_axis(tails, observed[..., None], 2)[..., 0], np.concatenate(least), np.concatenate(totals)
    )


def _arrangements(
    votes: Votes, places: int, draws: int, generator: np.random.Generator
) -> Iterator[tuple[Integers, Integers]]:
    """Batches of networks [B, places] and permutations of their classes [B, places, C]; the observed one first."""
    networks, classes = np.arange(votes.networks), np.arange(votes.classes)
    yield networks[None, :places], np.tile(classes, (1, places, 1))
    for start in range(0, draws, BATCH):
        batch = min(BATCH, draws - start)
        orders = generator.permuted(np.tile(networks, (batch, 1)), axis=1)[:, :places]
        yield orders, generator.permuted(np.tile(classes, (batch, places, 1)), axis=2)


def _tails(votes: Votes, sizes: Integers) -> Array:
    """[attacks, C, 1 + votes]: the chance of at least so many, of ``sizes`` [attacks] networks with permuted classes.

    With p = r / C, r the number of classes whose images on a network are accepted as k, the coefficient of x^n y^t in
    the product over networks of 1 + x (1 - p + p y), divided by binom(N, n): t votes from n of the N networks that the
    attack was run on. Where n = N, it is the Poisson-binomial distribution.
    """
    rates = votes.accepted.sum(2) / votes.classes
    last = int(sizes.max())
    ways = np.zeros((votes.attacks, votes.classes, last + 1, last + 1))
    ways[..., 0, 0] = 1
    for network in range(votes.networks):
        p = rates[network, :, :, None, None]
        more = ways[..., :-1, :] * votes.run[network, :, None, None, None]
        ways[..., 1:, :] += more * (1 - p)
        ways[..., 1:, 1:] += more[..., :-1] * p
    chosen = ways[np.arange(votes.attacks), :, sizes]
    chances = chosen / chosen.sum(2, keepdims=True)
    tails = chances[..., ::-1].cumsum(2)[..., ::-1]
    # equal tails must be equal numbers, whatever the order of the networks that rounding depends on
    return np.asarray(np.minimum(tails.round(12), 1))


def _overall(own: Votes, permuted: _Draws) -> float:
    """P_all: the better rank of the least tail and of the largest standardised total, ranked once more."""
    lowest, highest = permuted.least.min(1), _standardized(own, permuted.totals).max(1)
    return float(_at_most(np.minimum(_at_most(lowest), _at_most(-highest)))[0])


def _standardized(own: Votes, totals: Integers) -> Array:
    """Totals [B, attacks] in standard deviations from their mean under the own-network null, both exact.

    For the sum of h[j, k] over j = pi(k) they are sum(h) / C and sum(d^2) / (C - 1), d = h minus the means of its row
    and column plus that of all (Hoeffding 1951). 0 where the total is the same under each permutation.
    """
    h = own.accepted.astype(float)
    d = h - h.mean(3, keepdims=True) - h.mean(2, keepdims=True) + h.mean((2, 3), keepdims=True)
    variance = (d**2).sum((0, 2, 3)) / max(own.classes - 1, 1)
    varies = variance > 1e-9  # rounding; the least variance of a table that is not constant is above 1 / C^2
    deviation = np.sqrt(np.where(varies, variance, 1))
    z = (totals - h.sum((0, 2, 3)) / own.classes) / deviation
    # equal values must be equal numbers, as for tails
    return np.asarray(np.where(varies, z, 0).round(9))


def _at_most(values: Array) -> Array:
    """[B]: the share of all values that are no larger than each."""
    return np.searchsorted(np.sort(values), values, side="right") / len(values)


def _step_down(least: Array) -> Array:
    """P's of the classes [C] from their least tails [1 + draws, C], adjusted for their number (Westfall & Young 1993).

    From the smallest observed tail on, each is compared with the smallest of the draws' among it and those after it.
    """
    order = np.argsort(least[0], kind="stable")
    following = np.minimum.accumulate(least[:, order[::-1]], axis=1)[:, ::-1]
    adjusted = np.empty(len(order))
    adjusted[order] = np.maximum.accumulate((following <= following[0]).mean(0))
    return adjusted


def _only(votes: Votes, attacks: NDArray[np.bool_]) -> Votes:
    return Votes(votes.accepted[:, attacks], votes.run[:, attacks])


def _shows_less(own: Votes, controls: Votes, attacks: Integers, k: int) -> bool:
    """Whether one of these attacks shows class k of no control, or of significantly fewer than of the networks: by the
    exact tail of its count where any of the networks and controls may be the networks (hypergeometric)."""
    from scipy.stats import hypergeom  # scipy.stats takes half a second to load

    count, others = own.counts[attacks, k], controls.counts[attacks, k]
    networks, nulls = (votes.run[:, attacks].sum(0) for votes in (own, controls))
    tails = hypergeom.sf(count - 1, networks + nulls, count + others, networks)
    return bool(((others == 0) | (tails <= LESS_OFTEN / max(len(attacks), 1))).any())


def _unpermuted(votes: Votes) -> Votes:
    """Votes that no permutation of classes changes: whatever image a class is dealt, it counts as the class's own."""
    of_target = votes.of_target[:, :, None]
    return Votes(np.broadcast_to(of_target, votes.accepted.shape), votes.run)
