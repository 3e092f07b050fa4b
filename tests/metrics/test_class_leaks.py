"""The joint test: against every arrangement written out, and what it may and may not say of few networks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from simulated_votes import Study

from leakbench.errors import UsageError
from leakbench.metrics.class_leaks import DRAWS, _tails, leaking_classes
from leakbench.metrics.class_votes import Votes

Array = NDArray[np.float64]


def random_votes(networks: int, attacks: int, classes: int, seed: int, rate: float = 0.3) -> Votes:
    """Votes for any class with a rate of the attack's own."""
    rng = np.random.default_rng(seed)
    rates = rng.uniform(0, 2 * rate, (attacks, 1, 1))
    accepted = rng.random((networks, attacks, classes, classes)) < rates
    return Votes(accepted, np.ones((networks, attacks), bool))


def drawn(networks: int, attacks: int, classes: int, leaking: int, controls: int = 20) -> tuple[Votes, Votes]:
    """Networks that each attack draws the first classes from, and nothing else is accepted; clean controls."""
    accepted = np.zeros((networks, attacks, classes, classes), bool)
    for k in range(leaking):
        accepted[:, :, k, k] = True
    none = np.zeros((controls, attacks, classes, classes), bool)
    return Votes(accepted, np.ones((networks, attacks), bool)), Votes(none, np.ones((controls, attacks), bool))


def without(votes: Votes, *cells: tuple[int, int]) -> Votes:
    """The same where an attack was not run on some networks."""
    run = votes.run.copy()
    for cell in cells:
        run[cell] = False
    return Votes(votes.accepted & run[..., None, None], run)


def counts(votes: Votes, networks: tuple[int, ...], orders: tuple[tuple[int, ...], ...]) -> NDArray[np.int64]:
    """[attacks, C]: votes for class k from the images that a permutation gives it, on the networks taken."""
    k = np.arange(votes.classes)
    return sum(votes.accepted[s][:, list(order), k].astype(np.int64) for s, order in zip(networks, orders, strict=True))


def arrangements(votes: Votes, networks: int) -> Iterator[NDArray[np.int64]]:
    """The counts of each choice of so many networks and each permutation of classes in each."""
    permutations = list(itertools.permutations(range(votes.classes)))
    for chosen in itertools.combinations(range(votes.networks), networks):
        for orders in itertools.product(permutations, repeat=networks):
            yield counts(votes, chosen, orders)


def joined(own: Votes, controls: Votes) -> Votes:
    return Votes(np.concatenate([own.accepted, controls.accepted]), np.concatenate([own.run, controls.run]))


def shares(values: Array) -> Array:
    """[B]: the share of all that are no larger, by the definition."""
    return np.array([(values <= one + 1e-9).mean() for one in values])


def error(p: float) -> float:
    """Five standard deviations of a share of the draws."""
    return 5 * math.sqrt(p * (1 - p) / DRAWS) + 1 / DRAWS


@pytest.mark.parametrize(("networks", "attacks", "classes"), [(1, 1, 4), (2, 3, 3), (3, 2, 3), (4, 2, 2)])
def test_overall_p_is_that_of_all_arrangements(networks: int, attacks: int, classes: int) -> None:
    for seed in range(4):
        own = random_votes(networks, attacks, classes, seed)
        test = leaking_classes(own)
        every = np.array(list(arrangements(own, networks)))
        observed = own.counts
        tails = np.array([(every >= one).mean(0) for one in every])
        here = next(at for at, one in enumerate(every) if (one == observed).all())
        assert test.tails == pytest.approx(tails[here], abs=1e-11)

        own_p = [(tails.min(1)[:, k] <= tails[here].min(0)[k] + 1e-12).mean() for k in range(classes)]
        for p, exact in zip(test.own, own_p, strict=True):
            assert p == pytest.approx(exact, abs=error(exact))

        totals = every.sum(2)
        spread = np.where(totals.std(0) > 0, totals.std(0), 1)
        best = np.minimum(shares(tails.min((1, 2))), shares(-((totals - totals.mean(0)) / spread).max(1)))
        # the ranks that are ranked once more are shares of the draws themselves
        margin = error(best[here])
        low, high = ((best <= best[here] + side * margin).mean() for side in (-1, 1))
        assert low - error(low) <= test.p <= high + error(high)


