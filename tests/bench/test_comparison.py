"""Comparisons: names, pairs, ranks, what differs, what forbids them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from compared_runs import another_set, attacked, own, run
from scipy.stats import ttest_ind, ttest_rel

from leakbench.bench.comparison import Comparison, Pair, compare
from leakbench.errors import UsageError
from leakbench.metrics.metric import Declaration
from leakbench.records import BudgetPoint, CellRecord, PluginInfo, RunRecord, Votes
from leakbench.reports.comparison_tables import markdown_text

HIGH = [0.9, 0.8, 0.9, 1.0, 0.8, 0.9, 0.7, 0.9, 1.0, 0.8]
LOW = [0.3, 0.4, 0.2, 0.5, 0.3, 0.2, 0.4, 0.3, 0.5, 0.4]
MIDDLE = [0.8, 0.9, 0.9, 0.9, 0.9, 0.8, 0.8, 0.9, 0.9, 0.9]
SCALE = 0.8
"""real images at .9, the null at .1"""


def defended(name: str, *scores: Sequence[float], attack: str = "direct", right: int = 194) -> list[CellRecord]:
    """A defence with one attack's scores, a list a seed, and so many of 200 test images right (its ANN: 196)."""
    return [c for seed, each in enumerate(scores) for c in (own(name, seed, right), attacked(name, each, attack, seed))]


def pair_of(comparison: Comparison, a: str, b: str, quantity: str = "leakage", attack: str = "") -> Pair:
    """The pair in that order, whichever way it stands in the comparison."""
    for pair in comparison.pairs:
        if (pair.quantity, pair.attack) == (quantity, attack) and {pair.first, pair.second} == {a, b}:
            if pair.first == a:
                return pair
            turned = {"less": "more", "more": "less"}.get(pair.relation, pair.relation)
            numbers = {"value": pair.value, "low": pair.high, "high": pair.low}
            ends = {name: None if x is None else -x for name, x in numbers.items()}
            return pair.model_copy(update={"first": a, "second": b, "relation": turned, **ends})
    raise AssertionError(f"no pair of {a} and {b}")


def ranks(comparison: Comparison) -> dict[str, tuple[int, int] | None]:
    return {one.label: one.rank for one in comparison.defenses}


# --- metrics ---------------------------------------------------------------------------------------------------------


def test_a_comparison_has_its_runs_metrics_as_the_newest_declares_them() -> None:
    old, new = (Declaration("theirs", title, "") for title in ("Before", "Now"))
    only = Declaration("only_before", "Only before", "")
    runs = {
        "new": run(*defended("a", LOW), metrics=[new], created="2026-02-01T00:00:00Z"),
        "old": run(*defended("b", HIGH), metrics=[old, only], created="2026-01-01T00:00:00Z"),
    }
    assert {metric.name: metric for metric in compare(runs).metrics} == {"theirs": new, "only_before": only}


# --- pairs -----------------------------------------------------------------------------------------------------------


def test_a_pair_of_one_run_is_paired_by_class_on_the_scale_of_the_index() -> None:
    found = compare({"run": run(*defended("a", LOW), *defended("b", HIGH))})
    pair = pair_of(found, "a", "b")
    expected = ttest_rel(LOW, HIGH)
    ends = expected.confidence_interval(0.95)
    assert pair.paired and pair.relation == "less" and "1 seed and 10 classes" in pair.basis
    assert pair.value == pytest.approx((np.mean(LOW) - np.mean(HIGH)) / SCALE)
    assert (pair.low, pair.high) == pytest.approx((ends.low / SCALE, ends.high / SCALE))
    assert pair.p == pytest.approx(expected.pvalue)


@pytest.mark.slow
def test_the_same_ann_in_two_runs_is_paired_and_another_is_not() -> None:
    first = run(*defended("a", LOW))
    same, other = run(*defended("b", HIGH)), run(
        own("b", artifacts={"ann": "another"}), attacked("b", HIGH)
    )  # fmt: skip
    assert pair_of(compare({"x": first, "y": same}), "a", "b").paired
    pair = pair_of(compare({"x": first, "y": other}), "a", "b")
    assert not pair.paired and pair.basis.startswith("unpaired, of other ANNs")
    assert pair.p == pytest.approx(ttest_ind(LOW, HIGH, equal_var=False).pvalue)


