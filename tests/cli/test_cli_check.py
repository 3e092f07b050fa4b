"""``leakbench check``: what it prints, and how it ends. What is found: tests/bench/test_plugin_check.py."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_said import Leakbench

from leakbench.bench import plugin_check

BROKEN = '''
"""An attack that cites nobody."""

import torch

from leakbench.contracts import Access, Attack, Params


class Plain(Attack[Params]):
    """Grey images."""

    name = "plain"
    needs = Access.LABELS

    def run(self, victim, targets, context):
        return torch.full((len(targets), *victim.image_shape), 0.5)
'''


@pytest.mark.long
@pytest.mark.slow
def test_a_line_for_each_thing_and_1_where_something_is_wrong(leakbench: Leakbench, tmp_path: Path) -> None:
    path = tmp_path / "plain.py"
    path.write_text(BROKEN, encoding="utf-8")
    said = leakbench("check", f"{path}:Plain")
    assert (said.status, said.err) == (1, "")
    lines = [line.split(maxsplit=2) for line in said.out.splitlines()]
    assert [words[1] for words in lines if words[0] == "wrong"] == ["citation"]
    path.write_text(BROKEN.replace('"plain"', '"plain"\n    cites = "nobody"'), encoding="utf-8")
    path.write_text(
        path.read_text().replace(
            "return torch", 'print("one", flush=False); print("two", end="")\n        return torch'
        )
    )
    said = leakbench("check", f"{path}:Plain", "--json")
    assert said.status == 0
    assert said.err == "one\ntwo" * 3  # it is run as often
    found = json.loads(said.out)
    assert {finding["status"] for finding in found} == {"ok"}
    assert {"subject": "loads", "status": "ok", "text": "attack plain, version 1"} in found


@pytest.mark.slow
def test_what_can_t_be_loaded_is_wrong(leakbench: Leakbench, tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("import nothing_of_that_name\n")
    said = leakbench("check", f"{path}:Plain")
    assert (said.status, said.err) == (1, "")
    assert said.out.startswith("wrong  loads")
    assert "ModuleNotFoundError" in said.out


@pytest.mark.slow
def test_sigterm_leaves_nothing_behind(tmp_path: Path) -> None:
    path, scratch = tmp_path / "plain.py", tmp_path / "scratch"
    path.write_text(BROKEN.replace("return", "import time; time.sleep(600)\n        return"), encoding="utf-8")
    scratch.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "leakbench", "check", f"{path}:Plain"],
        env={**os.environ, "TMPDIR": str(scratch), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line.split()[1] == "parameters":  # what comes next is to run it
            break
    assert list(scratch.iterdir())
    process.terminate()
    _, err = process.communicate(timeout=120)
    # Python ends itself by SIGINT where the interrupt fell into code that is made at run time, as of named tuples
    assert process.returncode in (130, -signal.SIGINT) and "Traceback" not in err
    assert not list(scratch.iterdir())


def test_an_error_of_what_sigterm_interrupts_is_no_finding(
    leakbench: Leakbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> Iterator[plugin_check.Finding]:
        with contextlib.suppress(KeyboardInterrupt):  # as an import of compiled code may end
            os.kill(os.getpid(), signal.SIGTERM)
        yield plugin_check.Finding("runs", "wrong", "ImportError: numpy.core failed to import")

    monkeypatch.setattr(plugin_check, "check_plugin", interrupted)
    said = leakbench("check", "direct")
    assert (said.status, said.out) == (130, "")


def test_wrong_input_is_one_line(leakbench: Leakbench, tmp_path: Path) -> None:
    assert "no such plugin file" in leakbench("check", f"{tmp_path / 'none.py'}:Plain").line
    assert "did you mean 'direct'?" in leakbench("check", "dirct").line
    assert f"{str(tmp_path)!r} is a folder: give FILE.py:NAME" in leakbench("check", str(tmp_path)).line
    assert "'vgg4' is a model" in leakbench("check", "vgg4").line
    assert "give plugin.param=value" in leakbench("check", "direct", "--set", "iterations").line
