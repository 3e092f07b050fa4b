"""What attacks are called in a comparison."""

from __future__ import annotations

from compared_runs import attacked, own, run

from leakbench.bench.comparison import compare


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
    name = f"direct[words={'x' * 80}]"
    assert set(compare(runs).attacks) == {name, f"{name} #2", f"{name} #3"}
