from __future__ import annotations

import re
from pathlib import Path

import pytest
from compared_samples import CONTROLS, HITS, Hits, renamed, run
from latex_log import CLASSES, HOSTILE, complaints, needs_latex
from realistic_samples import realistic
from report_samples import cell, plain, record, share, small
from suite_samples import alone, paper_suite

from leakbench.bench.comparison import Comparison, compare
from leakbench.records import RunRecord
from leakbench.reports.comparison_tables import latex_text as comparison_latex
from leakbench.reports.paper_table import Line, PaperTable, latex_text, paper_tables, run_tables
from leakbench.reports.tables import latex_text as run_latex


def only(made: RunRecord) -> PaperTable:
    (table,) = run_tables(made)
    return table


def column(table: PaperTable, name: str) -> dict[str, tuple[str, str]]:
    """Label -> (number, mark)."""
    at = table.columns.index(name)
    return {line.label: (line.cells[at].number, line.cells[at].mark) for line in table.lines}


def line(table: PaperTable, label: str) -> Line:
    return next(one for one in (*table.lines, *table.controls) if one.label == label)


def having(hits: Hits, *names: str) -> Hits:
    return {name: each for name, each in hits.items() if name in (*names, *CONTROLS)}


# --- what stands in it


def test_defences_stand_in_the_order_of_their_leakage_and_controls_below() -> None:
    table = only(run())
    assert [(one.label, one.rank) for one in table.lines] == [("strong", "1"), ("weak", "2–3"), ("weaker", "2–3")]
    assert [one.label for one in table.controls] == ["ann", "han2020", "random"]
    assert table.columns == ("accuracy", "energy ratio", "labels", "weights", "worst case")


def test_a_level_of_access_has_the_strongest_valid_attack_that_needs_no_more() -> None:
    made = run()
    table = only(made)
    index = {(row.defense, row.attack): row.indices[0].value for row in made.rows}
    for name in ("weak", "weaker", "han2020"):
        labels, weights, worst = line(table, name).cells[2:]
        assert (labels.attack, weights.attack, worst.attack) == ("guess", "invert", "invert")
        assert labels.value and labels.value.value == index[name, "guess"]
        assert weights.value and weights.value.value == max(index[name, "guess"], index[name, "invert"])
    stronger = {**HITS, "weak": {**HITS["weak"], "guess": HITS["weak"]["invert"], "invert": HITS["weak"]["guess"]}}
    assert [cell.attack for cell in line(only(run(stronger)), "weak").cells[2:]] == ["guess"] * 3


def test_a_level_at_which_nothing_ran_has_no_column() -> None:
    alike = {name: {"invert": attacks["invert"]} for name, attacks in HITS.items()}
    assert only(run(alike)).columns == ("accuracy", "energy ratio", "weights", "worst case")


def test_an_attack_that_is_not_valid_is_passed_over() -> None:
    draws_from_nothing = {**HITS["random"], "invert": (9,) * 10}
    table = only(run({**HITS, "random": draws_from_nothing}))
    assert {cell.attack for one in table.lines for cell in one.cells[2:]} == {"guess"}


def test_what_has_the_same_attack_as_the_worst_case_has_its_interval() -> None:
    """Both are the most that two attacks got, so that both allow for the choice."""
    made = run()
    own = next(row.indices[0] for row in made.rows if (row.defense, row.attack) == ("weak", "invert"))
    _, weights, worst = line(only(made), "weak").cells[2:]
    assert weights == worst and weights.value and weights.value.low != own.low


# --- marks


@pytest.mark.slow
def test_marks_are_those_of_the_corrected_pairs() -> None:
    made = run(seeds=2)
    table, comparison = only(made), compare({"run": made})
    assert column(table, "worst case")["strong"][1] == "best"
    for name, attack in (("worst case", ""), ("weights", ""), ("labels", "guess")):
        marks = {label: mark for label, (_, mark) in column(table, name).items()}
        assert marks.pop("strong") == "best"
        for label, mark in marks.items():
            assert mark == {"more": "", "not distinguishable": "tie"}[relation(comparison, label, attack)]


def relation(comparison: Comparison, label: str, attack: str) -> str:
    (pair,) = [
        pair
        for pair in comparison.pairs
        if (pair.quantity, pair.attack) == ("leakage", attack) and {pair.first, pair.second} == {"strong", label}
    ]
    return pair.relation if pair.first == label else {"less": "more", "more": "less"}.get(pair.relation, pair.relation)