@pytest.mark.parametrize(("networks", "of", "attacks", "classes"), [(3, 9, 2, 2), (2, 4, 3, 3), (3, 3, 2, 3)])
def test_tails_without_replacement_are_those_of_all_arrangements(
    networks: int, of: int, attacks: int, classes: int
) -> None:
    votes = random_votes(of, attacks, classes, 0)
    every = np.array(list(arrangements(votes, networks)))
    expected = np.stack([(every >= c).mean(0) for c in range(networks + 1)], axis=2)
    assert _tails(votes, np.full(attacks, networks)) == pytest.approx(expected, abs=1e-11)


def test_tails_are_those_of_all_binary_outcomes() -> None:
    # the Poisson-binomial distribution, summed over 2^S outcomes
    votes = random_votes(6, 2, 7, 1)
    rates = votes.accepted.sum(2) / 7
    tails = _tails(votes, np.array([6, 6]))
    for attack, k in itertools.product(range(2), range(7)):
        chances = np.zeros(7)
        for outcome in itertools.product((0, 1), repeat=6):
            p = rates[:, attack, k]
            chances[sum(outcome)] += np.where(outcome, p, 1 - p).prod()
        assert tails[attack, k] == pytest.approx(chances[::-1].cumsum()[::-1], abs=1e-11)


def test_tails_of_the_same_rates_are_the_same_numbers() -> None:
    # ties decide p: rounding must not tell classes apart whose rates come in another order of networks
    orders = list(itertools.permutations((0, 1, 3, 5, 6)))[:7]
    accepted = np.zeros((5, 1, 7, 7), bool)
    for k, order in enumerate(orders):
        for network, rows in enumerate(order):
            accepted[network, 0, :rows, k] = True
    tails = _tails(Votes(accepted, np.ones((5, 1), bool)), np.array([4]))[0]
    assert (tails == tails[0]).all()


def test_an_attack_draws_from_the_networks_that_it_was_run_on() -> None:
    votes = random_votes(8, 2, 3, 2)
    fewer = without(votes, (5, 1), (7, 1))
    tails = _tails(fewer, np.array([3, 2]))
    assert tails[0] == pytest.approx(_tails(votes, np.array([3, 3]))[0], abs=1e-11)
    kept = Votes(votes.accepted[[0, 1, 2, 3, 4, 6]], votes.run[[0, 1, 2, 3, 4, 6]])
    assert tails[1, :, :3] == pytest.approx(_tails(kept, np.array([2, 2]))[1], abs=1e-11)
    assert tails[1, :, 3] == pytest.approx(0, abs=1e-11)


def step_down(least: Array, here: int) -> Array:
    """By the definition: the k-th smallest against the smallest of the draws' among it and all larger ones."""
    order = sorted(range(least.shape[1]), key=lambda k: least[here, k])
    p, floor = np.zeros(len(order)), 0.0
    for place, k in enumerate(order):
        floor = p[k] = max(floor, (least[:, order[place:]].min(1) <= least[here, k] + 1e-12).mean())
    return p


@pytest.mark.slow
def test_p_against_controls_is_that_of_all_arrangements() -> None:
    for seed in range(4):
        own, controls = random_votes(3, 2, 2, seed, 0.4), random_votes(6, 2, 2, seed + 10, 0.2)
        every = np.array(list(arrangements(joined(own, controls), 3)))
        least = np.array([(every >= one).mean(0).min(0) for one in every])
        here = next(at for at, one in enumerate(every) if (one == own.counts).all())
        test = leaking_classes(own, controls)
        for p, exact in zip(test.against_controls, step_down(least, here), strict=True):
            assert p == pytest.approx(exact, abs=error(exact))
        assert np.isnan(test.against_controls_alone).all()


@pytest.mark.slow
def test_p_against_controls_alone_is_that_of_all_choices_of_networks() -> None:
    for seed in range(4):
        own, controls = random_votes(4, 2, 5, seed, 0.5), random_votes(20, 2, 5, seed + 10, 0.2)
        # they are looked at where a class is named
        own.accepted[:, :, 0] = own.accepted[..., 0] = controls.accepted[..., 0] = False
        own.accepted[..., 0, 0] = True
        target = joined(own, controls).of_target.astype(np.int64)
        every = np.array([target[list(chosen)].sum(0) for chosen in itertools.combinations(range(24), 4)])
        least = np.array([(every >= one).mean(0).min(0) for one in every])
        test = leaking_classes(own, controls)
        assert 0 in test.named
        # the first choice is of the first four
        for p, exact in zip(test.against_controls_alone, step_down(least, 0), strict=True):
            assert p == pytest.approx(exact, abs=error(exact))


