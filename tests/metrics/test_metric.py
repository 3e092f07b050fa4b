"""What metrics say of themselves: every built-in declaration is complete, and none contradicts itself."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from by_hand import declared

from leakbench import registry
from leakbench.contracts import Params
from leakbench.errors import PluginError
from leakbench.leakage import KINDS
from leakbench.metrics.metric import Counts, Declaration, IndexScale, Leaks, Metric, Unit
from leakbench.metrics.reconstructions import ImageMetric, ReconstructionMetric

every = pytest.mark.parametrize("name", registry.built_in("metric"))


@every
def test_a_declaration_is_complete(name: str) -> None:
    one = declared()[name]
    assert one.name == name
    for text in (one.title, one.meaning):
        assert text == text.strip() != ""
        assert text.isprintable()  # one line of it, too
    assert one.meaning.endswith((".", ")")) and one.meaning[0].isupper()
    assert one.version >= 1
    assert one.unit in get_args(Unit) and one.leaks in get_args(Leaks) and one.counts in get_args(Counts)
    assert one.scale in get_args(IndexScale) and one.per in ("class", "set")
    assert one.leakage in ("", *KINDS)


@every
def test_what_has_a_leakage_index_says_which_way_it_leaks(name: str) -> None:
    one = declared()[name]
    if one.scale:
        assert one.leaks and one.leakage


@every
def test_shares_of_images_are_shares_and_of_classes(name: str) -> None:
    one = declared()[name]
    if one.counts:
        assert (one.unit, one.per) == ("share", "class")
    if one.unit == "distance":
        assert one.leaks == "less"


@every
def test_what_measures_sets_of_images_is_of_their_kind_of_leak(name: str) -> None:
    plugin = registry.load("metric", name)
    one = declared()[name]
    if issubclass(plugin, ReconstructionMetric):
        assert one.leakage == "inversion"
    if issubclass(plugin, ImageMetric):
        assert one.per == "class"
    if one.scale == "anchors":
        assert issubclass(plugin, ReconstructionMetric)  # anchors are measured as reconstructions are


def test_brackets_are_declared_beside_what_stands_between_them() -> None:
    bracketed = [name for name, one in declared().items() if one.scale == "brackets"]
    assert bracketed == ["uap_fooling"]
    for end in ("random", "noise", "real"):
        other = declared()[f"uap_fooling_{end}"]
        assert (other.unit, other.leakage, other.scale) == ("share", "inversion", "")


def test_no_two_metrics_have_one_title() -> None:
    titles = [one.title for one in declared().values()]
    assert len(set(titles)) == len(titles)


def test_the_meaning_is_the_first_paragraph_in_one_line() -> None:
    class Own(Metric[Params]):
        """What it is,
        in two lines.

        And what nobody is shown.
        """

        name = "own"
        title = "Own"
        version = 3

    assert Own.declaration() == Declaration("own", "Own", "What it is, in two lines.", version=3)


@pytest.mark.parametrize(
    "wrong", [{"unit": "furlong"}, {"leaks": "lots"}, {"scale": "fish"}, {"counts": "sheep"}, {"per": "day"}]
)
def test_what_is_not_to_be_had_is_refused_in_one_line(wrong: dict[str, Any]) -> None:
    plugin: type[Metric[Any]] = type("Own", (Metric,), {"name": "own", **wrong})
    ((field, given),) = wrong.items()
    with pytest.raises(PluginError, match=rf"'own' has an invalid {field} '{given}': one of ") as caught:
        plugin.declaration()
    assert len(str(caught.value).splitlines()) == 1
