from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from by_hand import declared
from report_page import HOSTILE, page
from report_samples import cell, index, judged, plain, record, row, share, verdict, write
from suite_samples import alone, paper_suite

from leakbench import registry
from leakbench.metrics.energy import ENERGY_RATIOS, PAPER_RATIO
from leakbench.metrics.estimate import mean
from leakbench.records import CellRecord, RunRecord, Value
from leakbench.reports import write_report
from leakbench.reports.curves import curves
from leakbench.reports.paper import BY_AUTHORS, beside, printed_for, unlike_paper
from leakbench.reports.suite import METHODS, Suite, SuiteTable, suite
from leakbench.reports.suite_columns import difference_of
from leakbench.reports.summary import groups
from leakbench.reports.tables import csv_text, latex_text, markdown_text

pytestmark = pytest.mark.slow

SUITE = {"suite": "paper"}


def laid_out(made: RunRecord) -> Suite:
    (group,) = groups(made)
    found = suite(made, group, curves(group))
    assert found is not None
    return found


def of(cells: list[CellRecord], **given: Any) -> Suite:
    return laid_out(record(cells, **({"grid": SUITE} | given)))


def table(found: Suite, number: int) -> SuiteTable:
    (only,) = (one for one in found.tables if one.title.startswith(f"Table {number}: "))
    return only


def rows(one: SuiteTable) -> dict[str, dict[str, str]]:
    """label -> column -> text; of a row without cells its reason in a column of its own."""
    return {
        row.label: dict(zip(one.columns, (c.text for c in row.cells), strict=True))
        if row.cells
        else {"": row.why_empty}
        for block in one.blocks
        for row in block.rows
    }


# --- when there are tables


@pytest.mark.parametrize("grid", [{}, {"suite": None}, {"suite": "other"}, {"suite": ["paper"]}])
def test_any_other_run_has_none(grid: dict[str, Any], tmp_path: Path) -> None:
    made = paper_suite().model_copy(update={"grid": grid})
    (group,) = groups(made)
    assert suite(made, group, []) is None
    found = page(made, tmp_path)
    assert "suite" not in {a.get("id") for _, a in found.tags} and "Table 1: " not in markdown_text(made)


def test_the_tables_stand_right_after_the_verdicts(tmp_path: Path) -> None:
    found = page(paper_suite(), tmp_path)
    order = [a["id"] for tag, a in found.tags if tag == "section"]
    assert order[:3] == ["verdicts", "suite", "flags"]
    assert ("a", {"href": "#suite"}) in found.tags
    start = found.text.index("What this run measured")
    places = [found.text.index(f"Table {number}: ", start) for number in range(1, 6)]
    assert places == sorted(places)


# --- Table 1


def test_table_1_has_the_papers_kinds_of_methods_and_its_marks() -> None:
    one = table(laid_out(paper_suite()), 1)
    assert [block.title for block in one.blocks] == [title for title, names in METHODS if names != ("dpsgd",)]
    marks = {label: texts.get("Paper: leakage addressed", "") for label, texts in rows(one).items()}
    assert marks == {
        "zskd": "data ✓, class ✗",
        "knowledge_within": "",
        "sengupta2019": "data ✗, class ✗",
        "han2020": "data ✗, class ✗",
        "tdbn": "data ✗, class ✓",
        "datafree": "–",  # the paper's Table 1 does not have it
        "privatesnn": "data ✓, class ✓",
    }
    assert [row.named for block in one.blocks[:1] for row in block.rows] == [
        "Nayak et al. (2019)",
        "Haroush et al. (2020)",
    ]


def test_table_1_has_what_was_read_and_the_worst_case() -> None:
    found = rows(table(laid_out(paper_suite()), 1))
    assert found["sengupta2019"]["Training images read"] == "512 of 1,437"
    assert found["sengupta2019"]["Worst-case class leakage"] == ".69 [.59, .79] n=10; by inversion"
    assert found["sengupta2019"]["Verdict"] == "leaks"
    # no index: the outcome's word alone
    assert (found["tdbn"]["Worst-case class leakage"], found["tdbn"]["Verdict"]) == ("–", "inconclusive")


