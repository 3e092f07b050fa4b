"""The commands: what they print, what they write, how they end, and that names are listed without torch."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch
from cli_said import Leakbench, Said
from threadpoolctl import threadpool_info
from tiny_runs import (
    ATTACKS,
    CELLS,
    DEFENSES,
    DIRECT_LABEL,
    LABELS,
    OURS,
    OURS_LABEL,
    Warm,
    artifacts,
    cell_of,
    copied,
    numbers,
    plain,
    value_of,
)

from leakbench import __version__, registry
from leakbench.bench import runner
from leakbench.cli import main
from leakbench.cli.run import _summary
from leakbench.data import dataset_names
from leakbench.errors import UsageError
from leakbench.models import model_names
from leakbench.records import RunRecord
from leakbench.runtime.store import Store

COMMANDS = ("run", "list", "info", "report", "doctor", "cache")
COLUMNS = ["dataset", "model", "defense", "attack", "seed", "status", "metric", "value", "low", "high", "n"]


def record_in(out: Path) -> RunRecord:
    return RunRecord.model_validate_json((out / "results.json").read_bytes())


# --- help, list, info --------------------------------------------------------------------------------------------


def test_help_names_every_command_and_the_first_step(leakbench: Leakbench) -> None:
    said = leakbench("--help")
    assert (said.status, said.err) == (0, "")
    assert all(command in said.out for command in COMMANDS)
    assert "leakbench run --defense privatesnn --attack all" in said.out
    assert leakbench().out.strip() == said.out.strip()
    assert leakbench("--version").out == f"leakbench {__version__}\n"


def test_the_script_is_the_same_command() -> None:
    (script,) = entry_points(group="console_scripts", name="leakbench")
    assert script.load() is main


@pytest.mark.parametrize("command", [*COMMANDS, "cache ls", "cache prune"])
def test_every_command_explains_itself(leakbench: Leakbench, command: str) -> None:
    said = leakbench(*command.split(), "--help")
    assert (said.status, said.err) == (0, "")
    assert f"leakbench {command}" in said.out


@pytest.mark.parametrize("width", [80, 120])
def test_the_help_of_run_is_in_groups_and_whole(
    leakbench: Leakbench, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = leakbench("run", "--help").out.splitlines()
    assert max(map(len, lines)) <= width
    groups = [line.split("─ ")[1].split(" ─")[0] for line in lines if line.startswith("╭─ ")]
    assert groups == ["What to run", "How much", "Data and weights", "Where and how it runs", "Output"]
    start = {group: next(n for n, line in enumerate(lines) if f"─ {group} ─" in line) for group in groups}
    placed = {
        line.split()[1]: group
        for group in groups
        for line in lines[start[group] : next(n for n in range(start[group], len(lines)) if lines[n][0] == "╰")]
        if line.startswith("│ --")
    }
    assert placed["--defense"] == placed["--set"] == "What to run"
    assert placed["--seeds"] == "How much"
    assert placed["--out"] == "Where and how it runs"
    assert placed["--json"] == placed["--help"] == "Output"
    assert any("runs/DATASET-DEFENSES-HASH" in line for line in lines)


def test_list_names_everything_there_is(leakbench: Leakbench) -> None:
    said = leakbench("list")
    assert (said.status, said.err) == (0, "")
    first = re.findall(r"^  (\S+)", said.out, re.MULTILINE)
    wanted = [
        *registry.entries("defense"),
        "auto",
        *registry.entries("attack"),
        *dataset_names(),
        *("NAME:half", "folder:PATH", "FILE.npz"),
        *model_names(),
        *("quick", "standard", "paper"),
    ]
    assert first == wanted
    assert "(needs WEIGHTS)" in next(line for line in said.out.splitlines() if line.startswith("  direct"))
    assert "can't be" not in said.out
    attacks = leakbench("list", "attacks").out
    assert attacks.splitlines()[0] == "attacks"
    assert attacks in said.out
    (auto,) = [line for line in attacks.splitlines() if line.startswith("  auto ")]
    newest = registry.newest("attack", "auto")
    assert f"(now {newest}; needs WEIGHTS)" in auto
    assert all(member.name in auto for member in registry.load("attack", "auto").members)


def test_list_as_json(leakbench: Leakbench) -> None:
    said = leakbench("list", "--json")
    assert (said.status, said.err) == (0, "")
    listed = json.loads(said.out)
    assert list(listed) == ["defenses", "attacks", "metrics", "datasets", "models", "presets"]
    assert all({"name", "summary"} <= row.keys() for rows in listed.values() for row in rows)
    attacks = {row["name"]: row for row in listed["attacks"]}
    assert (attacks["label_only"]["needs"], attacks["label_only"]["uses_public"]) == ("LABELS", True)
    assert attacks["auto"]["version_of"] == registry.newest("attack", "auto")
    assert {row["name"]: row["available"] for row in listed["datasets"]} == {
        row["name"]: row["available"] for row in json.loads(leakbench("list", "datasets", "--json").out)["datasets"]
    }
    assert {row["name"] for row in listed["datasets"] if row["available"]} >= {"digits"}


@pytest.mark.parametrize("width", [60, 80, 120])
def test_list_breaks_no_word(leakbench: Leakbench, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    whole = json.loads(leakbench("list", "--json").out)
    monkeypatch.setenv("COLUMNS", str(width))
    out = leakbench("list").out
    for line in out.splitlines():
        assert len(line) <= width or len(line.split()) <= 2, line  # but for what has no blank, as a long path
    words = {word for rows in whole.values() for row in rows for word in f"{row['name']} {row['summary']}".split()}
    assert words <= set(out.split())


def test_info_as_json(leakbench: Leakbench) -> None:
    facts = json.loads(leakbench("info", "privatesnn", "--json").out)
    plugin = registry.load("defense", "privatesnn")
    assert list(facts) == [
        "name", "kind", "version", "summary", "doc", "cites", "needs", "uses_public", "members", "parameters", "presets"
    ]  # fmt: skip
    assert (facts["name"], facts["kind"], facts["version"]) == ("privatesnn", "defense", plugin.version)
    assert (facts["cites"], facts["needs"]) == (plugin.cites, None)
    assert facts["presets"] == {name: dict(values) for name, values in plugin.presets.items()}
    parameters = {row["name"]: row for row in facts["parameters"]}
    assert parameters.keys() == plugin.Params.model_fields.keys()
    assert parameters["epochs"] == {
        "name": "epochs",
        "type": "int",
        "default": 20,
        "required": False,
        "bounds": parameters["epochs"]["bounds"],
        "description": plugin.Params.model_fields["epochs"].description,
    }
    assert parameters["beta"]["bounds"] == {"gt": 0}
    assert parameters["synthesis_range"]["type"] == "Literal['images', 'input']"
    auto = json.loads(leakbench("info", "auto", "--json").out)
    assert (auto["name"], auto["needs"], auto["parameters"]) == (registry.newest("attack", "auto"), "WEIGHTS", [])
    assert [member["name"] for member in auto["members"]] == [
        member.name for member in registry.load("attack", "auto").members
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", ["--help", "--version", "list", "list defenses", "run --help", "cache --help", "info --help"]
)
def test_names_and_help_come_without_torch(command: str) -> None:
    """In a process of its own: this one has torch already."""
    look = (
        "import sys; from leakbench.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print(sorted({'torch', 'numpy', 'matplotlib', 'sklearn', 'pandas'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", look, *command.split()], capture_output=True, text=True, check=True)
    loaded = ended.stdout.splitlines()[-1]
    assert "torch" not in loaded
    assert "matplotlib" not in loaded


def test_info_shows_source_access_parameters_and_presets(leakbench: Leakbench) -> None:
    said = leakbench("info", "privatesnn")
    assert (said.status, said.err) == (0, "")
    plugin = registry.load("defense", "privatesnn")
    assert "defense, version" in said.out
    assert plugin.cites in said.out
    for name, field in plugin.Params.model_fields.items():
        (line,) = [line for line in said.out.splitlines() if line.startswith(f"  {name} ")]
        assert field.description and field.description in line
    assert "preset quick: samples=500" in said.out
    attack = leakbench("info", "direct").out
    assert "attack, version" in attack
    assert "needs: WEIGHTS" in attack
    (line,) = [line for line in attack.splitlines() if line.startswith("  iterations")]
    assert line.split()[1:4] == ["2000", ">=", "1"]


def test_info_shows_models_and_data_sets(leakbench: Leakbench, tmp_path: Path) -> None:
    assert leakbench("info", "vgg5").out.splitlines() == [
        "vgg5  model, built-in",
        "",
        "3 convolutions, for images of 28x28.",
    ]
    digits = leakbench("info", "digits").out.splitlines()
    assert digits[0] == "digits  dataset, built-in"
    assert digits[-1].strip() == "here: inside scikit-learn"
    facts = json.loads(leakbench("info", "cifar10", "--json").out)
    assert (facts["kind"], facts["origin"]) == ("dataset", "built-in")
    assert isinstance(facts["available"], bool) and "cifar-10-binary" in facts["detail"]
    (tmp_path / "mine.py").write_text(
        'def build(image_shape, classes, generator):\n    """Mine.\n\n    More.\n    """\n'
        'def read(folder):\n    """Theirs \\x1b[31m."""\n'
        "class Half:\n    pass\n"
    )
    assert leakbench("info", "mine.py:build").out == "mine.py:build  model, mine.py:build\n\nMine.\n\nMore.\n"
    data = leakbench("info", "mine.py:read").out
    assert data.startswith("mine.py:read  dataset, mine.py:read")
    assert "\x1b" not in data and "Theirs \\x1b[31m." in data
    assert "'mine.py:Half' is no plugin: it must" in leakbench("info", "mine.py:Half").line


def test_public_images_are_said_to_be_needed(
    leakbench: Leakbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "priors.py").write_text(
        "from leakbench.contracts import Access, Attack, Params\n"
        "class Prior(Attack[Params]):\n"
        '    """A prior."""\n'
        '    name = "prior"\n'
        "    needs = Access.SCORES\n"
        "    uses_public = True\n"
        "    def run(self, victim, targets, context):\n"
        "        raise AssertionError\n"
    )
    assert "needs: SCORES and public images (--public)\n" in leakbench("info", "priors.py:Prior").out
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry, "_registered", {"attack": {"prior": "priors:Prior"}, "defense": {}})
    assert "  A prior. (needs SCORES and public images) [registered]\n" in leakbench("list", "attacks").out


def test_info_of_a_file_and_of_a_parameter_without_default(leakbench: Leakbench, warm: Warm, tmp_path: Path) -> None:
    said = leakbench("info", f"{warm.tiny.gated}:Gated")
    assert said.status == 0
    assert said.out.startswith("gated")
    assert "Random images, after waiting at the gate." in said.out
    assert "  none" in said.out  # no parameters
    (tmp_path / "mine.py").write_text(
        "from pydantic import Field\n"
        "from leakbench.contracts import Defense, Params\n"
        "class MineParams(Params):\n"
        '    depth: int = Field(ge=1, lt=9, description="how deep")\n'
        "class Mine(Defense[MineParams]):\n"
        '    """Mine."""\n'
        '    name = "mine"\n'
        "    def protect(self, ann, data, context):\n"
        "        raise AssertionError\n"
    )
    said = leakbench("info", "mine.py:Mine")
    assert said.status == 0
    assert "defense, version 1" in said.out
    assert "Undefined" not in said.out
    (line,) = [line for line in said.out.splitlines() if "depth" in line]
    assert ">= 1, < 9" in line
    assert "how deep" in line


# --- doctor, cache, report ---------------------------------------------------------------------------------------


def test_doctor_tells_what_is_usable(leakbench: Leakbench, warm: Warm) -> None:
    said = leakbench("doctor", "--cache", warm.cache, "--json")
    assert (said.status, said.err) == (0, "")
    rows = {(row["kind"], row["name"]): row for row in json.loads(said.out)}
    assert rows["data set", "digits"]["ok"] is True
    assert rows["data set", "cifar10"]["ok"] is False
    assert rows["device", "cpu"]["ok"] is True
    assert rows["FID", "Inception"]["ok"] is False
    assert str(warm.cache) in rows["cache", "store"]["detail"]
    lines = [line for line in leakbench("doctor", "--cache", warm.cache).out.splitlines() if line[0] != " "]
    assert len(lines) == len(rows)
    assert any(line.startswith("ok") and "digits" in line for line in lines)
    assert any(line.startswith("--") and "cifar10" in line for line in lines)


def test_doctor_survives_a_cache_that_is_none(leakbench: Leakbench) -> None:
    said = leakbench("doctor", "--cache", "/dev/null/cache", "--json")
    assert said.status == 0
    (row,) = [row for row in json.loads(said.out) if row["kind"] == "cache"]
    assert row["ok"] is False
    assert "/dev/null/cache" in row["detail"]


def test_cache_ls_adds_up(leakbench: Leakbench, warm: Warm) -> None:
    said = leakbench("cache", "ls", "--cache", warm.cache)
    assert (said.status, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0] == str(warm.cache)
    counts = {line.split()[0]: int(line.split()[1]) for line in lines[1:]}
    # 4 victims, 2 attacks on each, and one of them at half its effort, which is not compared with real images;
    # 3 draws and a fresh one of each anchor
    counted = {
        "ann": 1, "judge": 2, "jury": 1, "features": 1, "victim": 4, "utility": 4,
        "attack": 9, "anchor": 8, "judged": 17, "compared": 16, "uap": 8, "uap-brackets": 4,
    }  # fmt: skip
    assert counts == counted | {"all": sum(counted.values())}


def test_cache_prune_removes_what_is_old(leakbench: Leakbench, warm: Warm, tmp_path: Path) -> None:
    cache = copied(warm.cache, tmp_path / "cache")
    old = cell_of(warm.record, OURS).artifacts["victim"]
    then = time.time() - 40 * 86400
    os.utime(cache / "objects" / old[:2] / old / "manifest.json", (then, then))
    assert leakbench("cache", "prune", "--cache", cache).out.startswith("removed 1 artifacts, ")
    assert artifacts(cache).keys() == artifacts(warm.cache).keys() - {old}
    rest = len(artifacts(cache))
    assert leakbench("cache", "prune", "--cache", cache, "--older-than", 0).out.startswith(
        f"removed {rest} artifacts, "
    )
    assert not list(Store(cache).entries())


def test_the_cache_is_the_environment_s_unless_named(
    leakbench: Leakbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEAKBENCH_CACHE", str(tmp_path / "one"))
    assert leakbench("cache", "ls").out.splitlines()[0] == str(tmp_path / "one")
    assert leakbench("cache", "ls", "--cache", tmp_path / "two").out.splitlines()[0] == str(tmp_path / "two")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LEAKBENCH_CACHE", "~/three")
    assert leakbench("cache", "ls").out.splitlines()[0] == str(tmp_path / "three")


def test_report_writes_page_and_tables_from_the_record_alone(leakbench: Leakbench, warm: Warm, tmp_path: Path) -> None:
    out = copied(warm.out, tmp_path / "run")
    said = leakbench("report", out)
    assert (said.status, said.out, said.err) == (0, f"{out / 'report.html'}\n", "")
    assert "<html" in (out / "report.html").read_text(encoding="utf-8")
    assert all((out / name).stat().st_size > 0 for name in ("results.csv", "results.md", "results.tex"))


def test_the_csv_holds_every_value_once(leakbench: Leakbench, warm: Warm, tmp_path: Path) -> None:
    out = copied(warm.out, tmp_path / "run")
    leakbench("report", out)
    with (out / "results.csv").open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        columns = next(reader)
        rows = [dict(zip(columns, row, strict=True)) for row in reader]
    assert columns[: len(COLUMNS)] == COLUMNS  # new ones come last
    # what is of all seeds together is of none; the tests of the reports look at that
    rows = [row for row in rows if row["seed"]]
    assert len(rows) == sum(len(cell.values) + len(cell.findings) + len(cell.classes) for cell in warm.record.cells)
    rows = [row for row in rows if not row["metric"].startswith(("finding: ", "class: "))]
    read = {
        (row["dataset"], row["model"], plain(row["defense"]), plain(row["attack"]), row["seed"], row["metric"]): (
            float(row["value"]),
            float(row["low"]) if row["low"] else None,
            float(row["high"]) if row["high"] else None,
            int(row["n"]),
        )
        for row in rows
        if row["metric"] != "seconds"
    }
    assert read == numbers(warm.record)
    assert {row["status"] for row in rows} == {"ok"}


# --- run ---------------------------------------------------------------------------------------------------------


def test_a_run_prints_its_table_and_where_the_report_is(leakbench: Leakbench, warm: Warm, tmp_path: Path) -> None:
    said = leakbench(*warm.tiny.arguments(tmp_path / "run"), "--cache", warm.cache)
    assert said.status == 0
    assert said.out.splitlines()[-1] == f"report: {tmp_path / 'run' / 'report.html'}"
    assert (tmp_path / "run" / "report.html").is_file()
    assert said.out.startswith(f"{OURS_LABEL}: inconclusive. no valid attack: {DIRECT_LABEL}: invalid (G1: not better")
    lines = [line.rstrip() for line in said.out.splitlines()]
    heading, *table = lines[lines.index("leakage index") + 1 : -1]
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
    assert [line.partition("]")[0] for line in lines[1:]] == [f"[{n}/{CELLS}" for n in range(1, CELLS + 1)]
    check = f"{OURS_LABEL} x {DIRECT_LABEL} (iterations=1)"
    assert lines[-1] == f"[{CELLS}/{CELLS}] ok: {warm.tiny.dataset} vgg4 seed 0: {check}"
    record = record_in(tmp_path / "run")
    assert numbers(record) == numbers(warm.record)
    assert record.command.startswith("leakbench run --out ")


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
        assert sum(line.startswith(f"{name} {model} {OURS_LABEL}: inconclusive. ") for line in lines) == 1
        table = lines[lines.index(f"leakage index, {name} {model}") + 1 :][: 1 + len(DEFENSES)]
        assert table[0].split() == ["defense", *(LABELS[attack] for attack in ATTACKS)]
        assert [line.split()[0] for line in table[1:]] == [LABELS[defense] for defense in DEFENSES]


@pytest.mark.slow
def test_json_is_one_object_and_quiet_is_silent(leakbench: Leakbench, warm: Warm, tmp_path: Path) -> None:
    said = leakbench(*warm.tiny.arguments(tmp_path / "run"), "--cache", warm.cache, "--json", "--quiet")
    assert (said.status, said.err) == (0, "")
    assert len(said.out.splitlines()) == 1
    out = tmp_path / "run"
    where = {"dataset": warm.tiny.dataset, "model": "vgg4", "defense": OURS_LABEL}
    verdict = {**where, "outcome": "inconclusive", "attack": ""}
    assert json.loads(said.out) == {
        "run": str(out),
        "report": str(out / "report.html"),
        "cells": CELLS,
        "failed": 0,
        "verdicts": [verdict],
        "failures": [],
    }


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
    assert said.out.startswith(f"{OURS_LABEL}: inconclusive. no attack on it gave images that could be judged")
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
    assert all(any(line.startswith(f"{label}: inconclusive. ") for line in lines) for label in labels)
    heading = lines[[line.strip() for line in lines].index("leakage index") + 1]
    assert heading.split() == ["defense", DIRECT_LABEL]
    assert all(any(line.startswith(label) for line in lines) for label in labels)


@pytest.mark.slow
def test_a_configuration_file_names_the_options_and_options_win(
    leakbench: Leakbench, warm: Warm, tmp_path: Path
) -> None:
    (tmp_path / "grid.toml").write_text(
        "\n".join(
            [
                f'defense = "{OURS}"',
                f"attack = ['direct', '{warm.tiny.gated}:Gated']",
                f"dataset = '{warm.tiny.dataset}'",
                'model = "vgg4"',
                "timesteps = 4",
                "images-per-class = 2",
                'preset = "quick"',
                f"ann = '{warm.tiny.checkpoint}'",
                f"cache = '{warm.cache}'",
                "out = 'from-file'",
                "[set]",
                "direct.iterations = 2",
                f"{OURS} = {{ images = 16 }}",
            ]
        )
    )
    before = artifacts(warm.cache)
    assert leakbench("run", "--config", "grid.toml", "--quiet").status == 0
    assert numbers(record_in(tmp_path / "from-file")) == numbers(warm.record)
    assert artifacts(warm.cache) == before
    said = leakbench(
        "run", "--config", "grid.toml", "--quiet", "--out", "from-options", "--cache", warm.grown,
        "-a", "direct", "--images-per-class", "4", "--set", "direct.iterations=1", "--no-controls",
    )  # fmt: skip
    assert said.status == 0
    record = record_in(tmp_path / "from-options")
    assert [(c.defense, c.attack) for c in record.cells if c.defense] == [
        (OURS_LABEL, ""),
        (OURS_LABEL, "direct[iterations=1]"),
    ]
    cell = cell_of(record, OURS, "direct")
    assert value_of(cell, "gradient_steps") == 1
    assert {value.n for value in cell.values if value.metric == "judge_accuracy"} == {12}
    assert record.grid["set"][f"{OURS}.images"] == [16]  # the file's other settings stay
    assert artifacts(warm.cache) == before


@pytest.mark.slow
def test_without_out_the_folder_is_named_by_the_grid(leakbench: Leakbench, warm: Warm, tmp_path: Path) -> None:
    arguments = warm.tiny.arguments(tmp_path)
    del arguments[1:3]  # --out
    said = leakbench(*arguments, "--cache", warm.cache, "--json", "-q")
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith(f"shapes-{OURS}-")
    assert json.loads(said.out)["run"] == f"runs/{folder.name}"
    assert leakbench(*arguments, "--cache", warm.cache, "--json", "-q").out == said.out  # the same grid goes on there
    assert list((tmp_path / "runs").iterdir()) == [folder]


@pytest.mark.parametrize(
    ("in_file", "options", "jobs"), [("", (), None), ("jobs = 2", (), 2), ("jobs = 2", ("-j", 3), 3)]
)
def test_a_run_has_the_jobs_that_it_is_told_and_one_thread_in_its_own_process(
    leakbench: Leakbench,
    warm: Warm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    in_file: str,
    options: tuple[object, ...],
    jobs: int | None,
) -> None:
    seen: list[tuple[int | None, set[int]]] = []

    def look(_grid: object, _settings: object, _out: object, jobs: int | None, *_: object) -> None:
        seen.append((jobs, {torch.get_num_threads(), *(pool["num_threads"] for pool in threadpool_info())}))
        raise UsageError("enough")

    monkeypatch.setattr(runner, "run_grid", look)
    (tmp_path / "grid.toml").write_text(in_file)
    leakbench(*warm.tiny.arguments(tmp_path / "run"), "--config", "grid.toml", *options)
    assert seen == [(jobs, {1})]


@pytest.mark.slow
def test_resume_takes_the_grid_from_the_folder(leakbench: Leakbench, warm: Warm, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "grid.json").write_bytes((warm.out / "grid.json").read_bytes())  # begun and killed at once
    said = leakbench("run", "--resume", "--out", out, "--cache", warm.cache, "--trust-plugins", "-q", "--json")
    assert said.status == 0
    assert json.loads(said.out)["cells"] == CELLS
    assert numbers(record_in(out)) == numbers(warm.record)
    assert json.loads((out / "grid.json").read_text()) == json.loads((warm.out / "grid.json").read_text())


@pytest.mark.parametrize("fault", ["another grid", "foreign folder", "file in the path"])
def test_an_out_folder_that_is_no_place_for_this_run(
    leakbench: Leakbench, warm: Warm, tmp_path: Path, fault: str
) -> None:
    out = tmp_path / "run"
    if fault == "another grid":
        copied(warm.out, out)
    elif fault == "foreign folder":
        out.mkdir()
        (out / "thesis.tex").write_text("mine")
    else:
        out.write_text("a file")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    line = leakbench(*warm.tiny.arguments(out, seeds=2), "--cache", warm.cache).line
    words = {"another grid": "another grid", "foreign folder": "not empty", "file in the path": "can't be written"}
    assert words[fault] in line
    assert f"--out '{out}'" in line
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