@pytest.mark.slow
def test_only_seeds_in_common_are_compared_and_on_their_own_scale() -> None:
    one, two = run(*defended("a", LOW)), run(*defended("a", LOW, HIGH))
    pair = pair_of(compare({"x": one, "y": two}), "a (x)", "a (y)")
    assert (pair.value, pair.p, pair.relation) == (0, 1, "not distinguishable")
    assert "1 seed" in pair.basis


@pytest.mark.slow
def test_p_is_corrected_for_the_pairs_of_its_family_alone() -> None:
    near = [0.8, 0.8, 0.8, 0.9, 0.8, 0.9, 0.6, 0.8, 0.9, 0.8]
    alone = compare({"run": run(*defended("a", near), *defended("b", HIGH))})
    among = compare({"run": run(*defended("a", near), *defended("b", HIGH), *defended("c", MIDDLE))})
    single, many = pair_of(alone, "a", "b"), pair_of(among, "a", "b")
    assert single.adjusted == single.p == pytest.approx(many.p)
    assert many.adjusted is not None and many.p is not None and many.adjusted > many.p
    assert pair_of(among, "a", "b", "accuracy").adjusted == 1


@pytest.mark.slow
def test_the_worst_case_is_over_attacks_that_both_were_put_to() -> None:
    both = [*defended("a", LOW), *defended("b", LOW)]
    strong = attacked("a", HIGH, "extraction")
    found = compare({"run": run(*both, strong)})
    assert next(one for one in found.defenses if one.label == "a").attack == "extraction"
    assert pair_of(found, "a", "b").value == 0  # by direct: nobody knows what extraction does to b
    against = compare({"run": run(*both, strong, attacked("b", LOW, "extraction"))})
    pair = pair_of(against, "a", "b")
    assert pair.relation == "more" and {"extraction", "direct"} <= set(pair.basis.split())


def test_an_attack_that_failed_on_one_is_left_out_on_both() -> None:
    broken = attacked("b", LOW, "extraction").model_copy(
        update={"status": "failed", "values": [], "classes": [], "reason": "it broke"}
    )
    found = compare({"run": run(*defended("a", LOW), *defended("b", LOW), attacked("a", HIGH, "extraction"), broken)})
    assert pair_of(found, "a", "b").value == 0


@pytest.mark.parametrize("status", ["no-signal", "not-applicable"])
def test_an_attack_that_shows_nothing_of_one_is_left_out_on_both(status: str) -> None:
    nothing = attacked("b", LOW, "extraction").model_copy(
        update={"status": status, "values": [], "classes": [], "reason": "its gradients are 0"}
    )
    found = compare({"run": run(*defended("a", LOW), *defended("b", LOW), attacked("a", HIGH, "extraction"), nothing)})
    assert pair_of(found, "a", "b").value == 0


def test_an_attack_that_is_not_valid_on_one_is_left_out_on_both() -> None:
    lost = attacked("b", [0.1] * 10, "extraction", confidence=0.1)
    found = compare({"run": run(*defended("a", LOW), *defended("b", LOW), attacked("a", HIGH, "extraction"), lost)})
    b = next(one for one in found.defenses if one.label == "b")
    assert [one.validity for one in b.attacks if one.attack == "extraction"] == ["optimisation failure"]
    assert pair_of(found, "a", "b").value == 0


def test_scores_with_and_without_an_untrained_network_are_on_two_scales() -> None:
    whole = run(*defended("a", MIDDLE))
    biased = [
        cell.model_copy(update={"classes": attacked("random", LOW).classes})
        if (cell.defense, cell.attack) == ("random", "direct")
        else cell
        for cell in whole.cells
    ]
    bare = run(*defended("b", MIDDLE))
    bare = bare.model_copy(update={"cells": [cell for cell in bare.cells if cell.defense != "random"]})
    pair = pair_of(compare({"x": whole.model_copy(update={"cells": biased}), "y": bare}), "a", "b")
    assert (pair.relation, pair.value, pair.basis) == (
        "not tested",
        None,
        "no attack is valid on both with the same null and headline",
    )