def test_of_a_leak_that_attacks_saw_in_part_how_much_is_open() -> None:
    made = paper_suite()
    doubted = [one.model_copy(update={"comparable": False}) for one in made.verdicts]
    found = rows(table(laid_out(made.model_copy(update={"verdicts": doubted})), 1))
    assert found["sengupta2019"]["Verdict"] == "leaks; how much is open" and found["tdbn"]["Verdict"] == "inconclusive"


def test_table_1_has_both_leaks_where_both_were_measured() -> None:
    whole = paper_suite()
    found = verdict("sengupta2019", "leaks", "lira", index=index(0.2))
    unknown = verdict("tdbn", "inconclusive", "", index=None)
    on_members = [one.model_copy(update={"leakage": "membership"}) for one in (found, unknown)]
    made = whole.model_copy(update={"grid": {"suite": "privacy"}, "verdicts": [*whole.verdicts, *on_members]})
    laid = laid_out(made)
    assert [one.title for one in laid.tables] == ["Table 1: data and class leakage"]
    texts = rows(table(laid, 1))
    assert texts["sengupta2019"]["Worst-case member leakage"] == ".20 [.10, .30] n=10; by lira"
    assert texts["sengupta2019"]["Worst-case class leakage"] == ".69 [.59, .79] n=10; by inversion"
    assert texts["sengupta2019"]["Verdict on members"] == "leaks"
    assert (texts["tdbn"]["Worst-case member leakage"], texts["tdbn"]["Verdict on members"]) == ("–", "inconclusive")
    assert texts["han2020"]["Verdict on members"] == "–"
    assert "Verdict on members" not in rows(table(laid_out(whole), 1))["sengupta2019"]


def test_what_does_not_apply_says_why_in_its_row() -> None:
    for number in (1, 2):
        assert rows(table(laid_out(paper_suite(3)), number))["knowledge_within"] == {
            "": "not applicable: the network has no batch norm"
        }


def test_what_failed_says_so_and_one_seed_that_worked_is_enough() -> None:
    bad = [cell("stbp", seed=seed, status="failed", reason="boom") for seed in (0, 1)]
    assert rows(table(of(bad), 1)) == {"stbp": {"": "failed: boom"}}
    found = rows(table(of([bad[0], *(c.model_copy(update={"seed": 1}) for c in alone("stbp", 0.9, 8))]), 2))
    assert found["stbp"]["Accuracy"] == ".90 [.86, .93] n=360"


def test_a_control_has_an_index_and_no_verdict() -> None:
    cells = [*alone("han2020", 0.9, 8, control=True), cell("han2020", "a", control=True, values=judged(50, 60.0))]
    found = rows(table(of(cells, rows=[row("han2020", "a", index(0.4), control=True)]), 1))
    assert found["han2020"]["Worst-case class leakage"].endswith("; by a") and found["han2020"]["Verdict"] == "control"


def test_a_sweep_has_no_rows_of_its_own_where_something_was_attacked() -> None:
    found = laid_out(paper_suite())
    assert not [label for one in found.tables for label in rows(one) if "T=" in label or "samples=" in label]


def test_a_run_without_attacks_has_the_tables_that_it_can_have(tmp_path: Path) -> None:
    whole = paper_suite(3)
    made = record([c for c in whole.cells if not c.attack], grid=SUITE)
    found = laid_out(made)
    assert [one.title.partition(":")[0] for one in found.tables] == ["Table 1", "Table 2", "Table 3", "Table 5"]
    assert {texts["Verdict"] for texts in rows(table(found, 1)).values() if "" not in texts} == {"not attacked"}
    assert "Nothing was attacked" in page(made, tmp_path).text


# --- Tables 2 and 3


def test_table_2_has_every_method_beside_the_ann() -> None:
    found = rows(table(laid_out(paper_suite()), 2))
    assert list(found)[:3] == ["ann", "zskd", "knowledge_within"] and "random" not in found
    assert "privatesnn[od=False]" not in found  # of Table 3
    assert found["ann"] == {
        "Training images read": "0 of 1,437",
        "T": "1",
        "Accuracy": ".97 [.95, .98] n=360",
        "ANN accuracy": ".97 [.95, .98] n=360",
        "Difference to the ANN": "–",
    }
    assert (found["sengupta2019"]["T"], found["zskd"]["T"]) == ("64", "1")
    assert found["zskd"]["Difference to the ANN"] == "-.04 [-.08, -.01] n=360"


