"""What others wrote reaches a terminal as text: no escape sequence, line end or turned writing direction is obeyed."""

from __future__ import annotations

import inspect
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cli_said import Leakbench
from tiny_runs import Warm, copied

from leakbench import registry
from leakbench.cli.run import _summary
from leakbench.errors import LeakBenchError, printable
from leakbench.leakage.inversion.verdict_text import headline
from leakbench.leakage.kind import index_line
from leakbench.session.progress import Bars, Lines, Silent

NASTY = "n\x1b[31m\n\r\x07\u202e\x85z"
SHOWN = "n\\x1b[31m\\n\\r\\x07\\u202e\\x85z"
RUN = ("run", "-d", "han2020", "-a", "direct", "--preset", "quick")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain [red]text[/red] \\x1b", "plain [red]text[/red] \\x1b"),
        ("Größe 大きさ مرحبا ☃ 🐈", "Größe 大きさ مرحبا ☃ 🐈"),
        ("", ""),
        ("a\tb\nc\r\x00\x7f", "a\\tb\\nc\\r\\x00\\x7f"),
        ("\x9b31m\u2028\u2029", "\\x9b31m\\u2028\\u2029"),
        ("\u202a\u202e\u2066\u2069\u200f\ufeff", "\\u202a\\u202e\\u2066\\u2069\\u200f\\ufeff"),
        ("\udcff\ud800", "\\udcff\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        (NASTY, SHOWN),
    ],
)
def test_what_can_not_be_printed_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


def harmless(text: str) -> str:
    """The text, in which nothing but line ends is not printable."""
    assert text.replace("\n", "").isprintable(), text
    return text


@pytest.mark.parametrize(
    "arguments",
    [
        ["report", "{}"],
        [*RUN, "--inception", "{}"],
        [*RUN, "--features", "{}"],
        [*RUN, "--device", "{}"],
        [*RUN, "--ann", "{}"],
        [*RUN, "--out", "/dev/null/{}"],
        [*RUN, "--cache", "/dev/null/{}"],
        [*RUN, "--dataset", "folder:{}"],
        [*RUN, "--public", "{}"],
        [*RUN, "--set", "{}=1"],
        [*RUN, "--set", "direct.iterations={}"],
        [*RUN, "--{}"],
        [*RUN, "{}"],
        [*RUN, "-a", "{}.py:Mine"],
        ["run", "--config", "{}"],
        ["run", "--resume", "--out", "{}"],
        ["info", "{}"],
        ["list", "{}"],
        ["{}"],
        ["cache", "ls", "--cache", "/dev/null/{}"],
    ],
    ids=" ".join,
)
def test_wrong_input_is_shown_and_not_obeyed(leakbench: Leakbench, arguments: list[str]) -> None:
    # typer strips the line ends of some arguments
    assert "\\x1b[31m" in harmless(leakbench(*(argument.format(NASTY) for argument in arguments)).line)


@pytest.mark.slow
def test_a_report_s_path(leakbench: Leakbench, warm: Warm, tmp_path: Path) -> None:
    said = leakbench("report", copied(warm.out, tmp_path / NASTY))
    assert (said.status, said.err) == (0, "")
    assert harmless(said.out) == f"{tmp_path}/{SHOWN}/report.html\n"


def test_doctor(leakbench: Leakbench, tmp_path: Path) -> None:
    names = {name: tmp_path / f"{name}{NASTY}" for name in ("cache", "data", "inception", "features")}
    said = leakbench("doctor", *(part for name, path in names.items() for part in (f"--{name}", path)))
    assert (said.status, said.err) == (0, "")
    assert all(f"{name}{SHOWN}" in harmless(said.out) for name in names)