def test_the_same_networks_of_which_two_runs_conclude_otherwise_are_two_lines() -> None:
    whole = run(*defended("a", LOW))
    doubt = whole.verdicts[0].model_copy(update={"outcome": "inconclusive", "reason": "no valid attack"})
    found = compare({"x": whole, "y": whole.model_copy(update={"verdicts": [doubt]})})
    assert {(one.label, one.outcome) for one in found.defenses} == {("a (x)", "leaks"), ("a (y)", "inconclusive")}


def test_attacks_of_one_name_with_other_settings_are_two() -> None:
    cells = [own("b"), attacked("b", HIGH, attack_params={"steps": 200})]
    found = compare({"x": run(*defended("a", LOW)), "y": run(*cells)})
    assert set(found.attacks) == {"direct[steps=40]", "direct[steps=200]"}
    pair = pair_of(found, "a", "b")
    assert (pair.relation, pair.value) == ("not tested", None)
    assert pair.basis == "no attack with the same settings was run on both"
    setting = next(one for one in found.differs if one.name == "direct.steps")
    assert setting.values == {"direct[steps=40]": "40", "direct[steps=200]": "200"}


def test_accuracy_of_one_seed_is_compared_by_its_test_images() -> None:
    cells = [own("a", right=150), attacked("a", LOW), own("b", right=190), attacked("b", LOW)]
    pair = pair_of(compare({"run": run(*cells)}), "a", "b", "accuracy")
    assert pair.value == pytest.approx(-0.2)
    assert pair.relation == "less" and pair.low is not None and pair.high is not None and pair.high < 0


@pytest.mark.slow
def test_accuracy_of_several_seeds_is_paired_by_seed() -> None:
    rights = {"a": (180, 184, 182), "b": (190, 191, 193)}
    cells = [
        cell
        for name, counts in rights.items()
        for seed, right in enumerate(counts)
        for cell in (own(name, seed, right), attacked(name, LOW, seed=seed))
    ]
    pair = pair_of(compare({"run": run(*cells)}), "a", "b", "accuracy")
    odds = [[np.log((right + 0.5) / (200.5 - right)) for right in counts] for counts in rights.values()]
    assert pair.p == pytest.approx(ttest_rel(*odds).pvalue)
    assert pair.value == pytest.approx(np.subtract(*map(np.mean, rights.values())) / 200)
    assert pair.basis == "paired over 3 seeds"


@pytest.mark.slow
def test_networks_that_know_little_vary_more_and_are_told_from_those_that_know_all() -> None:
    """The differences of accuracies themselves vary .05 and .002 here: no seeds of the others tell of the first's."""
    rights = {"poor": (48, 30, 47), "shaky": (133, 177, 169), "middle": (172, 181, 185)}
    rights |= {name: (193 + at % 4, 195 - at % 3, 194 + at % 2) for at, name in enumerate("abcdefghijkl")}
    cells = [
        cell
        for name, counts in rights.items()
        for seed, right in enumerate(counts)
        for cell in (own(name, seed, right), attacked(name, LOW, seed=seed))
    ]
    found = compare({"run": run(*cells)})
    for name in "abcdefghijkl":
        pair = pair_of(found, "poor", name, "accuracy")
        assert pair.relation == "less" and pair.low and pair.high and -1 < pair.low < (pair.value or 0) < pair.high < 0
    assert pair_of(found, "a", "b", "accuracy").relation == "not distinguishable"


@pytest.mark.parametrize("metric", ["accuracy", "energy_ratio_int32"])
def test_a_record_that_says_the_impossible_is_compared_all_the_same(metric: str) -> None:
    cells = [cell for name in "ab" for cell in defended(name, LOW, LOW)]
    changed = [
        cell.model_copy(
            update={"values": [v.model_copy(update={"value": -3.0}) if v.metric == metric else v for v in cell.values]}
        )
        for cell in cells
    ]
    pair = pair_of(compare({"run": run(*changed)}), "a", "b", metric)
    assert (pair.value, pair.relation) == (0, "not distinguishable")