def test_who_leaks_as_little_as_the_best_is_marked() -> None:
    table = only(run(having(HITS, "weak", "weaker")))
    assert {mark for _, mark in column(table, "worst case").values()} == {"best", "tie"}
    text = latex_text([table])
    assert text.count(r"\textbf{") == len(table.columns)
    assert r"\textsuperscript{$\dagger$}\,Not distinguishable" in text


@pytest.mark.slow
def test_a_column_without_a_test_says_so_and_has_no_other_mark() -> None:
    table = only(run())  # one seed has no interval of the energy ratio
    assert table.untested == ("energy ratio",)
    assert [mark for _, mark in column(table, "energy ratio").values()] == ["", "", "best"]
    assert "No difference from the best was tested: energy ratio." in latex_text([table])
    assert only(run(seeds=3)).untested == ()


def test_pairs_that_should_not_be_compared_tell_nothing() -> None:
    comparison = compare({"run": run()})
    pairs = [pair.model_copy(update={"marks": ["other data"]}) for pair in comparison.pairs]
    (table,) = paper_tables(comparison.model_copy(update={"pairs": pairs}))
    assert table.untested == ("accuracy", "energy ratio", "labels", "weights", "worst case")


def test_some_untested_differences_are_marked_one_by_one() -> None:
    comparison = compare({"run": run()})
    pairs = [
        pair.model_copy(update={"relation": "not tested"}) if {pair.first, pair.second} == {"strong", "weak"} else pair
        for pair in comparison.pairs
    ]
    (table,) = paper_tables(comparison.model_copy(update={"pairs": pairs}))
    assert column(table, "worst case")["weak"][1] == "untested"
    assert r"$\ddagger$" in latex_text([table])


def test_an_inconclusive_defence_is_marked_and_never_the_best() -> None:
    made = run()
    doubt = {"outcome": "inconclusive", "reason": "why", "comparable": False}
    verdicts = [one.model_copy(update=doubt) if one.defense == "strong" else one for one in made.verdicts]
    table = only(made.model_copy(update={"verdicts": verdicts}))
    assert line(table, "strong").inconclusive and line(table, "strong").rank == "–"
    assert column(table, "worst case")["strong"][1] == "" and column(table, "accuracy")["strong"][1] == "best"
    assert r"strong\textsuperscript{\S} &" in latex_text([table]) and r"\,Inconclusive." in latex_text([table])


# --- captions


def test_a_run_s_worst_case_has_how_many_classes_leak_and_p() -> None:
    made = run()
    told = {"classes": [0, 1, 2], "named": [1, 2], "p": 0.0003, "networks": 4}
    verdicts = [one.model_copy(update=told if one.defense == "weak" else {"p": None}) for one in made.verdicts]
    made = made.model_copy(update={"verdicts": verdicts})
    assert {one.label: one.classes for one in only(made).lines} == {
        "strong": "", "weak": "2 of 3 classes, p < .001", "weaker": "",
    }  # fmt: skip
    text = run_latex(made)
    assert r"{\scriptsize 2 of 3 classes, p \textless{} .001}" in text and "how many leak significantly" in text
    (compared,) = paper_tables(compare({"a": made}))
    assert not any(one.classes for one in compared.lines)
    assert "how many leak significantly" not in latex_text([compared])


def test_classes_stand_beside_every_model_and_need_networks_to_be_named() -> None:
    told = {"classes": [0, 1, 2], "named": [], "p": 0.0003, "networks": 1}
    made = run()
    one = made.model_copy(update={"verdicts": [one.model_copy(update=told) for one in made.verdicts]})
    other = renamed(one, {}, model="vgg-other")
    parts = {name: [*getattr(one, name), *getattr(other, name)] for name in ("cells", "rows", "verdicts")}
    lines = [line for table in run_tables(one.model_copy(update=parts)) for line in table.lines]
    assert len({line.label for line in lines}) == 6
    assert {line.classes for line in lines} == {"needs 3 networks, p < .001"}
    told |= {"networks": 3, "notes": ["no class is named with fewer than 6 null networks, got 0"]}
    unnamed = made.model_copy(update={"verdicts": [one.model_copy(update=told) for one in made.verdicts]})
    assert {line.classes for line in only(unnamed).lines} == {"needs 6 null networks, p < .001"}
    told["notes"] = []
    none = made.model_copy(update={"verdicts": [one.model_copy(update=told) for one in made.verdicts]})
    assert {line.classes for line in only(none).lines} == {"0 of 3 classes, p < .001"}


