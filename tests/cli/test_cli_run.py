"""``run``: what it prints and writes, and how it ends."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from cli_said import Leakbench, Said, record_in
from tiny_runs import (
    ATTACKS,
    CELLS,
    DEFENSES,
    DIRECT_LABEL,
    LABELS,
    OURS,
    OURS_LABEL,
    Warm,
    cell_of,
    numbers,
)

from leakbench.cli.run import _summary, _verdict_facts
from leakbench.records import Index


def test_a_run_prints_its_table_and_where_the_report_is(leakbench: Leakbench, warm: Warm, tmp_path: Path) -> None:
    said = leakbench(*warm.tiny.arguments(tmp_path / "run"), "--cache", warm.cache)
    assert said.status == 0
    assert said.out.splitlines()[-1] == f"report: {tmp_path / 'run' / 'report.html'}"
    assert (tmp_path / "run" / "report.html").is_file()
    assert said.out.startswith(f"{OURS_LABEL}, classes: inconclusive. No conclusion: no valid attack.")
    lines = [line.rstrip() for line in said.out.splitlines()]
    heading, *table = lines[lines.index("leakage index, classes") + 1 : -1]
    assert heading.split() == [
        "defense",
        *(LABELS[attack] for attack in ATTACKS),
    ]  # a line for each of what there is more of
    # as in ".71 [.61, .79] (invalid)": the index of judge accuracy, its interval, what is wrong with the row
    index = r"(\.\d\d|1\.00) \[(\.\d\d|1\.00), (\.\d\d|1\.00)\] \(invalid\)"
    cells = re.findall(rf"{index}", " ".join(" ".join(table).split()))
    defenses = [LABELS[defense] for defense in DEFENSES]
    assert [line.split()[0] for line in table if line.split()[0] in defenses] == defenses
    assert len(cells) == 2 * len(DEFENSES), table
    lines = said.err.splitlines()
    assert lines[0] == f"{CELLS} cells"
    # what takes longer than usual says so on a line of its own, which is further in
    ended = [line for line in lines[1:] if not line.startswith(" ")]
    assert [line.partition("]")[0] for line in ended] == [f"[{n}/{CELLS}" for n in range(1, CELLS + 1)]
    check = f"{OURS_LABEL} x {DIRECT_LABEL} (iterations=1)"
    # the last to begin need not be the last to end: workers are several
    assert f"ok: {warm.tiny.dataset} vgg4 seed 0: {check}" in [line.partition("] ")[2] for line in lines]
    record = record_in(tmp_path / "run")
    assert numbers(record) == numbers(warm.record)
    assert record.command.startswith("leakbench run --no-isolate --out ")


def test_several_models_are_told_apart_in_the_terminal(warm: Warm, capsys: pytest.CaptureFixture[str]) -> None:
    record = warm.record
    other = {"model": "vgg5"}
    _summary(
        record.model_copy(
            update={
                "rows": [*record.rows, *(row.model_copy(update=other) for row in record.rows)],
                "verdicts": [*record.verdicts, *(verdict.model_copy(update=other) for verdict in record.verdicts)],
            }
        )
    )
    name = record.datasets[0].name
    lines = capsys.readouterr().out.splitlines()
    for model in ("vgg4", "vgg5"):
        assert sum(line.startswith(f"{name} {model} {OURS_LABEL}, classes: inconclusive. ") for line in lines) == 1
        table = lines[lines.index(f"leakage index, classes, {name} {model}") + 1 :][: 1 + len(DEFENSES)]
        assert table[0].split() == ["defense", *(LABELS[attack] for attack in ATTACKS)]
        assert [line.split()[0] for line in table[1:]] == [LABELS[defense] for defense in DEFENSES]


def test_each_kind_of_leak_has_a_table_of_its_own(warm: Warm, capsys: pytest.CaptureFixture[str]) -> None:
    record = warm.record
    other = {"leakage": "membership", "attack": "loss_threshold", "outcome": "leaks"}
    rows = [
        row.model_copy(update={**other, "indices": [Index(metric="membership_auc", value=0.25, low=0.2, high=0.3)]})
        for row in record.rows
        if row.attack == record.rows[0].attack
    ]
    verdicts = [verdict.model_copy(update=other) for verdict in record.verdicts]
    _summary(record.model_copy(update={"rows": [*record.rows, *rows], "verdicts": [*record.verdicts, *verdicts]}))
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(".")[0] for line in lines if line.startswith(f"{OURS_LABEL}, ")] == [
        f"{OURS_LABEL}, classes: inconclusive",
        f"{OURS_LABEL}, members: leaks",
    ]
    classes, members = lines.index("leakage index, classes"), lines.index("leakage index, members")
    assert not any("loss_threshold" in line or ".25 [.20, .30]" in line for line in lines[classes:members])
    assert sum(".25 [.20, .30]" in line for line in lines[members:]) == len(rows) == len(DEFENSES)


@pytest.mark.parametrize("validity", ["invalid", "valid"])
def test_why_no_attack_is_valid_stands_below_the_verdict(
    warm: Warm, capsys: pytest.CaptureFixture[str], validity: str
) -> None:
    (verdict,) = [one for one in warm.record.verdicts if one.defense == OURS_LABEL][:1]
    rows = [row.model_copy(update={"validity": validity, "reason": "G1: too few"}) for row in warm.record.rows]
    _summary(warm.record.model_copy(update={"rows": rows, "verdicts": [verdict]}))
    own = [row.attack for row in rows if row.defense == OURS_LABEL]
    said = " ".join(capsys.readouterr().out.split())
    assert own and all((f"{attack}: invalid: G1: too few" in said) is (validity == "invalid") for attack in own)


def test_an_attack_that_fails_on_networks_that_know_nothing_is_no_failure(
    warm: Warm, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = [row.model_copy(update={"validity": "optimisation failure"}) for row in warm.record.rows]
    _summary(warm.record.model_copy(update={"rows": failed}))
    lines = capsys.readouterr().out.splitlines()
    table = lines[lines.index("leakage index, classes") + 1 :]
    (null,) = (line for line in table if line.startswith("random "))
    (own,) = (line for line in table if line.startswith("ann "))
    assert "optimisation failure" not in null and "(optimisation failure)" in own


@pytest.mark.slow
def test_json_has_a_verdict_s_index_with_its_interval(warm: Warm) -> None:
    index = Index(metric="judge_accuracy", value=0.7, low=0.6, high=0.8, n=10)
    (verdict,) = warm.record.verdicts
    told = _verdict_facts(warm.record, verdict.model_copy(update={"index": index}))["index"]
    assert told == {"metric": "judge_accuracy", "value": 0.7, "low": 0.6, "high": 0.8, "n": 10}


@pytest.mark.slow
def test_json_is_one_object_and_quiet_is_silent(leakbench: Leakbench, warm: Warm, tmp_path: Path) -> None:
    said = leakbench(*warm.tiny.arguments(tmp_path / "run"), "--cache", warm.cache, "--json", "--quiet")
    assert (said.status, said.err) == (0, "")
    assert len(said.out.splitlines()) == 1
    out = tmp_path / "run"
    where = {"dataset": warm.tiny.dataset, "model": "vgg4", "defense": OURS_LABEL}
    facts = json.loads(said.out)
    (found,) = warm.record.verdicts
    (told,) = facts["verdicts"]
    command = told.pop("settle")
    assert command.startswith("leakbench run ") and "--out" not in command
    assert ",auto " in f"{command} " and "--seeds " not in command  # the run's ANN is given: its seeds are one network
    outcome = {"leakage": "inversion", "outcome": "inconclusive", "attack": "", "index": None, "p": found.p}
    verdict = {**where, **outcome, "networks": found.networks, "missing": found.missing, "named": []}
    assert told == verdict
    (right,) = [value for value in cell_of(warm.record, OURS).values if value.metric == "accuracy"]
    ends = {"value": right.value, "low": right.low, "high": right.high, "n": right.n}
    assert facts | {"verdicts": []} == {
        "run": str(out),
        "protocol": "",
        "report": str(out / "report.html"),
        "cells": CELLS,
        "failed": 0,
        "accuracy": {OURS_LABEL: ends},
        "verdicts": [],
        "failures": [],
    }


@pytest.mark.slow
def test_a_run_without_attacks_says_accuracy_and_energy(leakbench: Leakbench, warm: Warm, tmp_path: Path) -> None:
    arguments = warm.tiny.arguments(tmp_path / "run", attack=["none"], set=None)
    said = leakbench(*arguments, "--cache", warm.grown, "-q")
    assert said.err == ""
    head, line, report = said.out.splitlines()
    assert (said.status, head.split("  ")[0]) == (0, "defence") and "energy ratio" in head
    assert line.startswith(OURS) and line.endswith("×") and report.startswith("report: ")


@pytest.mark.slow
def test_a_failed_cell_ends_with_one_and_a_report(leakbench: Leakbench, warm: Warm, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(
        "from leakbench.contracts import Defense, Params\n"
        "class Bad(Defense[Params]):\n"
        '    """Bad."""\n'
        '    name = "bad"\n'
        "    def protect(self, ann, data, context):\n"
        '        raise ValueError("my mistake")\n'
    )
    settings = {"direct.iterations": ["2"]}
    arguments = warm.tiny.arguments(tmp_path / "run", defense=["bad.py:Bad"], attack=["direct"], set=settings)
    said = leakbench(*arguments, "--cache", warm.grown, "--json", "--quiet", "--fail-if", "accuracy < 0")
    assert said.status == 1  # and not 3, that of the gate, which fails as well
    assert json.loads(said.out)["failed"] == 3
    gate = ["--fail-if 'accuracy < 0': bad: can't be checked: it failed at seed 0"]
    assert json.loads(said.out)["failures"] == gate
    assert "ValueError: my mistake" in said.err
    assert said.err.splitlines()[-1] == "leakbench: 3 of 13 cells failed: the report says why"
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "ValueError: my mistake" in page
    statuses = {(cell.defense, cell.attack): cell.status for cell in record_in(tmp_path / "run").cells}
    assert {name for name, status in statuses.items() if status != "ok"} == {
        ("bad", attack) for attack in ("", DIRECT_LABEL, f"{DIRECT_LABEL} (iterations=1)")
    }


@pytest.mark.slow
def test_a_run_that_fails_later_keeps_the_record_that_was_there(
    leakbench: Leakbench, warm: Warm, tmp_path: Path
) -> None:
    """A plugin's file is edited between two runs of one grid, and mended for the third."""
    plugin, out = tmp_path / "grey.py", tmp_path / "run"
    arguments = [*warm.tiny.arguments(out, attack=["grey.py:Grey"], set=None, controls=False), "--cache", warm.grown]

    def run(what: str) -> Said:
        plugin.write_text(
            "import torch\n"
            "from leakbench.contracts import Access, Attack, Params\n"
            "class Grey(Attack[Params]):\n"
            '    """Grey."""\n'
            '    name = "grey"\n'
            "    needs = Access.LABELS\n"
            "    def run(self, victim, targets, context):\n"
            f"        {what}\n"
        )
        return leakbench(*arguments, "--quiet")

    grey = "return torch.full((len(targets), *victim.image_shape), 0.5)"
    assert run(grey).status == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    said = run('raise ValueError("my mistake")')
    assert said.status == 1
    page = out / "report.partial.html"
    assert said.out.splitlines()[-1] == f"report: {page}"
    kept = [line for line in said.err.splitlines() if "is kept" in line]
    assert kept == [
        "leakbench: the record of a more complete run is kept (results.json): this one is in results.partial.json, "
        f"its report in {page}"
    ]
    assert {path: path.read_bytes() for path in before} == before
    assert "my mistake" in page.read_text(encoding="utf-8")
    assert leakbench("report", out).out.splitlines() == [str(page), str(out / "report.html")]
    assert run(grey).status == 0
    assert not list(out.glob("*partial*"))
    assert {path for path in out.rglob("*") if path.is_file()} == before.keys()