def test_seeds_of_one_ann_are_one_network() -> None:
    """As --ann gives every seed the same: how its copies agree says nothing of other networks."""
    rights = {"a": (180, 184, 182), "b": (190, 191, 193)}
    cells = [
        cell
        for name, counts in rights.items()
        for seed, right in enumerate(counts)
        for cell in (own(name, seed, right, artifacts={"ann": "given"}), attacked(name, LOW, seed=seed))
    ]
    found = compare({"run": run(*cells)})
    pair = pair_of(found, "a", "b", "accuracy")
    assert (pair.value, pair.basis) == (pytest.approx(-0.05), "the test images of one seed")
    assert [one.value("accuracy").n for one in found.defenses] == [200, 200]  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_seed_is_compared_with_itself_where_one_of_the_two_has_more() -> None:
    one = run(own("a", 0, 180), attacked("a", LOW))
    two = run(
        *(c for seed, right in ((0, 180), (1, 120)) for c in (own("b", seed, right), attacked("b", LOW, seed=seed)))
    )
    found = compare({"x": one, "y": two})
    pair = pair_of(found, "a", "b", "accuracy")
    assert (pair.value, pair.basis) == (0, "the test images of one seed")
    assert pair_of(found, "a", "b", "energy_ratio_int32").value == 0


def test_an_energy_ratio_of_one_seed_has_no_interval() -> None:
    pair = pair_of(compare({"run": run(*defended("a", LOW), *defended("b", LOW))}), "a", "b", "energy_ratio_int32")
    assert (pair.value, pair.low, pair.p, pair.relation) == (0, None, None, "not tested")


# --- leakage over cost ----------------------------------------------------------------------------------------------


def over_cost(name: str, *points: tuple[float, Sequence[float]]) -> list[CellRecord]:
    """A defence with what one attack had at each cost."""
    each = 1000  # images of a class, so that shares are whole numbers of them
    budget = [
        BudgetPoint(cost=cost, images=each, accepted=[0] * len(HIGH), forced=[round(share * each) for share in shares])
        for cost, shares in points
    ]
    return [own(name), attacked(name, points[-1][1], budget=budget)]


def test_the_same_leak_at_a_lower_cost_is_a_larger_area() -> None:
    soon, late = over_cost("soon", (10, HIGH)), over_cost("late", (1, [0.1] * 10), (1000, HIGH))
    found = compare({"run": run(*soon, *late)})
    assert pair_of(found, "soon", "late").value == 0
    pair = pair_of(found, "soon", "late", "area")
    # of four decades what is had in three, and in one
    apart = 0.5 * (np.array(HIGH) - 0.1) / SCALE
    assert pair.value == pytest.approx(apart.mean()) and pair.paired and pair.relation == "more"
    assert pair.p == pytest.approx(ttest_rel(2 * apart, apart).pvalue)
    assert {one.label: (one.rank, one.area_rank) for one in found.defenses} == {
        "late": ((1, 2), (1, 1)),
        "soon": ((1, 2), (2, 2)),
    }
    areas = {one.label: one.area.value for one in found.defenses if one.area}
    assert areas == pytest.approx({"soon": 1.5 * apart.mean(), "late": 0.5 * apart.mean()})


def test_what_has_no_rank_has_no_area() -> None:
    found = compare({"run": run(*defended("quiet", [0.1] * 10, right=190), *defended("high", HIGH))})
    quiet = next(one for one in found.defenses if one.label == "quiet")
    assert (quiet.rank, quiet.area, quiet.area_rank) == (None, None, None)
    assert not [pair for pair in found.pairs if pair.quantity == "area"]


# --- ranks -----------------------------------------------------------------------------------------------------------


def test_networks_that_several_runs_attacked_are_one_peer() -> None:
    """How much seeds and defences vary together is known no better for being read twice."""
    attacks = ["direct", "extraction", "label_only", "own"]
    right = {"a": [194, 192, 195, 193], "b": [185, 188, 181, 184], "c": [180, 190, 186, 188]}
    runs = {
        attack: run(*(one for name, each in right.items() for seed, count in enumerate(each[:3 + number % 2])
                      for one in (own(name, seed, count), attacked(name, HIGH, attack, seed))))
        for number, attack in enumerate(attacks)
    }  # fmt: skip

    def accuracies(count: int) -> list[float | None]:
        pairs = compare(dict(list(runs.items())[:count])).pairs
        between = [one for one in pairs if one.quantity == "accuracy" and {one.first[0], one.second[0]} == {"a", "b"}]
        return [one.p for one in between if "3 seeds" in one.basis]

    (once,) = accuracies(1)
    several = accuracies(4)
    assert len(several) > 1 and several == pytest.approx([once] * len(several))


