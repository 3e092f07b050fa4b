"""What attacks are called in a comparison."""

from __future__ import annotations

from compared_runs import attacked, own, run

from leakbench.bench.comparison import compare
from leakbench.records import CellRecord


def test_an_attack_that_did_not_run_on_one_defense_keeps_its_name() -> None:
    """What did not run does not know its public images."""
    photographs = {"public": "10,000 random crops of two photographs"}
    cells = [own("a"), attacked("a", (0.9,) * 10, **photographs)]
    missing = [
        one.model_copy(update={"status": "not-applicable", "values": [], "public": "", "votes": None})
        for one in (own("b"), attacked("b", (0.9,) * 10))
    ]
    assert set(compare({"x": run(*cells, *missing)}).attacks) == {"direct"}
    other = [own("c"), attacked("c", (0.9,) * 10, public="the other half of the classes")]
    assert len(compare({"x": run(*cells), "y": run(*other)}).attacks) == 2


def test_settings_that_differ_late_in_a_long_value_make_two_names() -> None:
    sources = [f"60,000 training images of {name}" for name in ("mnist", "fashion-mnist")]
    runs = {
        defense: run(own(defense), attacked(defense, (0.9,) * 10, public=source))
        for defense, source in zip("ab", sources, strict=True)
    }
    compared = compare(runs)
    assert set(compared.attacks) == {f"direct[public images={source}]" for source in sources}
    (pair,) = (one for one in compared.pairs if one.quantity == "leakage" and not one.attack)
    assert (pair.relation, pair.basis) == ("not tested", "no attack with the same settings was run on both")


def test_settings_that_differ_where_no_name_shows_them_are_numbered() -> None:
    runs = {
        defense: run(own(defense), attacked(defense, (0.9,) * 10, attack_params={"words": "x" * 200 + defense}))
        for defense in "abc"
    }
    name = f"direct[words={'x' * 79}…]"
    assert set(compare(runs).attacks) == {name, f"{name} #2", f"{name} #3"}


def varied(defense: str, label: str, steps: int) -> tuple[CellRecord, CellRecord]:
    """A defence and an attack on it that its run calls so."""
    return own(defense), attacked(defense, (0.9,) * 10, label, attack_name="direct", attack_params={"steps": steps})


def names(*cells: tuple[CellRecord, CellRecord]) -> set[str]:
    """Of the attacks of several runs, one of each defence."""
    return set(compare({str(number): run(*of_run) for number, of_run in enumerate(cells)}).attacks)


def test_an_attack_with_the_same_settings_is_the_same_whatever_its_runs_call_it() -> None:
    plain, sweep = varied("a", "direct", 40), varied("b", "direct[steps=40]", 40)
    compared = compare({"plain": run(*plain), "sweep": run(*sweep)})
    assert set(compared.attacks) == {"direct"}
    (pair,) = (one for one in compared.pairs if one.quantity == "leakage" and not one.attack)
    assert pair.relation != "not tested"
    assert {one.attack for one in compared.defenses} == {"direct"}


def test_an_attack_keeps_the_label_of_its_runs_where_it_has_one_of_its_own() -> None:
    swept = varied("a", "direct[steps=20]", 20), varied("b", "direct[steps=80]", 80)
    assert names(*swept) == {"direct[steps=20]", "direct[steps=80]"}
    assert names(swept[0]) == {"direct[steps=20]"}
    assert names(*swept, varied("c", "direct", 40)) == {"direct[steps=20]", "direct[steps=80]", "direct"}
    assert names(*swept, varied("c", "direct", 80)) == {"direct[steps=20]", "direct[steps=80]"}
    assert names(varied("a", "direct", 20), varied("b", "direct", 80)) == {"direct[steps=20]", "direct[steps=80]"}
