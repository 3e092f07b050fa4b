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
