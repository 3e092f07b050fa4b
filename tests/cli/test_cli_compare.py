"""``leakbench compare``, and ``--fail-if`` of both commands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cli_said import Leakbench
from compared_runs import another_set, attacked, own, run
from tiny_runs import Warm, copied

from leakbench.bench.comparison import Comparison
from leakbench.bench.run_folder import save_record
from leakbench.records import SCHEMA, CellRecord, RunRecord

HIGH = [0.9, 0.8, 0.9, 1.0, 0.8, 0.9, 0.7, 0.9, 1.0, 0.8]
LOW = [0.3, 0.4, 0.2, 0.5, 0.3, 0.2, 0.4, 0.3, 0.5, 0.4]


def written(folder: str, *cells: CellRecord, **given: object) -> Path:
    """The folder of a run that holds these cells."""
    out = Path(folder)
    out.mkdir(parents=True)
    save_record(run(*cells, **given), out)
    return out


def one(name: str, scores: list[float] = LOW) -> list[CellRecord]:
    return [own(name), attacked(name, scores)]


@pytest.mark.slow
def test_two_runs_are_ranked_and_their_difference_is_told(leakbench: Leakbench) -> None:
    a, b = written("monday", *one("mine")), written("tuesday", *one("theirs", HIGH))
    said = leakbench("compare", a, b)
    assert (said.status, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0] == "ranking on digits by the worst case (1 leaks least):"
    assert [line.split()[:2] for line in lines[2:4]] == [["mine", "1"], ["theirs", "2"]]
    assert "  mine leaks less than theirs: −.65 [" in said.out
    folder = Path("runs/compare-monday-tuesday")
    assert said.out.endswith(f"comparison: {folder / 'comparison.html'}\n")
    found = Comparison.model_validate_json((folder / "comparison.json").read_bytes())
    assert [run.name for run in found.runs] == ["monday", "tuesday"]


@pytest.mark.slow
def test_no_word_of_the_lines_is_broken_at_80_columns(leakbench: Leakbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    a = written("one", *one("mine"), *one("a-defence-of-a-rather-long-name", HIGH))
    for line in leakbench("compare", a).out.splitlines():
        assert len(line) <= 80 or " " not in line.strip()


@pytest.mark.slow
def test_a_run_copied_elsewhere_compares_there(leakbench: Leakbench) -> None:
    home, away = written("home/run", *one("mine")), Path("usb/stick")
    shutil.copytree(home, away)
    shutil.rmtree("home")
    assert leakbench("compare", away).status == 0


@pytest.mark.slow
def test_folders_of_one_name_are_told_apart_by_what_they_lie_in(leakbench: Leakbench) -> None:
    a, b = written("x/run", *one("mine")), written("y/run", *one("theirs"))
    said = json.loads(leakbench("compare", a, b, "--json").out)
    assert [one["runs"] for one in said["defenses"]] == [["x/run"], ["y/run"]]
    assert (Path(said["comparison"]) / "comparison.json").is_file()


@pytest.mark.slow
def test_json_is_for_programs(leakbench: Leakbench) -> None:
    said = leakbench("compare", written("run", *one("mine"), *one("theirs", HIGH)), "--json", "--fail-if", "leakage>0")
    assert said.status == 3
    found = json.loads(said.out)
    assert {one["label"]: one["rank"] for one in found["defenses"]} == {"mine": [1, 1], "theirs": [2, 2]}
    assert len(found["failures"]) == 2 and found["pairs"]


@pytest.mark.slow
def test_what_can_not_be_compared_is_refused_in_one_line(leakbench: Leakbench) -> None:
    a = written("a", *one("mine"))
    b = written("b", *one("theirs"))
    save_record(another_set(run(*one("theirs"))), b)
    assert leakbench("compare", a, b).line.startswith("these runs can't be compared: other data: a is of digits")
    said = leakbench("compare", a, b, "--anyway")
    assert said.status == 0 and said.out.startswith("not comparable: other data: a is of digits, b of mnist")


@pytest.mark.slow
def test_wrong_runs_are_refused_in_one_line(leakbench: Leakbench) -> None:
    good, old, damaged = written("good", *one("mine")), written("old", *one("mine")), written("damaged", *one("mine"))
    now, before = (f'"schema_version": {version}' for version in (SCHEMA, SCHEMA - 1))
    text = (old / "results.json").read_text().replace(now, before)
    (old / "results.json").write_text(text)
    (damaged / "results.json").write_text("[]")
    assert f"schema version {SCHEMA - 1}, this LeakBench reads {SCHEMA}" in leakbench("compare", good, old).line
    assert "is no record of a run" in leakbench("compare", damaged).line
    assert "give the folder of a finished run" in leakbench("compare", "nowhere").line
    assert leakbench("compare", good, "./good").line == "'good' is given twice: give each run once"


@pytest.mark.slow
def test_a_comparison_does_not_lie_among_other_files(leakbench: Leakbench) -> None:
    run_folder = written("run", *one("mine"))
    before = sorted(run_folder.iterdir())
    assert "holds no comparison" in leakbench("compare", run_folder, "--out", run_folder).line
    assert sorted(run_folder.iterdir()) == before
    for _ in range(2):  # over its like it is written again
        assert leakbench("compare", run_folder, "--out", "comparison").status == 0


@pytest.mark.slow
def test_a_partial_record_is_compared_where_there_is_no_other(leakbench: Leakbench) -> None:
    folder = written("run", *one("mine"))
    (folder / "results.json").rename(folder / "results.partial.json")
    assert leakbench("compare", folder).status == 0


@pytest.mark.slow
def test_hostile_names_are_shown_and_not_obeyed(leakbench: Leakbench) -> None:
    hostile = "[red]\x1b[31mx\n\u202ey" + "z" * 300
    said = leakbench("compare", written("run", *one(hostile), *one("mine", HIGH)))
    assert said.status == 0
    assert "[red]\\x1b[31mx\\n\\u202ey" in said.out
    assert "\x1b" not in said.out and "\u202e" not in said.out


# --- gates -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_gate_that_fails_ends_with_3_and_says_which_and_why(leakbench: Leakbench) -> None:
    folder = written("run", *one("mine", HIGH))
    said = leakbench("compare", folder, "--fail-if", "classes.weights.value > 0.2", "--fail-if", "accuracy < 0.5")
    assert said.status == 3
    assert (
        said.err
        == "leakbench: --fail-if 'classes.weights.value > 0.2': mine: classes.weights.value is 0.9625 by direct\n"
    )
    assert leakbench("compare", folder, "--fail-if", "accuracy < 0.5").status == 0


def test_a_wrong_condition_is_refused_before_anything_is_computed(leakbench: Leakbench) -> None:
    said = leakbench("run", "-d", "han2020", "--out", "new", "--fail-if", "leakege > 1")
    assert "did you mean 'leakage'" in said.line
    assert not Path("new").exists()


@pytest.mark.slow
def test_gates_of_a_run(warm: Warm, leakbench: Leakbench, tmp_path: Path) -> None:
    found = RunRecord.model_validate_json((warm.out / "results.json").read_bytes())
    assert any(verdict.outcome == "inconclusive" for verdict in found.verdicts)  # so that any limit of leakage fails
    out, cache = copied(warm.out, tmp_path / "out"), copied(warm.cache, tmp_path / "store")

    def gated(*conditions: str) -> tuple[int, list[str]]:
        options = [part for text in conditions for part in ("--fail-if", text)]
        again = ("run", "--resume", "--trust-plugins", "--no-isolate", "--out", out, "--cache", cache, "--quiet")
        said = leakbench(*again, *options)
        failed = {line.split("'")[1] for line in said.err.splitlines() if "--fail-if" in line}
        return said.status, sorted(failed)

    assert gated("accuracy < 0") == (0, [])
    assert gated("accuracy < 0", "accuracy >= 0", "leakage > 1") == (3, ["accuracy >= 0", "leakage > 1"])


def test_conditions_may_stand_in_a_config(leakbench: Leakbench) -> None:
    Path("grid.toml").write_text('defense = ["han2020"]\nfail_if = ["leakege > 1"]\n')
    assert "did you mean 'leakage'" in leakbench("run", "--config", "grid.toml").line
    Path("grid.toml").write_text('defense = ["han2020"]\nfail_if = [1]\n')
    assert leakbench("run", "--config", "grid.toml").line == "--config: fail_if must be a list of texts, got [1]"


@pytest.mark.slow
def test_a_gate_fails_on_a_run_that_broke_off(leakbench: Leakbench) -> None:
    said = leakbench("compare", written("broken", *one("mine"), complete=False), "--fail-if", "leakage > 1")
    assert said.status == 3
    assert said.err == "leakbench: --fail-if 'leakage > 1': can't be checked on all of it: broken is not complete\n"


@pytest.mark.slow
def test_three_that_beat_each_other_in_a_circle_are_told_so(leakbench: Leakbench) -> None:
    runs = [
        written(name, own(name), attacked(name, LOW, kept), attacked(name, HIGH, lost))
        for name, kept, lost in (
            ("a", "direct", "label_only"),
            ("b", "extraction", "direct"),
            ("c", "label_only", "extraction"),
        )
    ]
    said = leakbench("compare", *runs)
    assert said.status == 0
    assert "None leaks least" in (Path("runs/compare-a-b-c") / "comparison.html").read_text()


def test_other_peoples_files_are_not_taken_for_a_comparison(leakbench: Leakbench) -> None:
    folder = written("run", *one("mine"))
    Path("theirs").mkdir()
    Path("theirs/comparison.json").write_text('{"mine": 1}')
    assert "holds no comparison" in leakbench("compare", folder, "--out", "theirs").line
    assert Path("theirs/comparison.json").read_text() == '{"mine": 1}'


@pytest.mark.slow
def test_long_names_have_folders_of_their_own(leakbench: Leakbench) -> None:
    a, b, c = (written("x" * 70 + end, *one("mine")) for end in "abc")
    folders = {json.loads(leakbench("compare", a, other, "--json").out)["comparison"] for other in (b, c)}
    assert len(folders) == 2


def test_export_does_not_replace_a_record(leakbench: Leakbench) -> None:
    folder = written("run", *one("mine"))
    before = (folder / "results.json").read_bytes()
    for option in (("--csv", "long", "--out"), ("--parquet",)):
        said = leakbench("export", folder, *option, folder / "results.json")
        assert "would take the place of a record" in said.line
    assert (folder / "results.json").read_bytes() == before


def test_a_run_that_is_not_complete_is_told_of(leakbench: Leakbench) -> None:
    written("broken", *one("mine"), complete=False)
    said = leakbench("compare", "broken", written("whole", *one("theirs")))
    assert said.out.splitlines()[0] == "incomplete: broken: it was interrupted, or cells of it failed"
    assert "incomplete: whole" not in said.out


def test_a_run_that_broke_off_without_a_record_is_to_go_on(leakbench: Leakbench) -> None:
    written("killed", *one("mine"))
    Path("killed/results.json").unlink()
    Path("killed/grid.json").write_text("{}")
    line = "killed has no results.json: the run broke off: leakbench run --resume --out killed"
    assert leakbench("compare", "killed").line == line