def test_the_difference_has_newcombes_interval() -> None:
    # Newcombe (1998), Statistics in Medicine 17, Table II: 56/70 - 48/80, method 10
    value = difference_of(share("accuracy", 56, 70), share("accuracy", 48, 80))
    assert (value.value, value.low, value.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    bare = difference_of(Value(metric="accuracy", value=0.8), Value(metric="accuracy", value=0.6))
    assert math.isnan(bare.low) and math.isnan(bare.high)


def test_the_difference_over_seeds_is_of_pairs() -> None:
    # both fall by as much from seed to seed: the difference hardly moves
    def seed(number: int, own: int, ann: int) -> CellRecord:
        return cell("stbp", seed=number, values=[share("accuracy", own), share("ann_accuracy", ann)])

    expected = mean([-0.1, -0.1, -0.11])
    found = rows(table(of([seed(0, 80, 90), seed(1, 50, 60), seed(2, 30, 41)]), 2))["stbp"]
    assert found["Difference to the ANN"] == f"-.10 [{expected.low:.2f}, {expected.high:.2f}] n=3 seeds".replace(
        "-0.", "-."
    )
    assert found["Accuracy"].endswith("n=3 seeds")
    # networks that differ by the same say nothing of how others do: the interval of one
    low, high = (
        np.mean([getattr(difference_of(share("x", a), share("x", a + 10)), end) for a in (80, 50)])
        for end in ("low", "high")
    )
    found = rows(table(of([seed(0, 80, 90), seed(1, 50, 60)]), 2))["stbp"]
    assert found["Difference to the ANN"] == f"-.10 [{low:.2f}, {high:.2f}] n=2 seeds".replace("0.", ".")


@pytest.mark.parametrize(
    "values", [[], [share("accuracy", 90)], [share("accuracy", 90), plain("ann_accuracy", float("nan"))]]
)
def test_without_both_accuracies_there_is_no_difference(values: list[Value]) -> None:
    assert rows(table(of([cell("stbp", values=values)]), 2))["stbp"]["Difference to the ANN"] == "–"


def test_table_3_is_the_three_steps_at_the_same_setting() -> None:
    made = paper_suite()
    one = table(laid_out(made), 3)
    (block,) = one.blocks
    assert [(row.label, row.named) for row in block.rows] == [
        ("datafree", "DC"),
        ("privatesnn[od=False]", "DC + CET"),
        ("privatesnn", "DC + CET + OD"),
    ]
    found = rows(one)
    assert [texts["Trained on synthetic"] for texts in found.values()] == ["–", "2,000", "2,000"]
    assert [texts["Paper: leakage addressed"] for texts in found.values()] == [
        "data ✓, class ✗",
        "data ✓, class ✓",
        "data ✓, class ✓",
    ]
    # that one was not attacked: of the sweep's rows without distillation the one like the row with it is taken
    fewer = [c for c in made.cells if not (c.attack and c.defense == "privatesnn[od=False]")]
    again = rows(table(of(fewer, verdicts=made.verdicts), 3))
    assert list(again) == ["datafree", "privatesnn[od=False]", "privatesnn"]


def test_a_method_that_nothing_attacked_stands_by_itself_and_its_sweep_in_the_curves() -> None:
    swept = [found for t in (4, 16) for found in alone(f"zambrano2019[T={t}]", 0.9, t, defense_name="zambrano2019")]
    made = of([*alone("zambrano2019", 0.9, 8), *swept])
    assert list(rows(table(made, 1))) == list(rows(table(made, 2))) == ["zambrano2019"]
    assert list(rows(table(of(swept), 2))) == ["zambrano2019[T=4]", "zambrano2019[T=16]"]  # there is no other
    # the suite names od of its base row, too
    names = ("od=True", "samples=500,od=True", "T=4,od=True")
    cells = [one for name in names for one in alone(f"privatesnn[{name}]", 0.9, 8, defense_name="privatesnn")]
    assert list(rows(table(of(cells), 2))) == ["privatesnn[od=True]"]


# --- Tables 4 and 5


def test_table_4_names_its_distance_and_has_the_judges_beside() -> None:
    one = table(laid_out(paper_suite()), 4)
    assert one.title == "Table 4: Fréchet distance (bnconv)"
    assert [block.title for block in one.blocks] == [
        "Attack scenario 1: reconversion",
        "Attack scenario 2: direct",
        "For comparison",
    ]
    first = one.blocks[0].rows
    assert [(row.label, row.named) for row in first] == [
        ("datafree", "without encryption"),
        ("privatesnn", "with encryption"),
    ]
    assert [c.text for c in first[0].cells] == ["133 [120, 149] n=100", ".27 [.19, .36] n=100"]
    assert [row.label for row in one.blocks[2].rows] == ["noise images", "real images"]


def test_table_4_takes_fid_where_there_is_one_and_marks_what_is_not_valid() -> None:
    values = [*judged(50, 60.0), Value(metric="fid", value=300.0, low=280.0, high=320.0, n=100)]
    cells = [
        *alone("datafree", 0.9, 8),
        cell("datafree", "reconversion[n=1]", attack_name="reconversion", values=values),
    ]
    one = table(of(cells, rows=[row("datafree", "reconversion[n=1]", index(0.4), validity="invalid")]), 4)
    assert (one.title, one.columns) == ("Table 4: FID", ("FID", "Judge accuracy"))
    assert rows(one)["datafree"]["FID"] == "300 [280, 320] n=100 (invalid)"


def test_without_a_distance_there_is_no_table_4() -> None:
    cells = [*alone("datafree", 0.9, 8), cell("datafree", "direct", values=[share("judge_accuracy", 50)])]
    assert not [one for one in of(cells).tables if one.title.startswith("Table 4")]


def test_table_5_has_both_ratios_of_what_spikes() -> None:
    found = rows(table(laid_out(paper_suite()), 5))
    assert list(found) == ["ann", "sengupta2019", "han2020", "tdbn", "datafree", "privatesnn"]
    ann, han = found["ann"], found["han2020"]
    assert (ann["E(ANN) / E(SNN), INT32"], ann["T"]) == ("1×", "1")
    assert (han["E(ANN) / E(SNN), INT32"], han["E(ANN) / E(SNN), FP32"], han["T"]) == ("5.20×", "0.867×", "32")
    assert (han["E(ANN) / E(SNN), with memory"], han["E(quantised ANN) / E(SNN)"]) == ("0.650×", "1.30×")
    # which ANN is the quantised peer depends on a T, which the ANN has not
    assert (ann["E(ANN) / E(SNN), with memory"], ann["E(quantised ANN) / E(SNN)"]) == ("1×", "–")
    assert han["E(ANN) / E(SNN), the paper's count"] == "13.0×"


def test_a_ratio_over_seeds_is_never_below_nothing() -> None:
    texts = rows(table(of(alone("datafree", 0.9, 8, ratio=0.5, seeds=2)), 5))["datafree"]
    assert texts["E(ANN) / E(SNN), INT32"] == "1.00× [0.00×, 7.35×] n=2 seeds"


# --- the paper's numbers


def test_the_papers_numbers_have_columns_in_its_own_setting() -> None:
    found = laid_out(paper_suite(dataset="cifar10", model="vgg16"))
    assert found.beside
    second, third, fifth = (rows(table(found, number)) for number in (2, 3, 5))
    assert second["ann"]["Paper: accuracy"] == "91.6 %" and second["tdbn"]["Paper: accuracy"] == "–"
    assert second["privatesnn"]["Paper: accuracy"] == "89.2 % (T = 150)"
    assert [texts["Paper: accuracy"] for texts in third.values()] == [
        "82.8 % (T = 150)",
        "86.9 % (T = 150)",
        "89.2 % (T = 150)",
    ]
    assert fifth["han2020"]["Paper: E(ANN) / E(SNN)"] == "53.9× (T = 250)"
    columns = table(found, 5).columns
    ours = columns.index("E(ANN) / E(SNN), the paper's count")
    assert columns[ours + 1] == "Paper: E(ANN) / E(SNN)"  # beside that one and no other
    # the paper's FID stands beside a FID and nothing else
    assert "Paper: FID" not in table(found, 4).columns


def test_what_was_made_on_less_than_in_the_paper_is_said_beside_its_numbers(tmp_path: Path) -> None:
    made = paper_suite(dataset="cifar10", model="vgg16")
    params = {"samples": 1000, "epochs": 5}
    changed = [
        cell.model_copy(update={"defense_params": {**cell.defense_params, **params}})
        if cell.defense == "privatesnn"
        else cell
        for cell in made.cells
    ]
    here: dict[str, Any] = {"dataset": "cifar10", "model": "vgg16"}
    changed += alone("zambrano2019", 0.96, 32, {"epochs": 1}, **here)
    # methods of which the paper has no number
    changed += alone("stbp", 0.5, 8, {"epochs": 1, "least_steps": 1000}, **here)
    changed += alone("stbp[T=4]", 0.4, 4, {"epochs": 2}, defense_name="stbp", **here)
    changed += alone("bu2022", 0.8, 8, {"epochs": 1}, **here)
    changed += alone("deng_gu2021", 0.8, 8, {"epochs": 1}, **here)
    made = made.model_copy(update={"cells": changed})
    found = laid_out(made)
    assert "privatesnn: 1,000 synthetic images (the paper: 5,000), 5 epochs (the paper: 20)" in found.departures
    assert found.departures.count("zambrano2019: 1 epoch (its authors: 10)") == 1
    others = [line for line in found.departures if line.startswith(("stbp", "bu2022", "deng_gu2021"))]
    assert others == [
        "deng_gu2021: 1 epoch (its authors: 200, from scratch)",
        "bu2022: 1 epoch (its authors: 300, from scratch)",
        "stbp: 1 epoch, at least 1,000 steps (its authors: 100)",
    ]
    untrained = changed[0].model_copy(update={"defense": "privatesnn", "defense_name": "privatesnn", "attack": ""})
    untrained = untrained.model_copy(update={"defense_params": {"cet": False, "epochs": 5}, "status": "ok"})
    (conversion,) = groups(record([untrained]))
    assert not [line for line in unlike_paper(conversion, []) if "epoch" in line]
    (converted,) = groups(record(alone("zambrano2019", 0.96, 32, {"epochs": 1, "finetune": False}, **here)))
    assert not [line for line in unlike_paper(converted, []) if "epoch" in line]
    for method, theirs in BY_AUTHORS.items():
        ours = registry.load("defense", method).presets["paper"]
        assert {name: ours[name] for name in theirs} == theirs
    assert "Not as in the paper: " in page(made, tmp_path).text
    assert laid_out(paper_suite()).departures == ()  # the paper has no number there
    smaller = laid_out(paper_suite(dataset="cifar10", model="vgg9"))
    assert smaller.beside and smaller.departures[0] == "the network is vgg9 (the paper: VGG16)"


def at_the_papers_steps(**kept: Any) -> RunRecord:
    """The suite with rows at T of the paper's that no attack was run on, and its attacked rows at T = 150."""
    here: dict[str, Any] = {"dataset": "cifar10", "model": "vgg16"}
    made = paper_suite(**here)
    attacked = [c.model_copy(update={"timesteps": 150}) if c.timesteps == 32 else c for c in made.cells]
    sweep = [
        found
        for name in ("sengupta2019", "han2020")
        for steps in (250, 500)
        for found in alone(f"{name}[T={steps}]", 0.9, steps, read=512, ratio=2000 / steps, **here)
    ]
    return made.model_copy(update={"cells": [*attacked, *sweep], **kept})


def test_each_row_of_table_5_stands_at_the_papers_t() -> None:
    found = laid_out(at_the_papers_steps())
    fifth = rows(table(found, 5))
    assert list(fifth) == ["ann", "sengupta2019[T=500]", "han2020[T=250]", "tdbn", "datafree", "privatesnn"]
    beside_ours = {
        label: (texts["T"], texts["Paper: accuracy"], texts["Paper: E(ANN) / E(SNN)"]) for label, texts in fifth.items()
    }
    assert beside_ours["sengupta2019[T=500]"] == ("500", "91.2 % (T = 500)", "27.9× (T = 500)")
    assert beside_ours["han2020[T=250]"] == ("250", "91.4 % (T = 250)", "53.9× (T = 250)")
    assert beside_ours["privatesnn"] == ("150", "89.2 % (T = 150)", "55.8× (T = 150)")
    assert beside_ours["ann"] == ("1", "91.5 %", "–")
    # where the paper gives no T, the rows that were attacked
    assert {"sengupta2019", "han2020"} <= set(rows(table(found, 1))) & set(rows(table(found, 2)))


def test_no_row_of_a_sweep_but_the_one_at_the_papers_t_has_its_number() -> None:
    made = at_the_papers_steps()
    unattacked = made.model_copy(update={"cells": [c for c in made.cells if not c.attack], "verdicts": [], "rows": []})
    (group,) = groups(unattacked)
    printed = {
        label: found.printed
        for label in group.defenses
        if (found := printed_for(group, "Table 5", group.experiments.get((label, "")), PAPER_RATIO))
    }
    assert printed.pop("sengupta2019[T=500]") == "27.9×" and printed.pop("han2020[T=250]") == "53.9×"
    assert set(printed.values()) == {"55.8×"} and all(label.startswith("privatesnn") for label in printed)


def test_the_papers_ratios_stand_beside_no_other_count() -> None:
    made = at_the_papers_steps()
    (group,) = groups(made)
    ratios = [line for line in beside(group) if line.paper.endswith("×")]
    assert {line.metric for line in ratios} == {"E(ANN) / E(SNN), the paper's count"}
    assert [(line.row, line.paper_timesteps, line.our_timesteps) for line in ratios] == [
        ("sengupta2019[T=500]", "500", "500"),
        ("han2020[T=250]", "250", "250"),
        ("privatesnn", "150", "150"),
    ]
    # a record without that count has ours alone
    cells = [c.model_copy(update={"values": [v for v in c.values if v.metric != PAPER_RATIO]}) for c in made.cells]
    older = laid_out(made.model_copy(update={"cells": cells}))
    assert "Paper: E(ANN) / E(SNN)" not in table(older, 5).columns
    assert rows(table(older, 5))["privatesnn"]["E(ANN) / E(SNN), INT32"] == "5.90×"


def test_every_energy_ratio_is_in_every_output(tmp_path: Path) -> None:
    made = at_the_papers_steps()
    latex = re.sub(r"\\(allowbreak|penalty500)\{\}", "", latex_text(made))
    texts = (csv_text(made), markdown_text(made), latex, page(made, tmp_path).text)
    for name in ENERGY_RATIOS:
        assert f",{name}," in texts[0]
        title = declared()[name].title
        assert title in texts[1] and title in texts[2]
        assert title.replace("'", "&#39;") in texts[3] or title in texts[3]


def test_a_table_without_a_number_of_the_paper_has_no_column_for_it() -> None:
    found = laid_out(paper_suite(dataset="tinyimagenet", model="vgg16"))
    assert found.beside
    assert "Paper: accuracy" in table(found, 2).columns
    assert "Paper: accuracy" not in (*table(found, 3).columns, *table(found, 5).columns)


def test_the_papers_fid_stands_beside_ours() -> None:
    here: dict[str, Any] = {"dataset": "cifar10", "model": "vgg16"}
    fid = [Value(metric="fid", value=300.0, n=100), share("judge_accuracy", 50)]
    cells = [*alone("datafree", 0.9, 150, **here), cell("datafree", "direct", values=fid, **here)]
    assert rows(table(of(cells), 4))["datafree"]["Paper: FID"] == "447.9"


@pytest.mark.parametrize(("dataset", "model"), [("digits", "vgg16"), ("cifar10:half", "vgg16")])
def test_elsewhere_a_sentence_says_that_there_are_none(dataset: str, model: str, tmp_path: Path) -> None:
    made = paper_suite(dataset=dataset, model=model)
    found = laid_out(made)
    assert not found.beside
    printed = {name for one in found.tables for name in one.columns if name.startswith("Paper: ")}
    assert printed == {"Paper: leakage addressed"}
    assert f"The paper has no numbers for {dataset} · {model}" in page(made, tmp_path).text


# --- the figures, the page and the other tables


def test_the_figures_are_linked_and_not_drawn_twice(tmp_path: Path) -> None:
    made = paper_suite()
    found = laid_out(made)
    assert (found.over_timesteps, found.over_samples) == ("curve-1-1", "curve-1-2")
    drawn = page(made, tmp_path)
    links = [a["href"] for tag, a in drawn.tags if tag == "a"]
    assert {"#curve-1-1", "#curve-1-2"} <= set(links)
    assert len([a for tag, a in drawn.tags if tag == "svg" and a.get("role") == "img"]) == 3  # with the trade-off
    assert "Figure 6" not in drawn.text  # no images were kept
    assert laid_out(record(alone("datafree", 0.9, 8), grid=SUITE)).over_timesteps == ""


def test_several_networks_have_ids_of_their_own(tmp_path: Path) -> None:
    one, other = paper_suite(), paper_suite(model="vgg-other")
    both = one.model_copy(update={"cells": [*one.cells, *other.cells], "verdicts": [*one.verdicts, *other.verdicts]})
    found = page(both, tmp_path)
    ids = [a["id"] for _, a in found.tags if "id" in a]
    assert len(ids) == len(set(ids)) and {"suite-1", "suite-2", "curve-2-1"} <= set(ids)
    uses = {a["href"].removeprefix("#") for _, a in found.tags if a.get("href", "").startswith("#")}
    assert uses <= set(ids)


@pytest.mark.long
@pytest.mark.parametrize("seeds", [1, 3])
def test_the_page_and_the_tables_for_people_have_them(tmp_path: Path, seeds: int) -> None:
    made = paper_suite(seeds)
    write_report(write(tmp_path, made))
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    titles = [line for line in text.splitlines() if line.startswith("### ")]
    assert [title.partition(":")[0] for title in titles[1:6]] == [f"### Table {number}" for number in range(1, 6)]
    assert "| Private ANN approaches: zskd (Nayak et al. (2019)) | 0 of 1,437 |" in text
    assert "| Private ANN approaches: knowledge\\_within (Haroush et al. (2020)) | not applicable: " in text
    for block in text.split("\n\n"):
        counts = {line.replace("\\|", "").count("|") for line in block.splitlines() if line.startswith("|")}
        assert len(counts) <= 1
    latex = (tmp_path / "results.tex").read_text(encoding="utf-8")
    assert r"data $\surd$, class $\times$" in latex and "✓" not in latex
    assert ("n=3 seeds" in page(made, tmp_path).text) == (seeds == 3)


def test_hostile_labels_become_no_markup(tmp_path: Path) -> None:
    h = HOSTILE
    here: dict[str, Any] = {"dataset": h, "model": h}
    params = {"samples": h, "od": h}
    cells = [
        *alone(f"privatesnn{h}", 0.9, 8, params, defense_name="privatesnn", ratio=2.0, **here),
        *alone(f"datafree{h}", 0.9, 8, defense_name="datafree", ratio=2.0, **here),
        cell(f"datafree{h}", h, defense_name="datafree", attack_name="direct", values=judged(9, 60.0), **here),
        cell(f"stbp{h}", defense_name="stbp", status="not-applicable", reason=h, **here),
    ]
    made = record(cells, grid=SUITE, verdicts=[verdict(f"datafree{h}", attack=h, **here)])
    found = page(made, tmp_path)
    assert [tag for tag, _ in found.tags].count("script") == 2
    assert not [tag for tag, _ in found.tags if tag == "img"]
    assert f"not applicable: {h[:30]}" in found.text and f"Attack scenario 2: {h[:30]}" in found.text
    assert "<script>" not in markdown_text(made)
    body = [line for line in latex_text(made).splitlines() if not line.startswith("%")]
    assert not [line for line in body if "$x_$" in line]


def test_no_method_of_the_paper_is_said_in_a_sentence(tmp_path: Path) -> None:
    made = record([cell("d", values=[share("accuracy", 90)])], grid=SUITE)
    assert laid_out(made).tables == ()
    assert "None of the paper’s methods was run." in page(made, tmp_path).text
