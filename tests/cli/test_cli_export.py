from __future__ import annotations

import builtins
import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from cli_said import Leakbench
from tiny_runs import Warm, copied

from leakbench.bench.comparison import Comparison, compare
from leakbench.bench.comparison.records import COMPARISON_SCHEMA
from leakbench.reports.comparison_tables import csv_text as pairs_csv
from leakbench.reports.comparison_tables import latex_text as comparison_latex
from leakbench.reports.tables import csv_text, latex_text


@pytest.fixture
def comparison(warm: Warm, tmp_path: Path) -> Comparison:
    """As it lies in the folder "compared"."""
    made = compare({"run": warm.record})
    (tmp_path / "compared").mkdir()
    (tmp_path / "compared" / "comparison.json").write_text(made.model_dump_json(), encoding="utf-8")
    return made


@pytest.mark.slow
def test_a_run_is_exported_as_its_folder_has_it(leakbench: Leakbench, warm: Warm) -> None:
    said = leakbench("export", warm.out, "--csv", "long")
    assert (said.status, said.out, said.err) == (0, csv_text(warm.record), "")
    assert leakbench("export", warm.out, "--latex").out == latex_text(warm.record)
    wide = pd.read_csv(io.StringIO(leakbench("export", warm.out, "--csv", "wide").out))
    assert len(wide) == len(warm.record.cells) + len(warm.record.rows) + len(warm.record.verdicts)


@pytest.mark.slow
def test_a_comparison_is_exported(leakbench: Leakbench, comparison: Comparison) -> None:
    assert leakbench("export", "compared", "--csv", "long").out == pairs_csv(comparison)
    assert leakbench("export", "compared", "--latex").out == comparison_latex(comparison)
    (line,) = csv.DictReader(io.StringIO(leakbench("export", "compared", "--csv", "wide").out))
    assert line["label"] == comparison.defenses[0].label


@pytest.mark.slow
def test_a_file_takes_what_would_be_printed(leakbench: Leakbench, warm: Warm, tmp_path: Path) -> None:
    said = leakbench("export", warm.out, "--csv", "long", "--out", "table.csv")
    assert (said.status, said.out, said.err) == (0, "", "")
    assert (tmp_path / "table.csv").read_bytes() == csv_text(warm.record).encode()
    assert "can't be written" in leakbench("export", warm.out, "--latex", "--out", "nowhere/table.tex").line


