"""Conditions of a gate: their grammar, and when they fail a defence."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from by_hand import cell, declared
from compared_runs import attacked, own, run, scored
from hypothesis import given
from hypothesis import strategies as st

from leakbench.bench.comparison import ComparedDefense, compare
from leakbench.bench.conditions import check_planned, failures, parse
from leakbench.bench.grid import make_config
from leakbench.bench.plan import plan
from leakbench.errors import UsageError
from leakbench.leakage.membership.verdict import conclude
from leakbench.records import CellRecord, RunRecord, Value

HIGH = [0.9, 0.8, 0.9, 1.0, 0.8, 0.9, 0.7, 0.9, 1.0, 0.8]
LOW = [0.3, 0.4, 0.2, 0.5, 0.3, 0.2, 0.4, 0.3, 0.5, 0.4]


def defenses() -> list[ComparedDefense]:
    """One that leaks much to who has the weights and little to who has scores."""
    return compare({"run": run(own("a"), attacked("a", HIGH), attacked("a", LOW, "extraction"))}).defenses


def why(text: str, given: list[ComparedDefense] | None = None) -> list[str]:
    return [failure.why for failure in failures([parse(text)], defenses() if given is None else given)]


@pytest.mark.parametrize(
    ("text", "value", "sign", "number"),
    [
        ("classes.weights.high > 0.2", ("classes", "weights", "high"), ">", 0.2),
        ("  leakage>=.5 ", ("leakage",), ">=", 0.5),
        ("energy_ratio_int32 < 1", ("energy_ratio_int32",), "<", 1),
        ("accuracy_drop.high<=2e-2", ("accuracy_drop", "high"), "<=", 0.02),
    ],
)
def test_grammar(text: str, value: tuple[str, ...], sign: str, number: float) -> None:
    found = parse(text)
    assert (found.value, found.sign, found.number, found.text) == (value, sign, number, text.strip())


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "give VALUE > NUMBER"),
        ("leakage", "give VALUE > NUMBER"),
        ("leakage > 1 > 2", "give VALUE > NUMBER"),
        ("leakage > x", "give VALUE > NUMBER"),
        ("leakage > nan", "give VALUE > NUMBER"),
        ("leakage > 1; import os", "give VALUE > NUMBER"),
        ("__import__('os').getcwd() > 1", "give VALUE > NUMBER"),
        ("leakage > ١", "give VALUE > NUMBER"),
        ("leakage > 1\nleakage > 2", "give VALUE > NUMBER"),
        ("leakage == 1", "give VALUE > NUMBER"),
        ("leakage > 1e999", "the number is too large"),
        ("leakage > 20", "leakage is a share, 1 at most"),
        ("accuracy_drop.high > 2", "accuracy_drop is a share, 1 at most"),
        ("leakage.high > 1", "leave out .high"),
        ("leakege > 1", "did you mean 'leakage'"),
        ("__class__ > 1", "give VALUE > NUMBER"),
        ("classes > 1", "give classes.ACCESS.END"),
        ("classes.weights > 1", "give classes.ACCESS.END"),
        ("members.weights > 1", "give members.ACCESS.END"),
        ("classes.root.high > 1", "ACCESS one of labels, scores, weights"),
        ("classes.weights.p > 1", "END one of low, value, high"),
        ("accuracy.middle > 1", "give accuracy or accuracy.END"),
    ],
)
def test_anything_else_is_refused_in_one_line(text: str, wrong: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(text)
    assert wrong in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("attack", "text", "missing"),
    [
        ("direct", "classes.labels.high > .2", "no attack on classes with LABELS"),
        ("direct", "members.weights.high > .2", "no attack on members with WEIGHTS"),
        ("rmia", "classes.scores.high > .2", "no attack on classes with SCORES"),
        ("none", "leakage > .2", "no attack"),
        ("direct", "classes.weights.high > .2", ""),
        ("rmia", "members.scores.high > .2", ""),
        ("rmia", "leakage > .2", ""),
        ("none", "accuracy_drop > .02", ""),
    ],
)
def test_what_no_attack_of_a_run_can_tell_is_refused_before_it(attack: str, text: str, missing: str) -> None:
    cells = plan(make_config({"defense": "han2020", "attack": attack}))
    if not missing:
        check_planned([parse(text)], cells)
        return
    with pytest.raises(UsageError) as error:
        check_planned([parse(text)], cells)
    assert str(error.value) == f"--fail-if {text!r}: {missing} is in this run: add one with --attack"


@pytest.mark.slow
@given(st.text())
def test_no_text_is_ever_more_than_refused(text: str) -> None:
    try:
        parse(text)
    except UsageError as error:
        assert "\n" not in str(error)


@pytest.mark.slow
def test_access_takes_the_worst_attack_that_needs_no_more() -> None:
    assert why("classes.scores.value > 0.9") == []
    assert why("classes.weights.value > 0.9") == ["classes.weights.value is 0.9625 by direct"]
    # who has the weights can ask for scores as well
    scores = compare({"run": run(own("a"), attacked("a", LOW), attacked("a", HIGH, "extraction"))}).defenses
    assert why("classes.weights.value > 0.9", scores) == ["classes.weights.value is 0.9625 by extraction"]


@pytest.mark.slow
def test_ends_are_those_of_the_interval() -> None:
    index = next(one.index for one in defenses()[0].attacks if one.attack == "direct")
    assert index is not None and index.low is not None and index.high is not None
    between = (index.low + 0.9625) / 2
    assert why(f"classes.weights.low > {between}") == []
    assert why(f"classes.weights.value > {between}") and why(f"classes.weights.high > {between}")


def test_a_lower_limit_allows_for_the_choice_of_the_attack() -> None:
    attacks = [attacked("a", [one - 0.01 * number for one in HIGH], name)
               for number, name in enumerate(["direct", *(f"other{number}" for number in range(9))])]  # fmt: skip
    (defense,) = compare({"run": run(own("a"), *attacks)}).defenses
    assert defense.index is not None and defense.index.low is not None
    alone = max(one.index.low or 0 for one in defense.attacks if one.index)
    assert defense.index.low < alone
    assert why(f"classes.weights.low > {(defense.index.low + alone) / 2}", [defense]) == []
    assert why(f"classes.weights.low > {defense.index.low - 0.001}", [defense])


def test_plain_leakage_is_the_highest_upper_limit() -> None:
    given = compare({"run": run(own("a"), attacked("a", LOW), attacked("a", LOW, "label_only"))}).defenses
    high = max(one.index.high or 0 for one in given[0].attacks if one.index)
    assert high < 0.9
    assert why(f"leakage > {high + 1e-6}", given) == []
    assert why(f"leakage > {high - 1e-6}", given)[0].startswith(f"leakage is {high:.4g} by ")


def with_members(record: RunRecord, *cells: CellRecord) -> list[ComparedDefense]:
    """The defences of a run that attacks after members were part of, with their controls."""
    every = [scored("overfitted", 0.8, 1e-6), scored("random", 0.5, 0.5), scored("unseen", 0.5, 0.5), *cells]
    evidence = conclude(every, declared())
    together = {
        "cells": [*record.cells, *every],
        "rows": [*record.rows, *evidence.rows],
        "verdicts": [*record.verdicts, *evidence.verdicts],
    }
    return compare({"run": record.model_copy(update=together)}).defenses


def test_leakage_is_over_members_too() -> None:
    alone, low = run(own("a")), run(own("a"), attacked("a", LOW))
    for record in (alone, low):
        (found,) = with_members(record, scored("a", 0.9, 1e-9))
        assert found.other_leakage[0].outcome == "leaks"
        assert why("leakage > 0.85", [found]) == ["leakage is 0.86 by loss_threshold"]
        assert why("leakage > 0.87", [found]) == []
    # each kind's attacks have an index of their own
    assert [attack.index.metric for attack in found.attacks if attack.index] == ["judge_accuracy"]


def test_members_have_a_condition_of_their_own() -> None:
    found = with_members(run(own("a"), attacked("a", LOW)), scored("a", 0.9, 1e-9))
    assert why("members.scores.value > 0.7", found) == ["members.scores.value is 0.8 by loss_threshold"]
    assert why("members.scores.value > 0.85", found) == []
    assert why("members.weights.high > 0.9", found) == ["can't be checked: no valid attack with WEIGHTS was run"]
    assert why("members.scores.high > 1") == ["can't be checked: no attack on members was run on it"]
    assert why("classes.scores.high > 1", with_members(run(own("a")), scored("a", 0.9, 1e-9))) == [
        "can't be checked: no attack on classes was run on it"
    ]


def test_members_of_which_nothing_was_found_are_checked_by_the_interval() -> None:
    """Their verdict is inconclusive, and never better."""
    found = with_members(run(own("a"), attacked("a", LOW)), scored("a", 0.51, 0.4))
    assert found[0].other_leakage[0].outcome == "inconclusive"
    assert why("members.scores.high > 0.1", found) == []
    assert why("members.scores.high > 0.05", found) == ["members.scores.high is 0.08 by loss_threshold"]


def test_an_invalid_attack_after_members_that_shows_more_leaves_a_condition_unchecked() -> None:
    strong = scored("a", 0.9, 1e-30, halves=0.75, attack="loss_threshold (2)")
    found = with_members(run(own("a"), attacked("a", LOW)), scored("a", 0.51, 0.4), strong)
    (told,) = why("members.scores.high > 0.2", found)
    assert told.startswith("can't be checked: loss_threshold (2) is invalid (M3: ") and told.endswith(
        "its index has high 0.86"
    )
    assert why("members.scores.high > 0.9", found) == []
    assert why("members.scores.high > 0.05", found) == ["members.scores.high is 0.08 by loss_threshold"]


def test_single_members_among_few_others_leave_a_condition_unchecked() -> None:
    few = scored("a", 0.53, 0.1)
    few = few.model_copy(update={"values": [*few.values, Value(metric="membership_tail_p", value=1e-9, n=80)]})
    found = with_members(run(own("a"), attacked("a", LOW)), few)
    assert why("members.scores.high > 0.9", found) == ["can't be checked: loss_threshold has no high"]
    invalid = few.model_copy(update={"attack": "loss_threshold (2)", "values": [*few.values]})
    halves = next(one for one in invalid.values if one.metric == "members_against_members_auc")
    invalid.values[invalid.values.index(halves)] = halves.model_copy(update={"value": 0.75})
    (told,) = why("members.scores.high > 0.9", with_members(run(own("a")), scored("a", 0.5, 0.5), invalid))
    assert told.endswith("and its index has no high")


def test_members_of_a_network_that_does_not_count_leave_a_condition_unchecked() -> None:
    made = [own("a").model_copy(update={"seed": seed, "artifacts": {"ann": "given"}}) for seed in (0, 1)]
    each = scored("a", 0.51, 0.4), scored("a", 0.9, 1e-9, seed=1)
    found = with_members(run(attacked("a", LOW)), *made, *each)
    (told,) = why("members.scores.high > 0.9", found)
    assert told.startswith("can't be checked: ") and "leak by themselves: seed 1" in told


def test_single_members_that_are_given_away_count_where_the_average_is_chance() -> None:
    given = {"membership_auc": (0.5, 0.47, 0.53), "membership_p": 0.5, "members_against_members_auc": (0.5, 0.46, 0.54)}
    given |= {"membership_tpr_at_1pct_fpr": (0.3, 0.25, 0.35), "membership_tail_p": 1e-9}
    few = cell("a", "loss_threshold", overall=given, leakage="membership", defense_name="a")
    found = with_members(run(own("a"), attacked("a", LOW)), few)
    assert found[0].other_leakage[0].outcome == "leaks"
    assert why("members.scores.high > 0.2", found) == ["members.scores.high is 0.3434 by loss_threshold"]
    # of either end the higher one, whichever index it is of
    given |= {"membership_auc": (0.65, 0.64, 0.66), "membership_p": 1e-9}
    given |= {"membership_tpr_at_1pct_fpr": (0.1, 0.01, 0.5)}
    few = cell("a", "loss_threshold", overall=given, leakage="membership", defense_name="a")
    found = with_members(run(own("a"), attacked("a", LOW)), few)
    assert why("members.scores.low > 0.2", found) == ["members.scores.low is 0.28 by loss_threshold"]
    assert why("members.scores.high > 0.4", found) == ["members.scores.high is 0.4949 by loss_threshold"]


def test_members_are_not_checked_without_controls() -> None:
    record, bare = run(own("a"), attacked("a", LOW)), scored("a", 0.51, 0.4)
    evidence = conclude([bare], declared())
    together = {
        "cells": [*record.cells, bare],
        "rows": [*record.rows, *evidence.rows],
        "verdicts": [*record.verdicts, *evidence.verdicts],
    }
    found = compare({"run": record.model_copy(update=together)}).defenses
    unchecked = "can't be checked: M1, M2, M5 could not be checked by its controls"
    assert why("members.scores.high > 1", found) == [unchecked]

    # an attack that can't be run on the controls, as on what a defence synthesised, is no such case
    def declined(*names: str, dataset: str = "digits", more: Sequence[CellRecord] = ()) -> list[str]:
        same = {"leakage": "membership", "control": True, "status": "not-applicable", "dataset": dataset}
        controls = [cell(name, "loss_threshold", defense_name=name, **same) for name in names]
        with_them = record.model_copy(update={**together, "cells": [*together["cells"], *controls, *more]})
        return why(
            "members.scores.high > 1", [one for one in compare({"run": with_them}).defenses if one.defense == "a"]
        )

    assert declined("overfitted", "random", "unseen") == []
    # on every network: another one failed there
    failed = cell("unseen", "loss_threshold", defense_name="unseen", seed=1,
                  leakage="membership", control=True, status="failed", reason="it broke")  # fmt: skip
    assert declined("overfitted", "random", "unseen", more=[failed]) == [unchecked.replace("M1, M2, ", "")]
    # of each gate its own control says so, on the same data
    assert declined("unseen") == [unchecked.replace(", M5", "")]
    assert declined("unseen", dataset="fashion-mnist") == [unchecked]


def test_classes_of_which_nothing_is_seen_are_not_checked_without_controls() -> None:
    """Decoys may hide them, and nobody knows whether the attack works anywhere."""
    nothing = [0.1] * 10
    with_controls = run(own("a"), attacked("a", LOW))
    assert why("classes.weights.high > 1", compare({"run": with_controls}).defenses) == []
    without = run(own("a"), attacked("a", nothing), around=False)
    (found,) = why("classes.weights.high > 1", compare({"run": without}).defenses)
    assert found.startswith("can't be checked: ")
    # nor where another attack finds something
    judge = {"judge a": "judge"}
    ends = [cell("", name, {"judge_accuracy": x}, artifacts=judge) for name, x in (("noise", 0.1), ("real", 0.9))]
    without = run(own("a"), attacked("a", [0.6] * 10), attacked("a", nothing, "extraction"), *ends, around=False)
    (found,) = why("classes.weights.high > 1", compare({"run": without}).defenses)
    assert found == "can't be checked: G1, G2, G7 could not be checked by its controls"


def test_members_that_no_valid_attack_was_after_fail() -> None:
    broken = scored("a", 0.5, 0.5).model_copy(update={"status": "failed", "values": [], "reason": "it broke"})
    low = run(own("a"), attacked("a", LOW))
    for text in ("members.scores.high > 1", "leakage > 1"):
        assert why(text, with_members(low, broken)) == ["can't be checked: loss_threshold failed"]
    untrained = [scored("random", 0.7, 1e-9, seed=seed) for seed in (1, 2)]
    invalid = with_members(low, scored("a", 0.7, 1e-5), *untrained)
    assert why("leakage > 1", invalid) == ["can't be checked: no attack on members is valid"]


@pytest.mark.slow
def test_values_of_the_defence() -> None:
    assert why("accuracy_drop > 0.005") == ["accuracy_drop is 0.01"]
    assert why("accuracy_drop > 0.02") == []
    assert why("accuracy_drop.high > 0.02")
    assert why("energy_ratio_int32 < 1") == [] and why("energy_ratio_int32 < 30")


@pytest.mark.slow
def test_what_is_missing_fails() -> None:
    assert why("classes.labels.high > 0.2") == ["can't be checked: no valid attack with LABELS was run"]
    assert why("energy_ratio_memory < 1") == ["can't be checked: energy_ratio_memory has no value"]
    assert why("energy_ratio_int32.high < 1") == ["can't be checked: energy_ratio_int32.high has no value"]
    alone = compare({"run": run(own("a"))}).defenses
    assert why("leakage > 0.2", alone) == ["can't be checked: no attack on classes was run on it"]
    assert why("leakage > 0.2", []) == ["there is no defence to check"]


def test_what_is_inconclusive_fails_leakage_and_nothing_else() -> None:
    found = compare({"run": run(own("a"), attacked("a", [0.1] * 10, confidence=0.1))}).defenses
    assert found[0].outcome == "inconclusive"
    assert why("leakage > 0.99", found)[0].startswith("can't be checked: ")
    assert why("accuracy < 0.5", found) == []


def test_an_attack_that_failed_fails_its_access_and_those_above() -> None:
    broken = attacked("a", LOW, "extraction").model_copy(
        update={"status": "failed", "values": [], "classes": [], "reason": "it broke"}
    )
    label = attacked("a", LOW, "label_only")
    found = compare({"run": run(own("a"), attacked("a", HIGH), broken, label)}).defenses
    assert why("classes.weights.high > 1", found) == ["can't be checked: extraction failed"]
    assert why("leakage > 1", found) == ["can't be checked: extraction failed"]
    assert why("classes.labels.high > 1", found) == []


def test_an_attack_that_found_nothing_to_go_by_fails_a_defence_that_another_attack_leaks_from() -> None:
    nothing = attacked("a", LOW, "extraction").model_copy(
        update={"status": "no-signal", "values": [], "classes": [], "reason": "its gradients are 0"}
    )
    found = compare({"run": run(own("a"), attacked("a", HIGH), nothing)}).defenses
    assert found[0].outcome == "leaks"
    assert why("leakage > 1", found) == ["can't be checked: extraction got no signal"]


def test_a_valid_attack_without_the_value_fails_whatever_the_others_have() -> None:
    found = defenses()[0]
    bare = [
        one.model_copy(update={"limited": [index.model_copy(update={"high": None}) for index in one.limited]})
        if one.attack == "extraction"
        else one
        for one in found.attacks
    ]
    assert why("leakage > 1", [found.model_copy(update={"attacks": bare})]) == [
        "can't be checked: extraction has no high"
    ]


@pytest.mark.parametrize("access", ["", "BOGUS"])
def test_an_attack_whose_access_no_record_says_counts_as_the_strongest(access: str) -> None:
    found = defenses()[0]
    other = [one.model_copy(update={"access": access}) for one in found.attacks]
    assert len(why("leakage > 0.1", [found.model_copy(update={"attacks": other})])) == 1


def test_a_defence_that_failed_at_a_seed_fails_every_condition() -> None:
    broken = own("a", 1).model_copy(update={"status": "failed", "values": [], "reason": "it broke"})
    found = compare({"run": run(own("a"), attacked("a", LOW), broken)}).defenses
    for text in ("accuracy < 0", "leakage > 1", "classes.weights.high > 1"):
        assert why(text, found) == ["can't be checked: it failed at seed 1"]


@pytest.mark.parametrize("named", ["{}", "{}[preset=quick]"])
def test_other_attacks_leave_nothing_unchecked_beside_the_recommended_however_they_are_labelled(named: str) -> None:
    """As where runs of two presets are compared, whose attacks have their settings in their labels."""
    attacks = [attacked("a", LOW, name) for name in ("auto-v2", "direct")]
    (defense,) = compare({"run": run(own("a"), *attacks)}).defenses
    quiet = [
        one.model_copy(update={
            "attack": named.format(one.attack), "leaks": False, "unchecked": ["G2"] if one.plugin == "direct" else [],
        })
        for one in defense.attacks
    ]  # fmt: skip
    for tried, unchecked in ((quiet, 0), (quiet[1:], 1)):
        found = why("classes.weights.high > 1", [defense.model_copy(update={"attacks": tried})])
        assert found == ["can't be checked: G2 could not be checked by its controls"] * unchecked