def test_those_that_differ_have_ranks_of_their_own_and_others_share_them() -> None:
    found = compare({"run": run(*defended("high", HIGH), *defended("middle", MIDDLE), *defended("low", LOW))})
    assert ranks(found) == {"low": (1, 1), "middle": (2, 3), "high": (2, 3)}
    assert found.defenses[0].label == "low"


@pytest.mark.parametrize(("strong", "contradicted"), [(HIGH, True), (LOW, False)])
def test_nobody_leaks_less_by_what_both_were_put_to_who_leaks_more_by_another_attack(
    strong: list[float], contradicted: bool
) -> None:
    """Else the more attacks succeed on it alone, the less they count."""
    middle = [share - 0.2 for share in MIDDLE]
    more = attacked("low", strong, "extraction")
    found = compare({"x": run(*defended("low", LOW), more), "y": run(*defended("middle", middle))})
    assert ranks(found) == ({"middle": (1, 2), "low": (1, 2)} if contradicted else {"low": (1, 1), "middle": (2, 2)})
    for quantity in ("leakage", "area"):
        pair = pair_of(found, "low", "middle", quantity)
        assert pair.relation == ("not distinguishable" if contradicted else "less")
        assert ("low leaks more by attacks that are not valid on both" in pair.basis) is contradicted
    assert pair_of(found, "low", "middle", attack="direct").relation == "less"  # of one attack it says what it says


def test_what_is_inconclusive_or_was_not_attacked_has_no_rank_and_says_why() -> None:
    unclear = attacked("unclear", [0.1] * 10, confidence=0.1)
    found = compare({"run": run(*defended("a", HIGH), own("spared"), own("unclear"), unclear)})
    unranked = {one.label: one.unranked for one in found.defenses if one.rank is None}
    assert ranks(found)["a"] == (1, 1)
    assert unranked["spared"] == "no attack on classes was run on it"
    assert unranked["unclear"] and set(unranked) == {"spared", "unclear"}
    assert not any("unclear" in (p.first, p.second) for p in found.pairs if p.quantity == "leakage" and not p.attack)


def test_one_that_leaks_and_knows_less_is_compared_and_has_no_rank() -> None:
    """A network that knows less leaks less: it would be the best of all."""
    cells = [
        *defended("lossy", *[[0.6, 0.7, 0.5, 0.6, 0.5, 0.6, 0.4, 0.6, 0.7, 0.5]] * 4, right=100),
        *defended("honest", *[HIGH] * 4),
        *defended("b", *[HIGH] * 4),
    ]
    found = compare({"run": run(*cells)})
    lossy, honest, same = (
        next(one for one in found.defenses if one.label == name) for name in ("lossy", "honest", "b")
    )
    assert (lossy.outcome, lossy.rank, lossy.area_rank) == ("leaks", None, None)
    assert lossy.unranked == "its accuracy is 0.48 below the ANN's, 0.02 is allowed: knowing less leaks less"
    assert lossy.area is not None and pair_of(found, "lossy", "honest").relation == "less"
    assert (honest.rank, same.rank) == ((1, 2), (1, 2))
    assert found.defenses[-1].label == "lossy"


def test_a_rank_is_not_lost_by_rounding() -> None:
    """.98 - .96 is more than .02 in floats."""
    found = compare({"run": run(*defended("a", *[HIGH] * 4, right=192), *defended("b", *[HIGH] * 4, right=191))})
    assert {one.label: one.rank is None for one in found.defenses} == {"a": False, "b": True}


