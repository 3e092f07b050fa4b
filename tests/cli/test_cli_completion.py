"""Completion as shells ask for it: through the protocol and through the function that is installed into bash."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_said import Leakbench
from tiny_runs import LABELS, OURS, Warm

from leakbench import registry
from leakbench.cli.completion import choices_of, setting, several, starting
from leakbench.registry import names

CODE = "import sys; sys.argv = ['leakbench']; from leakbench.cli import main; main()"


def question(words: str) -> dict[str, str]:
    """What a shell asks by at TAB behind these words, which a blank ends."""
    return {
        "_LEAKBENCH_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - (not words.endswith(" "))),
    }


def completed(words: str) -> list[str]:
    environment = {**os.environ, **question(words)}
    ended = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True)
    assert ended.stderr == ""
    return ended.stdout.split()


@pytest.fixture
def completed_here(leakbench: Leakbench, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """The same in this process: answers that take PyTorch take seconds in one of their own."""

    def answers(words: str) -> list[str]:
        with monkeypatch.context() as patch:
            for name, value in question(words).items():
                patch.setenv(name, value)
            patch.setattr(sys.modules["__main__"], "__package__", None)  # else the command's name is `python -m pytest`
            said = leakbench()
        assert (said.status, said.err) == (0, "")
        return said.out.split()

    return answers


@pytest.mark.long
@pytest.mark.slow
def test_names_complete_in_the_shell() -> None:
    assert completed("leakbench run --defense priv") == ["privatesnn"]
    assert completed("leakbench run --dataset dig") == ["digits", "digits:half"]
    assert completed("leakbench run --model resnet1") == ["resnet18"]
    assert completed("leakbench info tiny") == ["tinyimagenet"]
    assert completed("leakbench run --public pho") == ["photos"]
    assert completed("leakbench info auto-") == ["auto-v1", "auto-v2"]
    assert completed("leakbench list da") == ["datasets"]


@pytest.mark.slow
def test_names_complete_after_a_comma() -> None:
    assert completed("leakbench run --attack direct,rec") == ["direct,reconversion"]
    given = completed("leakbench run -a direct,")
    assert given == [f"direct,{name}" for name in ("all", *names("attack")) if name != "direct"]


@pytest.mark.slow
def test_settings_complete(completed_here: Callable[[str], list[str]]) -> None:
    plugin, *parameters = completed_here("leakbench run --set privatesn")
    assert plugin == "privatesnn."
    assert "privatesnn.epochs=" in parameters
    assert completed_here("leakbench run --set privatesnn.ep") == ["privatesnn.epochs=", "privatesnn.epochs=20"]


@pytest.mark.slow
def test_what_follows_a_setting_s_name() -> None:
    assert setting("d") == [f"{name}." for name in (*names("defense"), *names("attack")) if name.startswith("d")]
    assert setting("privatesnn.od=") == ["privatesnn.od=true", "privatesnn.od=false"]
    assert setting("privatesnn.od=true,") == ["privatesnn.od=true,false"]
    assert setting("privatesnn.synthesis_range=aut") == ["privatesnn.synthesis_range=authors"]
    assert setting("privatesnn.epochs=5,") == []
    assert setting("han2020.quantize=") == ["han2020.quantize=none", "han2020.quantize=int8"]
    for wrong in (
        "vgg5.depth=",
        "digits.",
        "privatesnn.nothing=",
        "nothing.at=",
        "nothing",
        "privatesnn.epochs=x",
        "../x.py:A.",
    ):
        assert setting(wrong) == []


@pytest.fixture
def bash(tmp_path: Path) -> Path:
    """A home into which completion was installed, with the command on its PATH."""
    command = tmp_path / "bin" / "leakbench"
    command.parent.mkdir()
    command.write_text(f"#!{sys.executable}\nfrom leakbench.cli import main\nmain()\n")
    command.chmod(0o755)
    path = f"{command.parent}:{os.environ['PATH']}"
    arguments = [str(command), "--install-completion", "bash"]
    environment = {**os.environ, "HOME": str(tmp_path), "PATH": path}
    assert subprocess.run(arguments, env=environment, capture_output=True).returncode == 0
    return tmp_path


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "replies"),
    [  # as bash takes them apart, and what takes the place of the last piece
        (["run", "--attack", "direct,rec"], ["direct,reconversion"]),
        (["run", "--dataset", "digits", ":", "h"], ["half"]),
        (["run", "--set", "privatesnn.od", "="], ["true", "false"]),
        (["run", "--set", "privatesnn.od", "=", "t"], ["true"]),
        (["run", "--attack", "=", "dir"], ["direct"]),
    ],
)
def test_bash_s_pieces_are_put_together(bash: Path, words: list[str], replies: list[str]) -> None:
    script = (
        'source "$HOME/.bashrc"; COMP_WORDS=(leakbench "$@"); COMP_CWORD=$#; '
        "$(complete -p leakbench | sed 's/.*-F \\([^ ]*\\).*/\\1/') leakbench; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    environment = {**os.environ, "HOME": str(bash), "PATH": f"{bash / 'bin'}:{os.environ['PATH']}"}
    ended = subprocess.run(["bash", "-c", script, "bash", *words], env=environment, capture_output=True, text=True)
    assert (ended.stdout.split(), ended.stderr) == (replies, "")


@pytest.mark.parametrize("nasty", ["mine\n", "mine\x1b[31m", "mine\u202e", "mine;rm", "mine$(x)", "mine`x`", "mine x"])
def test_only_what_can_be_typed_is_offered(monkeypatch: pytest.MonkeyPatch, nasty: str) -> None:
    monkeypatch.setattr(registry, "_registered", {"attack": {nasty: "a:B", "mine": "a:B"}, "defense": {}})
    listed = lambda: names("attack")  # noqa: E731
    assert starting(listed)("mi") == ["mine"]
    assert several(listed)("direct,mi") == ["direct,mine"]
    assert setting("mi") == ["mine."]  # it can't be loaded: there is nothing to go on with


def test_choices_are_of_small_types_only() -> None:
    from typing import Literal

    assert choices_of(bool) == ["true", "false"]
    assert choices_of(Literal["sgd", "adam"]) == ["sgd", "adam"]
    assert choices_of(Literal["a"] | None) == ["a"]
    assert choices_of(int) == choices_of(float | None) == choices_of(str) == []


@pytest.mark.slow
def test_what_an_entry_may_be_of_is_in_the_run(warm: Warm, completed_here: Callable[[str], list[str]]) -> None:
    ours, direct = LABELS[OURS], LABELS["direct"]
    assert completed_here(f"leakbench export {warm.out} --entry --defense {ours[:5]}") == [ours]
    assert direct in completed_here(f"leakbench export {warm.out} --entry --attack ")
    assert completed_here(f"leakbench export {warm.out / 'nowhere'} --entry --attack ") == []
    assert completed_here("leakbench export --entry --attack ") == []
