"""Runs as processes of their own: killed, interrupted, two at a time on one cache."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from cli_said import Leakbench
from tiny_runs import ALONE, OURS, Warm, artifacts, copied, forget, numbers, start, wait_for

from leakbench.records import RunRecord

pytestmark = pytest.mark.slow


def record_in(out: Path) -> RunRecord:
    return RunRecord.model_validate_json((out / "results.json").read_bytes())


@pytest.mark.long
def test_a_killed_run_goes_on_where_it_was(leakbench: Leakbench, warm: Warm, tmp_path: Path) -> None:
    """SIGKILL within an attack, i.e. while its lock is held; then the same command again."""
    cache, out, gate = copied(warm.cache, tmp_path / "cache"), tmp_path / "run", tmp_path / "gate"
    forget(cache, "victim")
    gate.mkdir()
    before = artifacts(cache)
    arguments = warm.tiny.arguments(out, controls=False)
    process = start([*arguments, "--jobs", "1"], cache, LEAKBENCH_TEST_GATE=str(gate))
    wait_for(gate / "reached", process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    finished = artifacts(cache)
    # the victim, its utility, the first attack with what was measured on it, and not yet the second
    assert len(before) + 6 <= len(finished) < len(artifacts(warm.cache))
    assert not (out / "results.json").exists()
    said = leakbench(*arguments, "--cache", cache, "-q")
    assert said.status == 0
    record = record_in(out)
    assert record.complete
    assert len(record.cells) == ALONE
    assert numbers(record) == numbers(warm.record, OURS)  # of the run that nobody stopped, in another cache
    after = artifacts(cache)
    assert {key: after[key] for key in finished} == finished  # not written again
    assert after.keys() < artifacts(warm.cache).keys()


@pytest.mark.parametrize("word", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_ctrl_c_leaves_a_partial_report_and_the_same_command_completes_it(
    leakbench: Leakbench, warm: Warm, tmp_path: Path, word: signal.Signals
) -> None:
    """And so does SIGTERM, by which batch systems and containers end a run; many send it more than once."""
    cache, out, gate = copied(warm.cache, tmp_path / "cache"), tmp_path / "run", tmp_path / "gate"
    forget(cache, "victim")
    gate.mkdir()
    arguments = warm.tiny.arguments(out, controls=False)
    # a shell's background jobs ignore Ctrl-C, and what they start does too
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = start([*arguments, "--jobs", "1"], cache, LEAKBENCH_TEST_GATE=str(gate))
    wait_for(gate / "reached", process)
    process.send_signal(word)
    for _ in range(2 if word == signal.SIGTERM else 0):
        time.sleep(0.05)
        process.send_signal(word)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("leakbench: interrupted")
    record = record_in(out)
    assert not record.complete
    assert len(record.cells) == 4 + 1 + 1  # anchors, the defence, the first attack
    assert numbers(record).items() < numbers(warm.record).items()
    assert [verdict.outcome for verdict in record.verdicts] == ["inconclusive"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "gated" not in {cell.attack for cell in record.cells}
    assert "<html" in page
    said = leakbench(*arguments, "--cache", cache, "-q")
    assert said.status == 0
    assert record_in(out).complete
    assert len(record_in(out).cells) == ALONE
    assert numbers(record_in(out)) == numbers(warm.record, OURS)
    assert (out / "report.html").read_text(encoding="utf-8") != page


@pytest.mark.long
@pytest.mark.slow
def test_two_runs_share_a_cache(warm: Warm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the same time, from empty: both end well with the same numbers, and what they share is made once."""
    monkeypatch.setenv("LEAKBENCH_TEST_CALLS", str(tmp_path / "calls"))
    outs = [tmp_path / "one", tmp_path / "two"]
    processes = [start(warm.tiny.arguments(out, controls=False), tmp_path / "cache") for out in outs]
    ended = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ended
    assert numbers(record_in(outs[0])) == numbers(record_in(outs[1])) == numbers(warm.record, OURS)
    assert artifacts(tmp_path / "cache").keys() < artifacts(warm.cache).keys()
    assert (tmp_path / "calls").read_text().splitlines() == ["called"]  # once a victim, not once a run