def test_leaks_by_two_headlines_are_not_compared() -> None:
    """Each run's is chosen by how many images its evaluation models accept: the same scores are two indices."""

    def judged(name: str, accepted: float) -> RunRecord:
        """With a share of accepted images of the unprotected network, and of all others .6."""
        cells = []
        for one in run(*defended(name, *[MIDDLE] * 4)).cells:
            share = 1.0 if one.attack == "real" else accepted if one.defense == "han2020" else 0.6
            classes = [c for c in one.classes if c.metric == "judge_accuracy"]
            values = [v for v in one.values if v.metric == "judge_accuracy"]
            by_class = [c.model_copy(update={"metric": "open_set_accuracy", "value": c.value * share}) for c in classes]
            of_all = [v.model_copy(update={"metric": "open_set_accuracy", "value": v.value * share}) for v in values]
            more = {"classes": [*one.classes, *by_class], "values": [*one.values, *of_all]}
            cells.append(one.model_copy(update=more))
        return run(*cells, around=False)

    runs = {"x": judged("a", 0.85), "y": judged("b", 0.75)}
    headlines = [row.indices[0].metric for one in runs.values() for row in one.rows if row.defense in ("a", "b")]
    assert headlines == ["open_set_accuracy", "judge_accuracy"]
    pair = pair_of(compare(runs), "a", "b")
    assert (pair.value, pair.basis) == (None, "no attack is valid on both with the same null and headline")


def test_a_value_that_one_network_lacks_is_compared_with_none() -> None:
    cells = [*defended("a", *[LOW] * 4), *defended("b", *[HIGH] * 4)]
    short = [
        one.model_copy(update={"values": [value for value in one.values if value.metric != "energy_ratio_int32"]})
        if (one.defense, one.attack, one.seed) == ("a", "", 2)
        else one
        for one in cells
    ]
    assert pair_of(compare({"run": run(*cells)}), "a", "b", "energy_ratio_int32").paired
    found = compare({"run": run(*short)})
    assert not [pair for pair in found.pairs if pair.quantity == "energy_ratio_int32"]
    assert pair_of(found, "a", "b", "accuracy").paired


def test_controls_are_not_ranked() -> None:
    assert set(ranks(compare({"run": run(*defended("a", LOW))}))) == {"a"}


# --- names -----------------------------------------------------------------------------------------------------------


def test_two_settings_of_a_defence_are_two_lines() -> None:
    few, many = ({"defense_params": {"epochs": epochs, "lr": 0.1}} for epochs in (2, 20))
    runs = {
        name: run(own("a", **given, artifacts={"ann": "ann 0", "victim": name}), attacked("a", LOW))
        for name, given in (("x", few), ("y", many))
    }
    found = compare(runs)
    assert set(ranks(found)) == {"a[epochs=2]", "a[epochs=20]"}
    assert [one.name for one in found.differs] == ["a.epochs"]


def test_a_preset_tells_more_than_the_parameters_that_follow_from_it() -> None:
    runs = {
        preset: run(own("a", preset=preset, timesteps=T, defense_params={"epochs": T}), attacked("a", LOW))
        for preset, T in (("quick", 16), ("standard", 64))
    }
    assert set(ranks(compare(runs))) == {"a[preset=quick]", "a[preset=standard]"}


def test_the_same_networks_in_two_runs_are_one_line() -> None:
    cells = defended("a", LOW)
    found = compare({"x": run(*cells), "y": run(*cells, *defended("b", HIGH))})
    assert [(one.label, one.runs) for one in found.defenses] == [("a", ["x", "y"]), ("b", ["y"])]


@pytest.mark.slow
def test_labels_are_unique_whatever_the_runs_hold() -> None:
    hostile = "a, b (x)"
    runs = {name: run(*defended(hostile, scores)) for name, scores in (("x", LOW), ("y, x", HIGH), ("z", MIDDLE))}
    runs = {
        name: record.model_copy(
            update={"cells": [c.model_copy(update={"artifacts": c.artifacts | {"run": name}}) for c in record.cells]}
        )
        for name, record in runs.items()
    }
    labels = [one.label for one in compare(runs).defenses]
    assert len(set(labels)) == len(labels) == 3