@pytest.mark.slow
def test_parquet_keeps_the_types(leakbench: Leakbench, warm: Warm, comparison: Comparison, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    assert leakbench("export", warm.out, "--parquet", "run.parquet").status == 0
    assert leakbench("export", "compared", "--parquet", "compared.parquet").status == 0
    frame = pd.read_parquet(tmp_path / "run.parquet")
    assert frame["value"].dtype == "float64" and str(frame["seed"].dtype) == "Int64"
    values = [value.value for cell in warm.record.cells for value in cell.values]
    measured = frame[~frame["metric"].str.startswith(("class: ", "finding: ", "budget: ")) & frame["seed"].notna()]
    assert measured["value"].tolist() == values
    assert len(pd.read_parquet(tmp_path / "compared.parquet")) == len(comparison.pairs)


def test_without_pyarrow_a_line_says_what_to_install(
    leakbench: Leakbench, warm: Warm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = builtins.__import__

    def refusing(name: str, *others: Any) -> Any:
        if name.partition(".")[0] == "pyarrow":
            raise ImportError(name)
        return real(name, *others)

    monkeypatch.setattr(builtins, "__import__", refusing)
    line = leakbench("export", warm.out, "--parquet", tmp_path / "x").line
    assert line == "--parquet needs pyarrow: pip install pyarrow"


@pytest.mark.parametrize(
    "options",
    [[], ["--latex", "--csv", "wide"], ["--latex", "--parquet", "x"], ["--csv", "long", "--parquet", "x"]],
    ids=" ".join,
)
def test_exactly_one_format(leakbench: Leakbench, warm: Warm, options: list[str]) -> None:
    assert "one of --latex, --csv wide|long and --parquet FILE" in leakbench("export", warm.out, *options).line


@pytest.mark.parametrize(
    "options",
    [["--out", "results.nir"], ["--out", "grid.nir"], ["--out", "grid.json"], ["--out", "n.json", "--format", "nir"]],
    ids=" ".join,
)
def test_a_network_takes_no_record_s_place(leakbench: Leakbench, warm: Warm, options: list[str]) -> None:
    """Nor do the settings that lie beside a NIR file."""
    line = leakbench("export", warm.out, "--snn", "han2020", *options).line
    assert "choose another" in line


@pytest.mark.parametrize(("ending", "other"), [("nir", "safetensors"), ("safetensors", "nir")])
def test_a_network_s_file_is_not_called_what_it_is_not(
    leakbench: Leakbench, warm: Warm, ending: str, other: str
) -> None:
    line = leakbench("export", warm.out, "--snn", "han2020", "--out", f"n.{ending}", "--format", other).line
    assert f"would be read as {ending}" in line


def test_options_that_do_not_fit(leakbench: Leakbench, warm: Warm) -> None:
    assert "'wide', 'long'" in leakbench("export", warm.out, "--csv", "tall").line
    assert "leave out --out" in leakbench("export", warm.out, "--parquet", "x", "--out", "y").line
    for option in (("--seed", "0"), ("--format", "nir")):
        assert "are of a network: give --snn" in leakbench("export", warm.out, "--csv", "wide", *option).line
    assert "give --snn or --judges, too" in leakbench("export", warm.out, "--csv", "wide", "--cache", "x").line


@pytest.mark.slow
@pytest.mark.usefixtures("comparison")
def test_folders_without_a_record(leakbench: Leakbench, warm: Warm, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert leakbench("export", "nowhere", "--latex").line.startswith("nowhere is no folder")
    assert "neither results.json nor comparison.json" in leakbench("export", "empty", "--latex").line
    both = copied(warm.out, tmp_path / "both")
    (both / "comparison.json").write_bytes((tmp_path / "compared" / "comparison.json").read_bytes())
    assert "both results.json and comparison.json" in leakbench("export", both, "--latex").line


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (
            {"schema_version": 0, "runs": "of another version"},
            f"schema version 0, this LeakBench reads {COMPARISON_SCHEMA}: use the version",
        ),
        ({"schema_version": "\x1b[2J"}, "is no record of a comparison: schema_version"),
        ({"pairs": [{"first": 1}]}, "is no record of a comparison: pairs.0"),
        ({"more": 1}, "is no record of a comparison: more"),
    ],
)
def test_a_comparison_of_a_stranger_is_checked(
    leakbench: Leakbench, comparison: Comparison, tmp_path: Path, change: dict[str, Any], wanted: str
) -> None:
    text = json.dumps(json.loads(comparison.model_dump_json()) | change)
    (tmp_path / "compared" / "comparison.json").write_text(text)
    assert wanted in leakbench("export", "compared", "--latex").line


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "null", '{"schema_version": 1}'], ids=len)
def test_what_is_no_comparison_at_all(leakbench: Leakbench, tmp_path: Path, text: str) -> None:
    (tmp_path / "compared").mkdir()
    (tmp_path / "compared" / "comparison.json").write_text(text)
    assert "is no record of a comparison" in leakbench("export", "compared", "--csv", "long").line


def test_a_terminal_obeys_nothing_in_a_name(
    leakbench: Leakbench, comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = comparison.defenses[0].model_copy(update={"label": "\x1b[2J\u202e"})
    text = comparison.model_copy(update={"defenses": [named]}).model_dump_json()
    (tmp_path / "compared" / "comparison.json").write_text(text, encoding="utf-8")
    assert "\x1b[2J\u202e" in leakbench("export", "compared", "--csv", "wide").out
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda _: True)
    shown = leakbench("export", "compared", "--csv", "wide").out
    assert r"\x1b[2J\u202e" in shown and "\x1b" not in shown and len(shown.splitlines()) == 2
