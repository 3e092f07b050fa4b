"""What a report is written to, and what no report is written of."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from realistic_samples import realistic
from report_page import Page
from report_samples import (
    small,
    write,
)

from leakbench.errors import StoreError, UsageError
from leakbench.records import (
    PARTIAL as POORER,
)
from leakbench.reports import write_report
from leakbench.reports.html import render


@pytest.mark.long
@pytest.mark.slow
def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    made = realistic(tmp_path)
    first = render(made, tmp_path)
    assert render(made, tmp_path) == first
    write(tmp_path, made)
    code = (
        "import sys; from pathlib import Path; from leakbench.reports import write_report;"
        "sys.stdout.write(str(write_report(Path(sys.argv[1]))))"
    )
    # another process has another hash seed
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
    assert Path(done.stdout).read_bytes() == first.encode()


@pytest.mark.slow
def test_where_a_run_lies_is_not_on_its_page(tmp_path: Path) -> None:
    made = realistic(tmp_path)
    assert str(tmp_path) not in render(made, tmp_path)


def test_an_old_report_is_replaced_and_not_mixed(tmp_path: Path) -> None:
    write(tmp_path, small())
    (tmp_path / "report.html").write_text("old " * 100_000)
    assert "old old" not in write_report(tmp_path).read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_poorer_record_has_a_page_and_tables_of_its_own_that_say_so(tmp_path: Path) -> None:
    write_report(write(tmp_path, small()))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / POORER.record).write_text(small().model_copy(update={"complete": False}).model_dump_json())
    assert write_report(tmp_path, POORER) == tmp_path / "report.partial.html"
    assert {path: path.read_bytes() for path in before} == before
    names = {"results.partial.csv", "results.partial.md", "results.partial.tex"}
    assert {path.name for path in tmp_path.iterdir() if path not in before} == {POORER.record, POORER.page, *names}
    found = Page((tmp_path / POORER.page).read_text(encoding="utf-8"))
    assert "A poorer record" in found.text and all(name in found.text for name in names)
    assert "A poorer record" not in Page((tmp_path / "report.html").read_text(encoding="utf-8")).text


def test_a_failing_write_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, small())
    (tmp_path / "results.csv").write_text("old")

    def full(_self: Path, _target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StoreError, match="No space left"):
        write_report(tmp_path)
    assert (tmp_path / "results.csv").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.csv", "results.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "can't be read"),
        ("", "no record of a run"),
        ("{", "no record of a run"),
        ("[]", "no record of a run"),
        ('{"schema_version": 1}', "no record of a run"),
        (json.dumps({"cells": [], "schema_version": 1, "leakbench": "0.0.9"}), "schema version 1, .*0.0.9"),
        (small().model_copy(update={"schema_version": 99}).model_dump_json(), "schema version 99"),
    ],
)
def test_what_is_no_record_is_refused_in_one_line(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "results.json").write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        write_report(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_importing_the_package_draws_nothing(tmp_path: Path) -> None:
    code = "import leakbench.reports, sys; sys.exit('matplotlib' in sys.modules or 'jinja2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=tmp_path).returncode == 0
