from __future__ import annotations

import math
from dataclasses import astuple

import pytest
from report_samples import anchor, calibration, cell, judged, plain, record, share, small

from leakbench.bench.records import CellRecord, Value
from leakbench.reports.flags import Flag, flags
from leakbench.reports.headline import Headline, headlines, succeeds
from leakbench.reports.summary import Group, groups


def group(*cells: CellRecord) -> Group:
    (only,) = groups(record(list(cells)))
    return only


def headline(*cells: CellRecord) -> Headline:
    (only,) = headlines(group(*cells))
    return only


def attacked(defense: str, successes: int, attack: str = "inversion", n: int = 100, seed: int = 0) -> CellRecord:
    control = defense in ("ann", "random")
    return cell(defense, attack, values=judged(successes, 50.0, n), control=control, seed=seed)


def words(found: Headline) -> str:
    return " ".join(str(part) for part in astuple(found))


def test_the_worst_attack_stands_beside_controls_and_noise() -> None:
    found = headline(
        attacked("privatesnn", 16, "direct"),
        attacked("privatesnn", 71, "inversion"),
        attacked("ann", 70, "inversion"),
        attacked("random", 10, "inversion"),
        *calibration(),
    )
    assert found.attack == "inversion"
    for part in (
        "Worst of 2 attacks: inversion.",
        ".71 [.61, .79] n=100",
        ".70 [.60, .78] n=100 on the unprotected ANN",
        ".10 [.06, .17] n=100 on an untrained network",
        ".10 [.06, .17] n=100 for noise images",
    ):
        assert part in found.lead
    assert found.chip == "above noise"
    assert "can't be told: their intervals overlap" in found.consequence
    assert [level.label for level in found.levels] == [
        "real images",
        "unprotected ANN",
        "privatesnn",
        "untrained network",
        "noise images",
    ]


def test_a_leak_below_the_anns_is_said_to_be_one() -> None:
    found = headline(attacked("d", 40), attacked("ann", 90), attacked("random", 10), *calibration())
    assert found.chip == "above noise" and "The unprotected ANN gives more" in found.consequence


def test_attacks_that_fail_on_the_ann_say_nothing() -> None:
    found = headline(attacked("d", 12), attacked("ann", 15), attacked("random", 10), *calibration())
    assert found.chip == "attacks too weak"
    assert "they say nothing about d" in found.consequence


def test_withstanding_proves_nothing_about_other_attacks() -> None:
    found = headline(attacked("d", 12), attacked("ann", 70), attacked("random", 10), *calibration())
    assert found.chip == "not told from noise"
    assert "withstood this attack proves nothing about others" in found.consequence


def test_what_an_untrained_network_gives_too_is_no_leak() -> None:
    found = headline(attacked("d", 62), attacked("ann", 64), attacked("random", 60), *calibration())
    assert found.chip == "inconclusive"


def test_one_attack_that_needs_a_trained_network_is_enough() -> None:
    cells = [attacked(name, 60, "prior") for name in ("d", "ann", "random")]
    cells += [attacked("d", 50, "inversion"), attacked("random", 10, "inversion")]
    found = headline(*cells, *calibration())
    assert found.attack == "prior" and found.chip == "above noise"
    assert found.consequence.startswith("The interval of inversion lies above")


def test_below_noise_is_no_overlap_and_no_leak() -> None:
    noise = anchor("noise", values=judged(60, 140.0))
    found = headline(attacked("d", 5), attacked("ann", 95), attacked("random", 60), noise)
    assert found.chip == "not told from noise" and "overlap" not in found.consequence


def test_a_second_attack_above_noise_counts_where_the_worst_has_too_few_images() -> None:
    found = headline(
        attacked("d", 2, "few", n=4),
        attacked("d", 45, "many"),
        attacked("ann", 70, "many"),
        attacked("random", 10, "many"),
        *calibration(),
    )
    assert found.attack == "few" and found.chip == "above noise"
    assert found.consequence.startswith("The interval of many lies above")
    assert found.caveats == ("Only 4 images: too few to tell much apart.",)


def test_without_noise_or_interval_nothing_is_concluded() -> None:
    assert headline(attacked("d", 71), attacked("ann", 70)).chip == "not calibrated"
    bare = [Value(metric="judge_accuracy", value=0.7, low=math.nan, high=math.nan, n=100)]
    found = headline(cell("d", "a", values=bare), attacked("ann", 70, "a"), *calibration())
    assert found.chip == "not calibrated"
    assert "No interval was recorded for this value." in found.caveats


def test_without_an_ann_a_low_value_says_nothing() -> None:
    assert headline(attacked("d", 10), *calibration()).chip == "no control"


def test_a_nan_is_never_the_worst_case() -> None:
    broken = cell("d", "b", values=[Value(metric="judge_accuracy", value=math.nan, n=100)])
    found = headline(broken, attacked("d", 30, "a"), attacked("ann", 70, "a"), *calibration())
    assert found.attack == "a"


