"""Kinds of leak: how their names are looked up, what a cell's measurements become, and an index in few letters."""

from __future__ import annotations

import math

import pytest
from grids_by_hand import BASE, attacked, concluded, controls, rows

from leakbench import registry
from leakbench.errors import NumericalError, PluginError
from leakbench.leakage import KINDS, compared_kind, leakage_kind, leakage_kinds
from leakbench.leakage.controls import ROLES
from leakbench.leakage.inversion.kind import Inversion
from leakbench.leakage.kind import Evidence, LeakageKind, Measured, counted, index_line
from leakbench.metrics.estimate import Estimate
from leakbench.metrics.metric import Measurement
from leakbench.records import ClassScore, Index, Value
from leakbench.reports.html import SECTIONS


def test_the_kind_of_class_inversion() -> None:
    kind = leakage_kind("inversion")
    assert (kind.name, kind.headline, kind.anchors) == ("inversion", "open_set_accuracy", ("noise", "real"))
    assert tuple(kind.controls) == ("ann", "han2020", "random")


@pytest.mark.parametrize("kind", leakage_kinds(), ids=lambda kind: kind.name)
def test_a_kind_says_what_others_ask_of_it(kind: LeakageKind) -> None:
    assert leakage_kind(kind.name).title == kind.title
    assert kind.headline in registry.built_in("metric") and set(kind.controls) <= set(registry.built_in("defense"))
    assert any(kind.controls.values()) and set(kind.controls) <= set(ROLES)
    names = [gate.name for gate in kind.gates]
    assert len(set(names)) == len(names) > 0 and any(gate.voids_leaks for gate in kind.gates)
    assert set(kind.sections) <= {section.id for section in SECTIONS}


def test_one_kind_is_the_default_and_one_is_compared() -> None:
    kinds = leakage_kinds()
    assert [kind.name for kind in kinds] == list(KINDS)
    assert [kind.name for kind in kinds if kind.by_default] == ["inversion"]
    assert compared_kind().name == "inversion"
    sections = [section for kind in kinds for section in kind.sections]
    assert len(set(sections)) == len(sections)


def test_a_rows_gates_are_those_of_its_kind() -> None:
    grid = [*BASE, *controls(), attacked("mine", "inversion")]
    for row in concluded(grid).rows:
        assert [gate.name for gate in row.gates] == [gate.name for gate in Inversion.gates if gate.of_row]


def test_an_unknown_kind_is_one_line_that_names_those_there_are() -> None:
    with pytest.raises(PluginError, match=r"'colour'.*inversion, membership") as caught:
        leakage_kind("colour")
    assert len(str(caught.value).splitlines()) == 1


def test_a_measurement_is_kept_with_its_classes() -> None:
    found = Measured()
    found.add("mine", Measurement(Estimate(0.5, 0.4, 0.6, 20), {3: Estimate(0.25, n=10)}))
    assert found.values == [Value(metric="mine", value=0.5, low=0.4, high=0.6, n=20)]
    assert found.classes == [ClassScore(metric="mine", target=3, value=0.25, n=10)]
    other = Measured([counted("queries", 7)], [], ["daa: not measured: mine"])
    found.extend(other)
    assert [one.metric for one in found.values] == ["mine", "queries"]
    assert found.refused == ["daa: not measured: mine"]


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_what_is_no_number_is_not_kept(value: float) -> None:
    found = Measured()
    with pytest.raises(NumericalError, match=r"^mine came out as"):
        found.add("mine", Measurement(Estimate(value)))
    with pytest.raises(NumericalError, match=r"^mine came out as"):
        found.add("mine", Measurement(Estimate(0.5), {0: Estimate(value)}))


def test_what_follows_of_several_kinds_is_put_together() -> None:
    one, other = concluded([*BASE, *controls(), attacked("mine", "inversion")]), concluded([*rows("other")])
    both = one.extended(other).extended(one)
    assert (both.scales, both.verdicts) == (one.scales * 2, one.verdicts * 2)
    assert both.rows == one.rows + other.rows + one.rows
    assert Evidence().extended(one) == one


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (0.71, 0.61, 0.79, ".71 [.61, .79]"),
        (0.0, 0.0, 0.052, ".00 [.00, .05]"),
        (1.0, 0.994, 1.0, "1.00 [.99, 1.00]"),
        (0.996, 0.0, 1.0, "1.00 [.00, 1.00]"),
        (0.5, None, None, ".50"),
        (None, None, None, "without a scale"),
    ],
)
def test_an_index_is_shown_in_few_letters(
    value: float | None, low: float | None, high: float | None, text: str
) -> None:
    assert index_line(Index(metric="judge_accuracy", value=value, low=low, high=high)) == text