@pytest.mark.slow
def test_drawn_classes_are_named_and_no_others() -> None:
    test = leaking_classes(*drawn(4, 6, 10, 2))
    assert test.leaks and test.named == (0, 1)
    assert test.doubtful == test.uncontrolled == test.notes == ()
    # 1 / 10^4 for four votes of one in ten each
    assert test.tails[:, :2] == pytest.approx(1e-4, rel=1e-9) and (test.tails[:, 2:] == 1).all()
    assert (test.own[2:] == 1).all() and (test.against_controls[2:] == 1).all()


@pytest.mark.slow
def test_a_favourite_class_is_no_leak() -> None:
    # whatever they were made for, the images of every class are accepted as class 8, by every attack
    own, controls = drawn(4, 6, 10, 0)
    own.accepted[..., 8] = True
    test = leaking_classes(own, controls)
    assert test.p == 1 and test.named == ()
    assert (test.tails == 1).all()


@pytest.mark.slow
def test_a_favourite_class_does_not_hide_another() -> None:
    own, controls = drawn(4, 6, 10, 1)
    own.accepted[..., 8] = True
    assert leaking_classes(own, controls).named == (0,)


@pytest.mark.slow
def test_classes_that_controls_show_as_well_are_named_with_that_note() -> None:
    own, _ = drawn(4, 6, 10, 2)
    controls, _ = drawn(20, 6, 10, 2)
    test = leaking_classes(own, controls)
    # what is meant for these classes shows them, on any network
    assert test.leaks and test.named == test.doubtful == (0, 1)
    assert (test.against_controls_alone == 1).all()


def test_a_class_is_named_only_where_some_class_leaks() -> None:
    # on two of three networks class 0 is accepted as itself, and any other as a wrong one: against clean controls
    # class 0 is significant, and among ten classes of these networks one of them often has two votes
    own, controls = drawn(3, 1, 10, 0)
    for made in range(10):
        own.accepted[:2, 0, made, 1 + made % 9 if made else 0] = True
    test = leaking_classes(own, controls)
    assert test.against_controls[0] <= 0.001 and test.own[0] <= 0.05
    assert test.p > 0.05 and test.named == ()


@pytest.mark.slow
def test_many_attacks_do_not_hide_what_one_shows() -> None:
    own, controls = drawn(4, 40, 10, 1)
    own.accepted[:, 1:] = False
    assert leaking_classes(own, controls).named == (0,)


def test_one_network_may_leak_and_names_none() -> None:
    test = leaking_classes(*drawn(1, 6, 10, 4))
    assert test.leaks and test.named == ()
    assert np.isnan(test.against_controls).all()
    assert test.notes == ("no class is named with fewer than 3 networks, got 1",)


def test_two_networks_name_none() -> None:
    test = leaking_classes(*drawn(2, 6, 10, 4))
    assert test.leaks and test.named == ()


def test_no_controls_name_none() -> None:
    test = leaking_classes(drawn(4, 6, 10, 2)[0])
    assert test.leaks and test.named == () and test.uncontrolled == tuple(range(6))
    assert test.notes == ("no class is named with fewer than 6 null networks, got 0",)


@pytest.mark.slow
def test_five_controls_name_none_and_six_do() -> None:
    assert leaking_classes(*drawn(4, 6, 10, 2, controls=5)).named == ()
    test = leaking_classes(*drawn(4, 6, 10, 2, controls=6))
    assert test.named == (0, 1)
    assert test.notes == ("null networks: 6; whether they show the named classes as often is tested from 20 on",)
    # all of four networks show them and none of six: one of 210 choices
    assert test.against_controls_alone[:2] == pytest.approx(1 / 210, abs=error(1 / 210))
    assert test.doubtful == ()