@pytest.mark.slow
def test_what_does_not_apply_is_no_failure(leakbench: Leakbench, warm: Warm, tmp_path: Path) -> None:
    (tmp_path / "picky.py").write_text(
        "from leakbench.contracts import Access, Attack, Params\n"
        "from leakbench.errors import NotApplicable\n"
        "class Picky(Attack[Params]):\n"
        '    """Picky."""\n'
        '    name = "picky"\n'
        "    needs = Access.LABELS\n"
        "    def run(self, victim, targets, context):\n"
        '        raise NotApplicable("picky wants batch norm")\n'
    )
    settings = {f"{OURS}.images": ["16"]}
    arguments = warm.tiny.arguments(tmp_path / "run", attack=["picky.py:Picky"], set=settings)
    said = leakbench(*arguments, "--cache", warm.grown)
    assert said.status == 0
    assert said.out.startswith(f"{OURS_LABEL}, classes: inconclusive. No conclusion: no attack on it gave images")
    assert "not-applicable" in said.err
    cell = cell_of(record_in(tmp_path / "run"), OURS, "picky")
    assert (cell.status, cell.reason, cell.traceback) == ("not-applicable", "picky wants batch norm", "")


@pytest.mark.slow
def test_variants_are_told_apart_in_the_terminal(leakbench: Leakbench, warm: Warm, tmp_path: Path) -> None:
    settings = {f"{OURS}.leak": ["0.9", "1.0"], "direct.iterations": ["2"]}
    arguments = warm.tiny.arguments(tmp_path / "run", attack=["direct"], set=settings, controls=False)
    said = leakbench(*arguments, "--cache", warm.grown)
    assert said.status == 0
    lines = said.out.splitlines()
    labels = [f"{OURS}[leak={leak}]" for leak in ("0.9", "1")]
    assert all(any(line.startswith(f"{label}, classes: inconclusive. ") for line in lines) for label in labels)
    heading = lines[[line.strip() for line in lines].index("leakage index, classes") + 1]
    assert heading.split() == ["defense", DIRECT_LABEL]
    assert all(any(line.startswith(label) for line in lines) for label in labels)