DOC = f"First {NASTY}.\n\n    Second\tparagraph."
PLUGIN = f"""
from pydantic import Field
from leakbench.contracts import Access, Attack, Params

class Knobs(Params):
    iterations: int = Field(3, description={NASTY!r})

class Mine(Attack[Knobs]):
    __doc__ = {DOC!r}

    name = "mine"
    needs = Access.LABELS
    cites = {NASTY!r}

    def run(self, victim, targets, context):
        raise AssertionError
"""


def test_info_and_list_show_a_plugin_s_words(
    leakbench: Leakbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    said = leakbench("info", "mine.py:Mine")
    assert (said.status, said.err) == (0, "")
    lines = harmless(said.out).splitlines()
    # its own line ends stay; Python 3.13 trims indentation by another rule
    doc = inspect.cleandoc(DOC)
    for sign in "\x1b\r\x07\u202e\x85":
        doc = doc.replace(sign, sign.encode("unicode_escape").decode())
    assert lines[2:6] == doc.split("\n")
    assert f"source: {SHOWN}" in lines
    assert lines[-1] == f"  iterations  3    {SHOWN}"
    plugin = registry.load("attack", "mine.py:Mine")
    monkeypatch.setattr(registry, "_registered", {"attack": {f"mine{NASTY}": plugin}, "defense": {}})
    listed = harmless(leakbench("list", "attacks").out)
    # the name is longer than its column
    name, summary = listed.splitlines()[-2:]
    assert (name, summary.strip()) == (f"  mine{SHOWN}", "First n\\x1b[31m \\x07\\u202e z. (needs LABELS) [registered]")


@pytest.mark.slow
def test_what_a_plugin_raises_and_logs(leakbench: Leakbench, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        f"import logging\nlogging.getLogger('leakbench').warning({NASTY!r})\nraise ImportError({NASTY!r})"
    )
    said = leakbench(*RUN, "-a", "mine.py:Mine")
    warning, error = harmless(said.err).splitlines()
    assert warning == f"leakbench: warning: {SHOWN}"
    assert error == f"leakbench: {tmp_path / 'mine.py'} can't be imported: ImportError: n\\x1b[31m"


@pytest.mark.parametrize("error", [LeakBenchError, RuntimeError])
def test_every_error(leakbench: Leakbench, monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def breaks(*_: Any) -> None:
        raise error(NASTY)

    monkeypatch.setattr("leakbench.registry.load", breaks)
    said = leakbench("info", "direct")
    assert len(harmless(said.err).splitlines()) == 1
    assert "n\\x1b[31m" in said.err


@dataclass(frozen=True)
class Told:
    """What a run tells of a job beforehand."""

    title: str
    is_cell: bool = True
    alike: tuple[str, ...] = ("a",)
    after: tuple[int, ...] = ()


def result(status: str = "ok", reason: str = "", seconds: float = 0.0) -> Any:
    return SimpleNamespace(status=status, reason=reason, seconds=seconds)


@pytest.mark.parametrize("reporter", [Silent, Lines, Bars])
def test_failed_cells(reporter: type[Silent], capsys: pytest.CaptureFixture[str]) -> None:
    jobs: Any = [Told(f"[red]:cat:{NASTY}[/red]")]
    with reporter() as progress:
        progress.plan(jobs)
        progress.started(0)
        progress.ended(0, result("failed", NASTY))
    lines = harmless(capsys.readouterr().err).splitlines()
    (line,) = [line for line in lines if "failed" in line]
    assert line.endswith(f"failed: [red]:cat:{SHOWN}[/red]: {SHOWN}")


def test_progress_bars() -> None:
    clock = [0.0]
    progress = Bars(now=lambda: clock[0])
    jobs: Any = [Told(NASTY), Told(NASTY), Told(NASTY, is_cell=False, alike=("b",))]
    progress.plan(jobs)
    progress.started(0)
    progress.stage(NASTY, 0, 10)
    clock[0] = 20.0
    progress.stage(NASTY, 2, 10)
    grid, stage = progress._bars.tasks
    assert (grid.description, stage.description) == (SHOWN, SHOWN)
    assert (grid.fields["left"], stage.fields["left"]) == ("time left unknown", "about 80 s")
    progress.ended(0, result(seconds=100.0))
    progress.started(2)
    clock[0] = 21.0  # estimates are a second old at most
    progress.ended(2, result(seconds=1.0))
    assert (grid.completed, grid.total) == (1, 2)  # what cells build on is no cell
    assert grid.fields["left"] == "about 2 min left"


def test_lines_say_the_time_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    clock = [0.0]
    progress = Lines(now=lambda: clock[0])
    jobs: Any = [Told("one"), Told("two"), Told("three")]
    progress.plan(jobs)
    progress.started(0)
    clock[0] = 5.0
    progress.stage(NASTY, 1, 2)
    clock[0] = 60.0
    progress.stage(NASTY, 1, 2)
    progress.ended(0, result(seconds=60.0))
    progress.started(1)
    clock[0] = 120.0
    progress.ended(1, result("no-signal", NASTY, 60.0))
    progress.started(2)
    clock[0] = 180.0
    progress.ended(2, result(seconds=60.0))
    assert capsys.readouterr().err.splitlines() == [
        "3 cells",
        f"  {SHOWN}: 1/2",
        "  60 s elapsed, time left unknown",
        "[1/3] ok: one",
        f"[2/3] no-signal: two: {SHOWN}",
        "  2 min elapsed, about 60 s left",
        "[3/3] ok: three",
    ]


def test_lines_say_what_is_left_of_a_stage_by_what_was_done_in_this_run(capsys: pytest.CaptureFixture[str]) -> None:
    clock = [0.0]
    progress = Lines(now=lambda: clock[0])
    jobs: Any = [Told("one"), Told("two")]
    progress.plan(jobs)
    for number in range(2):
        progress.started(number)
        for second, done in ((0, 50), (11, 51), (22, 60), (33, 70)):  # fifty are from an earlier run
            clock[0] = 1000.0 * number + second
            progress.stage("training", done, 100)
    lines = [line for line in capsys.readouterr().err.splitlines() if "training" in line]
    of_one = ["  training: 51/100", "  training: 60/100, about 90 s left", "  training: 70/100, about 50 s left"]
    assert lines == [*of_one, "  training: 50/100", *of_one]


LABEL = "privatesnn[epochs=20,samples=2000,synthesis_steps=250,od=no]"
LONG = "[red]x[/]" + "y" * 300
GRIDS = {
    "1 defence x 12 attacks": (["privatesnn"], [f"attack_number_{n}" for n in range(12)]),
    "19 defences x 3 attacks": ([f"defence{n}" for n in range(19)], ["direct", "reconversion", "inversion"]),
    "long labels": ([LABEL, LABEL.replace("20", "5"), "han2020"], ["direct", "auto-v1"]),
    "hostile": ([LONG, NASTY, "[bold]"], [NASTY, "\x1b]0;title\x07"]),
}


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("grid", GRIDS)
def test_no_value_is_broken(
    warm: Warm, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, grid: str, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    defenses, attacks = GRIDS[grid]
    row = next(row for row in warm.record.rows if headline(row).low is not None)
    rows = [
        row.model_copy(update={"defense": defense, "attack": attack, "validity": "gradient masking suspected"})
        for defense in defenses
        for attack in attacks
    ]
    reason = " ".join(f"index {index_line(headline(row))}, p < 0.001;" for _ in range(9))
    # of a verdict on no classes the whole reason is printed
    in_words = {"defense": defenses[0], "reason": reason, "classes": [], "missing": [], "settle": ""}
    verdict = warm.record.verdicts[0].model_copy(update=in_words)
    _summary(warm.record.model_copy(update={"rows": rows, "verdicts": [verdict]}))
    lines = harmless(capsys.readouterr().out).splitlines()
    heading = lines.index("leakage index, classes")
    verdict_lines, table = lines[:heading], lines[heading + 1 :]
    assert sum(line.count(index_line(headline(row))) for line in verdict_lines) == 9
    value = f"{index_line(headline(row))} (gradient masking suspected)"
    assert sum(line.count(value) for line in table) == len(rows)
    labels = [printable(label) for label in (*defenses, *attacks)]
    for label in labels:
        assert any(label in line for line in table)
    assert all(len(line) <= max(width, *map(len, labels)) for line in table)


def test_verdicts_and_the_table(warm: Warm, capsys: pytest.CaptureFixture[str]) -> None:
    foreign = f"[red]:cat:{NASTY}"
    record = warm.record.model_copy(
        update={
            "rows": [row.model_copy(update={"attack": foreign}) for row in warm.record.rows],
            "verdicts": [
                verdict.model_copy(update={"defense": foreign, "missing": [foreign]})
                for verdict in warm.record.verdicts
            ],
        }
    )
    _summary(record)
    out = harmless(capsys.readouterr().out)
    assert out.count(f"[red]:cat:{SHOWN}") == 2 * len(record.verdicts) + 1


def test_classes_are_named_and_the_command_that_tells_more_is_one_line(
    warm: Warm, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    (info, *_) = warm.record.datasets
    leaks = {"outcome": "leaks", "classes": [0, 1, 2], "named": [2, 1], "networks": 4, "p": 0.002, "missing": []}
    leaks |= {"comparable": True}
    lacks = {"missing": ["a: decoys suspected (G7: x)", "b: decoys suspected (G7: y)", "4 networks: too few"]}
    (verdict, *_) = warm.record.verdicts
    command = "leakbench run -d one,two -a direct --preset quick --cache a-rather-long-folder --seeds 1"
    open_ones = [lacks | {"settle": "--seeds 8", "defense": name} for name in ("open", "shut")]
    found = [verdict.model_copy(update=update) for update in (leaks, *open_ones)]
    grid = {**warm.record.grid, "ann": None}  # of a given one, other seeds tell no more
    _summary(warm.record.model_copy(update={"verdicts": found, "command": command, "grid": grid}))
    text = capsys.readouterr().out
    said = " ".join(text.split())
    assert f"leaks. 2 of 3 classes leak: {info.classes[2]}, {info.classes[1]}. p = .002, 4 networks." in said
    assert "No conclusion: decoys suspected (a, b)." in said and "also: 4 networks: too few" in said
    more = f"to know more of open, shut: {command.removesuffix(' --seeds 1')} --seeds 8"
    assert more in text.splitlines()


@pytest.mark.slow
def test_json_of_hostile_plugins_is_plain_json(
    leakbench: Leakbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = PLUGIN.replace("iterations: int = Field(3", "iterations: float = Field(float('nan')")
    (tmp_path / "mine.py").write_text(plugin)
    facts = json.loads(leakbench("info", "mine.py:Mine", "--json").out, parse_constant=pytest.fail)
    assert (facts["doc"], facts["cites"]) == (inspect.cleandoc(DOC), NASTY)
    assert (facts["parameters"][0]["default"], facts["parameters"][0]["description"]) == ("nan", NASTY)
    name = f"[red]x[/]{NASTY}\udcff" + "n" * 300
    mine = registry.load("attack", "mine.py:Mine")
    monkeypatch.setattr(registry, "_registered", {"attack": {name: mine}, "defense": {}})
    said = leakbench("list", "attacks", "--json")
    assert harmless(said.out).isascii()
    assert name in [row["name"] for row in json.loads(said.out)["attacks"]]
    assert printable(name) in harmless(leakbench("list", "attacks").out)


def test_records_of_the_log_are_one_line() -> None:
    from leakbench.cli.terminal import LineFormatter

    record = logging.makeLogRecord({"msg": "%s", "args": (NASTY,)})
    assert LineFormatter("> %(message)s").format(record) == f"> {SHOWN}"