def test_the_caption_says_on_what_the_numbers_depend() -> None:
    text = latex_text(run_tables(run(seeds=2)))
    caption = text[text.index(r"\caption") : text.index(r"\label")]
    for part in ("LeakBench 0.1.0", "digits", "preset quick", "T = 32", "seeds 0, 1", "10 images of each class",
                 "attacks: guess, invert", r"95\,\% intervals", "Below the rule: controls."):  # fmt: skip
        assert part in caption
    assert re.search(r"\\label\{tab:leakbench-digits-vgg-small-[0-9a-f]{8}\}", text)


def test_defences_that_nothing_attacked_are_counted() -> None:
    made = run()
    more = [cell(f"T{number}", values=[share("accuracy", 90)]) for number in (1, 2)]
    table = only(made.model_copy(update={"cells": [*made.cells, *more]}))
    assert (len(table.lines), table.unattacked) == (3, 2)
    alone_table = only(record([cell("d", values=[share("accuracy", 90), plain("energy_ratio_int32", 3)])]))
    assert alone_table.columns == ("accuracy", "energy ratio")
    text = latex_text([alone_table])
    assert "Accuracy and energy, digits" in text and "eakage" not in text and "Rank" not in text


def test_nothing_measured_is_no_table() -> None:
    assert run_tables(record([])) == run_tables(record([cell("d", status="failed")])) == []


def test_each_data_set_and_model_has_a_table_with_a_label_of_its_own() -> None:
    one, other = run(), renamed(run(), {}, model="vgg-other")
    parts = {name: [*getattr(one, name), *getattr(other, name)] for name in ("cells", "rows", "verdicts")}
    text = run_latex(one.model_copy(update=parts))
    assert text.count(r"\begin{table}") == 2
    assert len(set(re.findall(r"\\label\{[^}]*\}", text))) == 2


# --- in a real LaTeX


def many() -> RunRecord:
    """More defences with long labels than a page holds."""
    label = "privatesnn[timesteps={},lam=-0.5,od=False,x]"
    return run({**{label.format(10 + n): HITS["weak"] for n in range(25)}, **having(HITS)})


def hostile(name: str) -> RunRecord:
    return renamed(run(), {"strong": name, "invert": f"{name}!"}, dataset=name, model=name)


@needs_latex
@pytest.mark.parametrize("head", CLASSES)
def test_tables_compile_and_fit(head: str, tmp_path: Path) -> None:
    made = [run(), run(seeds=3), small(), realistic(tmp_path), many(), paper_suite(), paper_suite(3)]
    made.append(paper_suite(dataset="cifar10", model="vgg16"))
    made.append(record([*alone("d", 0.9, 8), *alone("e", 0.8, 16)]))
    texts = [run_latex(one) for one in made]
    texts.append(comparison_latex(compare({"a": run(), "b": renamed(run(seeds=2), {"weak": "other"})})))
    for text in texts:
        assert complaints(text, tmp_path, head) == []


@needs_latex
def test_names_of_others_compile_and_fit(tmp_path: Path) -> None:
    text = "".join(run_latex(hostile(name)) for name in HOSTILE)
    assert complaints(text, tmp_path) == []


@needs_latex
def test_numbers_of_others_compile_and_fit(tmp_path: Path) -> None:
    made = run()
    first, *others = made.cells
    values = [plain("accuracy", 1.5e300), plain("energy_ratio_int32", -1.25e-300)]
    text = run_latex(made.model_copy(update={"cells": [first.model_copy(update={"values": values}), *others]}))
    assert complaints(text, tmp_path) == []


@pytest.mark.slow
def test_a_table_longer_than_a_page_comes_in_parts() -> None:
    text = run_latex(many())
    parts = text.count(r"\begin{table}")
    assert parts > 2 and f", part {parts} of {parts}" in text
    assert text.count("privatesnn") == 25 and text.count("han2020 &") == 1