@pytest.mark.slow
@pytest.mark.parametrize("count", [6, 20])
def test_a_named_class_that_all_controls_show_is_doubtful(count: int) -> None:
    """The images for class 0 are accepted as it on whatever network, and those of no other class as any."""
    own, controls = drawn(4, 6, 10, 1, controls=count)
    controls.accepted[:, :, 0, 0] = True
    test = leaking_classes(own, controls)
    assert (test.leaks, test.named, test.as_often, test.doubtful) == (True, (0,), (0,), (0,))
    # all of four against half of them may be by chance: 35 of 210, and 1001 of 10626 choices
    controls.accepted[: count // 2, :, 0, 0] = False
    assert leaking_classes(own, controls).as_often == (0,)
    # against two of twenty it is less, 15 of 10626, and against none whatever they are
    controls.accepted[:, :, 0, 0] = False
    assert leaking_classes(own, controls).as_often == ()
    controls.accepted[:2, :, 0, 0] = True
    assert leaking_classes(own, controls).as_often == ((0,) if count == 6 else ())


@pytest.mark.slow
def test_an_attack_without_controls_leaks_and_names_none() -> None:
    own, controls = drawn(4, 2, 10, 1)
    own.accepted[:, 1] = False
    own.accepted[:, 1, 5, 5] = True
    # the second attack, which alone draws class 5, was run on three controls
    test = leaking_classes(own, without(controls, *((s, 1) for s in range(3, 20))))
    assert test.uncontrolled == (1,) and test.named == (0,)
    assert test.own[5] <= 0.001
    assert test.notes == ("an attack on fewer than 6 null networks names no class",)
    # run on six, it names it, and against controls alone, too
    test = leaking_classes(own, without(controls, *((s, 1) for s in range(6, 20))))
    assert test.uncontrolled == test.doubtful == () and test.named == (0, 5)


def test_controls_that_an_attack_was_not_run_on_have_no_part_in_it() -> None:
    # alone, it has the p's of the controls that it was run on, within the error of two times 9999 draws
    own, controls = random_votes(3, 1, 5, 3, 0.3), random_votes(20, 1, 5, 4, 0.2)
    kept = Votes(controls.accepted[:8], controls.run[:8])
    masked = leaking_classes(own, without(controls, *((s, 0) for s in range(8, 20))))
    for p, expected in zip(masked.against_controls, leaking_classes(own, kept).against_controls, strict=True):
        assert p == pytest.approx(expected, abs=2 * error(expected))


@pytest.mark.slow
def test_cells_that_were_not_run_are_no_evidence() -> None:
    own, controls = drawn(4, 3, 10, 10)
    nothing = without(own, *itertools.product(range(4), range(3)))
    test = leaking_classes(nothing, controls)
    assert test.p == 1 and (test.tails == 1).all() and (test.own == 1).all() and test.named == ()
    # one that failed on one network is tested on the three others
    test = leaking_classes(without(own, (0, 0), (0, 1), (0, 2)), controls)
    assert test.tails == pytest.approx(1e-3, rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("votes", [0.0, 0.5, 1.0])
def test_two_classes_and_one_class(votes: float) -> None:
    own, controls = random_votes(4, 2, 2, 0, votes), random_votes(20, 2, 2, 1, votes)
    assert 0 < leaking_classes(own, controls).p <= 1
    # four networks of two classes: 1 / 16 is the least there is
    assert leaking_classes(*drawn(4, 3, 2, 2)).p == pytest.approx(1 / 16, abs=error(1 / 16))
    assert leaking_classes(*drawn(4, 3, 1, 1)).p == 1


@pytest.mark.slow
def test_nearly_all_classes_named_are_noted() -> None:
    assert leaking_classes(*drawn(4, 3, 10, 7)).notes == ()
    test = leaking_classes(*drawn(4, 3, 10, 8))
    assert len(test.named) == 8 and len(test.notes) == 1
    assert test.notes[0].startswith("nearly all classes are named")


@pytest.mark.slow
def test_is_deterministic_and_its_seed_matters() -> None:
    own, controls = Study(leaking=1, drawn=0.5, acceptance=0.03).votes(np.random.default_rng(0))
    one, again, other = (leaking_classes(own, controls, seed) for seed in (0, 0, 1))
    assert one.p == again.p and (one.against_controls == again.against_controls).all()
    assert (one.tails == other.tails).all() and (one.own != other.own).any()


@pytest.mark.slow
def test_order_of_networks_and_attacks_moves_p_within_its_error() -> None:
    own, controls = Study(networks=5, leaking=1, drawn=0.5, acceptance=0.03).votes(np.random.default_rng(3))
    test = leaking_classes(own, controls)
    turned = leaking_classes(
        Votes(own.accepted[::-1, ::-1], own.run), Votes(controls.accepted[::-1, ::-1], controls.run)
    )
    assert (turned.tails[::-1] == test.tails).all()
    assert turned.p == pytest.approx(test.p, abs=2 * error(test.p))


def test_unlike_controls_and_no_draws_are_refused() -> None:
    own, _ = drawn(4, 3, 10, 0)
    for controls in (drawn(4, 2, 10, 0)[1], drawn(4, 3, 9, 0)[1]):
        with pytest.raises(UsageError, match="same attacks and classes"):
            leaking_classes(own, controls)
    with pytest.raises(UsageError, match="at least 1 draw"):
        leaking_classes(own, draws=0)