# --- what differs ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_environments_seeds_and_versions_that_differ_are_listed() -> None:
    first = run(*defended("a", LOW))
    elsewhere = first.environments[0].model_copy(update={"torch": "2.9.0", "processor": "Intel Xeon"})
    second = run(*defended("b", LOW, LOW), environment={**first.environment, "threads": "2"}, environments=[elsewhere])
    differs = {setting.name: setting.values for setting in compare({"x": first, "y": second}).differs}
    assert differs == {
        "seeds": {"x": "0", "y": "0, 1"},
        "threads": {"x": "1", "y": "2"},
        "artifacts' torch": {"x": "2.5.0", "y": "2.9.0"},
        "artifacts' processor": {"x": "AMD EPYC", "y": "Intel Xeon"},
    }


def test_models_that_differ_between_runs_are_listed() -> None:
    first, second = run(*defended("a", LOW)), run(*defended("b", LOW))
    cells = [c.model_copy(update={"model": "vgg16"}) for c in second.cells]
    parts = {
        part: [one.model_copy(update={"model": "vgg16"}) for one in getattr(second, part)]
        for part in ("rows", "verdicts")
    }
    found = compare({"x": first, "y": second.model_copy(update={"cells": cells, **parts})})
    (models,) = [one.values for one in found.differs if one.name == "models"]
    assert models == {"x": first.cells[0].model, "y": "vgg16"}


def test_models_of_one_name_whose_files_differ_are_listed() -> None:
    records = {}
    for name, source in (("x", "a" * 64), ("y", "b" * 64)):
        record = run(*defended(name, LOW))
        model = PluginInfo(kind="model", name=record.cells[0].model, summary="", source=source)
        records[name] = record.model_copy(update={"plugins": [*record.plugins, model]})
    (models,) = [one.values for one in compare(records).differs if one.name == "models"]
    named = records["x"].cells[0].model
    assert models == {"x": f"{named} (aaaaaaaaaaaa)", "y": f"{named} (bbbbbbbbbbbb)"}


def fewer_images(record: RunRecord) -> RunRecord:
    cells = [c.model_copy(update={"classes": [s.model_copy(update={"n": 4}) for s in c.classes]}) for c in record.cells]
    return record.model_copy(update={"cells": cells})


def fewer_classes(record: RunRecord) -> RunRecord:
    cells = [c.model_copy(update={"classes": [s for s in c.classes if s.target < 5]}) for c in record.cells]
    return record.model_copy(update={"cells": cells})


def other_data(record: RunRecord) -> RunRecord:
    return record.model_copy(
        update={"datasets": [info.model_copy(update={"fingerprint": "f" * 16}) for info in record.datasets]}
    )


def other_judges(record: RunRecord) -> RunRecord:
    cells = [
        c.model_copy(update={"artifacts": {role: key.replace("judge", "new") for role, key in c.artifacts.items()}})
        for c in record.cells
    ]
    return record.model_copy(update={"cells": cells})


def answers_among_all(record: RunRecord) -> RunRecord:
    """As they were once also where few classes were attacked."""
    votes = Votes(classes=list(range(10)), among=100, accepted=[], forced=[])
    return record.model_copy(update={"cells": [c.model_copy(update={"votes": votes}) for c in record.cells]})


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (fewer_images, "other images a class: x has 10, y has 4"),
        (fewer_classes, "other attacked classes: x has 10, y has 5"),
        (other_data, "other data: x has 0123456789ab, y has ffffffffffff"),
        (other_judges, "other evaluation models: x has judge, y has new"),
        (answers_among_all, "other evaluation models: x has judge, y has judge, among 100 classes"),
        (another_set, "other data: x is of digits, y of mnist"),
    ],
)
def test_what_is_not_comparable_is_refused_or_marked_on_every_line(changed: object, why: str) -> None:
    assert callable(changed)
    runs = {"x": run(*defended("a", LOW), *defended("c", LOW)), "y": changed(run(*defended("b", HIGH)))}
    with pytest.raises(UsageError, match=f"these runs can't be compared: {why}. --anyway"):
        compare(runs)
    found = compare(runs, anyway=True)
    assert found.obstacles == [why]
    of_both = [pair for pair in found.pairs if any(label.startswith("b") for label in (pair.first, pair.second))]
    assert of_both and all(pair.marks == [why] for pair in of_both)
    assert all(not pair.marks for pair in found.pairs if pair not in of_both)
    # a mark is no evidence: nobody is ranked by it
    assert set(ranks(found).values()) == {(1, 3)}