def test_a_failed_defence_has_its_reason() -> None:
    found = headline(
        cell("d", status="failed", reason="NumericalError: NaN in fc1"),
        cell("d", "inversion", status="failed", reason="NumericalError: NaN in fc1"),
        *calibration(),
    )
    assert found.chip == "nothing measured" and found.levels == ()
    assert "NaN in fc1" in found.lead and found.remark == "No value from inversion (failed)."


def test_several_seeds_are_all_said() -> None:
    found = headline(
        attacked("d", 70, seed=0),
        attacked("d", 50, seed=1),
        attacked("ann", 70, seed=0),
        attacked("random", 10, seed=0),
        *calibration(),
    )
    assert ".60 (mean of 2 seeds: .70 [.60, .78] n=100; .50 [.40, .60] n=100)" in found.lead
    (mine,) = [level for level in found.levels if level.role == "defense"]
    assert mine.text == ".60 (2 seeds: .50 to .70, n=100 each)" and len(mine.marks) == 2


def test_one_seed_at_noise_level_is_no_clear_success() -> None:
    made = group(attacked("ann", 70, seed=0), attacked("ann", 12, seed=1), *calibration())
    assert succeeds(made, "ann", "inversion") is False


@pytest.mark.parametrize("successes", range(0, 101, 5))
@pytest.mark.parametrize("ann", [5, 15, 70])
def test_no_headline_gives_a_clean_bill(successes: int, ann: int) -> None:
    text = words(headline(attacked("d", successes), attacked("ann", ann), attacked("random", 10), *calibration()))
    assert not {"protected", "robust", "secure", "safe"} & set(text.lower().replace(",", " ").replace(".", " ").split())


# --- flags


def raised(cells: list[CellRecord], **given: object) -> list[Flag]:
    made = record(cells, **given)
    return flags(made, groups(made), [])


def titles(found: list[Flag]) -> str:
    return "\n".join(flag.title for flag in found)


def test_a_run_with_nothing_wrong_has_no_flag() -> None:
    assert raised(small().cells) == []


def test_what_failed_keeps_reason_and_traceback() -> None:
    cells = [*small().cells, cell("d", "a", status="failed", reason="boom", traceback="Traceback: boom")]
    (flag,) = raised(cells)
    assert flag.serious and flag.title == "1 cell failed"
    assert [astuple(item) for item in flag.items] == [("a on d", "boom", "Traceback: boom")]


def test_the_same_reason_is_said_once() -> None:
    cells = [cell(name, "a", status="not-applicable", reason="no batch norm") for name in ("d", "e")]
    (flag,) = raised([*small().cells, *cells])
    assert not flag.serious and flag.title == "2 cells not applicable"
    assert [astuple(item) for item in flag.items] == [("a on d, a on e", "no batch norm", "")]


def test_a_traceback_that_many_cells_share_is_shown_once() -> None:
    cells = [cell("d", a, status="failed", reason="boom", traceback="T") for a in ("", "a", "b")]
    cells.append(cell("d", "c", status="failed", reason="boom", traceback="another"))
    (flag,) = raised([*small().cells, *cells])
    assert flag.title == "4 cells failed"
    assert [item.where for item in flag.items] == ["d, a on d, b on d", "c on d"]


def test_an_anchor_that_is_nan_is_no_anchor() -> None:
    cells = [
        *small().cells[:-1],
        anchor("real", values=[Value(metric="judge_accuracy", value=math.nan, n=100)]),
    ]
    assert "No real anchor" in titles(raised(cells))


def test_an_interrupted_run_says_so_first() -> None:
    assert raised(small().cells, complete=False)[0].title == "Incomplete run"


def test_missing_controls_and_anchors_are_named() -> None:
    found = titles(raised([attacked("d", 71)]))
    for part in ("No noise anchor", "No real anchor", "No ann control", "No random control"):
        assert part in found


def test_few_images_are_flagged_and_thirty_are_not() -> None:
    def of(n: int) -> str:
        cells = [attacked(name, n // 2, n=n) for name in ("d", "ann")] + [attacked("random", 0, n=n)]
        return titles(raised([*cells, anchor("noise", values=judged(0, 9, n)), anchor("real", values=judged(n, 1, n))]))

    assert "Few images" in of(29) and "Few images" not in of(30)


def test_a_distance_at_another_n_than_its_anchor_is_flagged() -> None:
    cells = [*small().cells[:-1], anchor("real", values=judged(48, 9.0, n=50))]
    (flag,) = raised(cells)
    assert flag.title.startswith("Anchors at another n")
    assert ("inversion on privatesnn, Fréchet distance (cnn-a)", "n=100, real anchor n=50", "") in map(
        astuple, flag.items
    )


def test_an_attack_that_scores_on_an_untrained_network_is_flagged() -> None:
    found = raised([attacked("d", 62), attacked("ann", 64), attacked("random", 60), *calibration()])
    assert "1 attack clearly better than noise on an untrained network" in titles(found)


def test_warnings_are_shown_and_no_cells_is_a_flag() -> None:
    assert "1 warning" in titles(raised([*small().cells, cell("d", warnings=["artifact rebuilt"])]))
    assert titles(raised([])) == "No cells"
    assert "No cells" not in titles(raised([cell("d", values=[plain("seconds", 1), share("accuracy", 90)])]))