def test_what_a_record_should_say_and_does_not_forbids_a_comparison() -> None:
    first, second = run(*defended("a", LOW)), run(*defended("b", HIGH))
    nameless = second.model_copy(update={"datasets": []})
    with pytest.raises(UsageError, match="other data: x has 0123456789ab, y has none"):
        compare({"x": first, "y": nameless})
    cells = [
        c.model_copy(update={"artifacts": {k: v for k, v in c.artifacts.items() if k == "ann"}}) for c in second.cells
    ]
    unjudged = second.model_copy(update={"cells": cells})
    with pytest.raises(UsageError, match="other evaluation models: x has judge, y has none"):
        compare({"x": first, "y": unjudged})
    with pytest.raises(UsageError, match="neither record names its evaluation models: y, z"):
        compare({"y": unjudged, "z": unjudged})
    # accuracy alone needs none
    assert compare({"x": run(own("a")), "y": run(own("b"))}).pairs


@pytest.mark.slow
def test_an_obstacle_marks_its_own_data_set_alone() -> None:
    def both(name: str) -> RunRecord:
        here, there = run(*defended(name, LOW)), another_set(run(*defended(name, LOW)))
        infos = [*here.datasets, here.datasets[0].model_copy(update={"name": "mnist", "fingerprint": name * 12})]
        return here.model_copy(
            update={
                "datasets": infos,
                **{part: [*getattr(here, part), *getattr(there, part)] for part in ("cells", "rows", "verdicts")},
            }
        )

    found = compare({"x": both("a"), "y": both("b")}, anyway=True)
    assert {pair.dataset for pair in found.pairs if pair.marks} == {"mnist"}
    assert any(pair.dataset == "digits" and not pair.marks for pair in found.pairs)


@pytest.mark.slow
def test_every_pair_across_data_sets_is_marked_and_none_is_lost() -> None:
    """Also where both runs have a data set in common, and are no obstacle to each other."""
    here, there = run(*defended("a", LOW)), another_set(run(*defended("b", HIGH)))
    infos = [*here.datasets, here.datasets[0].model_copy(update={"name": "mnist"})]
    both = {part: [*getattr(here, part), *getattr(there, part)] for part in ("cells", "rows", "verdicts")}
    records = {
        "x": here,
        "y": here.model_copy(update={**both, "datasets": infos}),
        "z": there.model_copy(update={"datasets": infos[1:]}),
    }
    found = compare(records, anyway=True)
    dataset = {one.label: one.dataset for one in found.defenses}
    across = [pair for pair in found.pairs if dataset[pair.first] != dataset[pair.second]]
    assert across and all(pair.marks for pair in across)
    assert {why for pair in across for why in pair.marks} <= {*found.obstacles}
    assert set(ranks(found).values()) == {(1, len(found.defenses))}
    text = markdown_text(found)
    assert all(label in text for label in dataset) and "### Differences" in text


def test_scores_that_are_no_shares_have_no_scale() -> None:
    found = compare({"run": run(*defended("a", LOW), *defended("b", HIGH))})
    assert pair_of(found, "a", "b").value is not None
    record = run(*defended("a", LOW), *defended("b", HIGH))
    cells = [
        c.model_copy(update={"classes": [s.model_copy(update={"value": -1e308}) for s in c.classes]})
        if c.defense == "b" and c.attack
        else c
        for c in record.cells
    ]
    assert not [
        pair
        for pair in compare({"run": record.model_copy(update={"cells": cells})}).pairs
        if pair.quantity == "leakage" and pair.value is not None
    ]


def test_a_defence_says_at_which_seeds_it_failed() -> None:
    broken = own("a", 1).model_copy(update={"status": "failed", "values": [], "reason": "it broke"})
    found = compare({"run": run(*defended("a", LOW), broken)})
    assert [one.failed for one in found.defenses] == [[1]]
    alone = compare({"run": run(broken, around=False)})
    assert [(one.label, one.failed, one.rank) for one in alone.defenses] == [("a", [1], None)]
