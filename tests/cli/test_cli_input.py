"""Wrong input: one line on the error stream that says what is wrong and what would be right, exit status 2."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_said import Leakbench
from safetensors.torch import load_file, save_file
from tiny_runs import CLASSES, Warm, write_images

from leakbench.bench import executors

RUN = ("run", "-d", "han2020", "-a", "direct", "--preset", "quick")


@pytest.fixture(autouse=True)
def _nothing_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("wrong input got as far as a cell")

    monkeypatch.setattr(executors, "run_task", refuse)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "-d", "privatesn"], ["unknown defense 'privatesn'", "did you mean 'privatesnn'?"]),
        ([*RUN, "-d", "sengupta"], ["unknown defense 'sengupta'", "did you mean 'sengupta2019'?"]),
        (["run", "-d", "han2020", "-a", "dirct"], ["unknown attack 'dirct'", "did you mean 'direct'?"]),
        ([*RUN, "--dataset", "digit"], ["unknown dataset 'digit'", "did you mean 'digits'?"]),
        ([*RUN, "--dataset", "digts:half"], ["unknown dataset 'digts:half'", "did you mean 'digits:half'?"]),
        ([*RUN, "--public", "photo"], ["unknown public images 'photo'", "did you mean 'photos'?"]),
        ([*RUN, "--public", "digits"], ["public images 'digits'", "the private ones", "photos"]),
        ([*RUN, "--public", "half"], ["public images 'half'", "digits:half", "not with 'digits'"]),
        ([*RUN, "--model", "vgg-4"], ["unknown model 'vgg-4'", "did you mean 'vgg4'?"]),
        ([*RUN, "--preset", "quik"], ["--preset", "'quick', 'standard', 'paper-cpu' or 'paper'", "'quik'"]),
        ([*RUN, "--set", "han202.beta=0.5"], ["unknown plugin in --set 'han202'", "did you mean 'han2020'?"]),
        ([*RUN, "--set", "direct.iteration=5"], ["direct.iteration", "did you mean 'iterations'?"]),
        ([*RUN, "--set", "direct.iterations=0"], ["direct.iterations", "greater than or equal to 1", "'0'"]),
        ([*RUN, "--set", "direct.zeta=-1"], ["direct.zeta", "greater than 0", "'-1'"]),
        ([*RUN, "--set", "direct.zeta=big"], ["direct.zeta", "number", "'big'"]),
        ([*RUN, "--set", "direct.iterations"], ["--set 'direct.iterations'", "plugin.param=value"]),
        ([*RUN, "--set", "direct.iterations="], ["--set 'direct.iterations='", "plugin.param=value"]),
        ([*RUN, "--set", "=5"], ["--set '=5'", "plugin.param=value"]),
        ([*RUN, "--set", "direct=5"], ["--set", "plugin.param=value"]),
        ([*RUN, "--set", "direct.iterations=100000000"], ["direct.iterations", "within +-10,000,000", "100000000"]),
        ([*RUN, "--set", "direct.zeta=1e300"], ["direct.zeta", "within +-1e38", "1e300"]),
        ([*RUN, "-a", "evolution", "--set", "evolution.population=10001"], ["population", "equal to 10000", "10001"]),
        ([*RUN, "--set", "han2020.calibration_steps=100001"], ["calibration_steps", "equal to 100000", "100001"]),
        ([*RUN, "--set", "direct.iterations=true"], ["direct.iterations", "integer", "true"]),
        ([*RUN, "-T", "0"], ["--timesteps: must be at least 1, got 0"]),
        ([*RUN, "-T", "8,-1"], ["--timesteps", "at least 1", "-1"]),
        ([*RUN, "-T", "100001"], ["--timesteps", "at most 100000", "100001"]),
        ([*RUN, "-T", f"8,{10**30}"], ["--timesteps", "at most 100000"]),
        ([*RUN, "-T", "eight"], ["--timesteps", "integer", "eight"]),
        ([*RUN, "--seeds", "-1"], ["--seeds", "greater than or equal to 1", "-1"]),
        ([*RUN, "--seeds", "1001"], ["--seeds", "less than or equal to 1000", "1001"]),
        ([*RUN, "--seeds", "many"], ["--seeds", "integer"]),
        ([*RUN, "--images-per-class", "10001"], ["--images-per-class", "less than or equal to 10000"]),
        ([*RUN, "--images-per-class", "0"], ["--images-per-class", "greater than or equal to 1"]),
        ([*RUN, "--classes", "1"], ["--classes", "greater than or equal to 2"]),
        ([*RUN, "--jobs", "0"], ["--jobs must be 1 to ", "got 0"]),
        ([*RUN, "--jobs", "100000"], ["--jobs must be 1 to ", "cores are available", "got 100000"]),
        ([*RUN, "--device", "cuda:99"], ["--device cuda:99", "cpu"]),
        ([*RUN, "--device", "gpu"], ["--device gpu", "cpu"]),
        ([*RUN, "--device", "meta"], ["--device meta", "cpu"]),
        ([*RUN, "--ann", "missing.safetensors"], ["--ann", "no such file", "missing.safetensors"]),
        ([*RUN, "--dataset", "folder:missing"], ["no such folder 'missing'", "one subfolder"]),
        ([*RUN, "--dataset", ""], ["--dataset: got nothing"]),
        (["run", "-d", ""], ["--defense: got nothing"]),
        ([*RUN, "-T", ""], ["--timesteps: got nothing"]),
        ([*RUN, "--protocol", ""], ["--protocol: got nothing"]),
        (["run", "-d", "tdbn,zskd", "-T", "8,9", "-a", "none", "--no-controls"], ["--timesteps 8,9: no network of"]),
        (
            ["run", "-d", "ann", "-T", "8", "-a", "none", "--no-controls"],
            ["--timesteps 8: no network of this run takes"],
        ),
        ([*RUN, "--fail-if", "accuracy > 97"], ["accuracy is a share"]),
        (["run"], ["--defense is missing", "privatesnn"]),
        (["run", "--resume"], ["--resume needs --out"]),
        (["run", "--resume", "--out", "missing"], ["--resume", "'missing'", "no run"]),
        (["run", "--resume", "--out", "missing", "-d", "ann"], ["--resume", "leave out --defense"]),
        (
            ["run", "--resume", "--out", "missing", "--no-controls", "--images-per-class", "2"],
            ["leave out --images-per-class, --no-controls"],
        ),
        (
            ["run", "--resume", "--out", "missing", "--weights", "mine.pt", "--mean", "0", "--std", "1"],
            ["--resume takes the grid from --out: leave out --weights, --mean, --std"],
        ),
        ([*RUN, "--config", "missing.toml"], ["--config", "'missing.toml'", "No such file"]),
        ([*RUN, "--config", "."], ["--config", "'.'", "directory"]),
        ([*RUN, "--cache", "/dev/null/cache"], ["'/dev/null/cache'", "--cache"]),
        ([*RUN, "--local-cache", "/dev/null/copies"], ["'/dev/null/copies'", "--local-cache"]),
        ([*RUN, "--out", "/dev/null/run"], ["--out '/dev/null/run'"]),
        ([*RUN, "--inception", "missing.pth"], ["missing.pth"]),
        ([*RUN, "--features", "missing.safetensors"], ["missing.safetensors", "expected torchvision's"]),
        ([*RUN, "-a", "missing.py:Mine"], ["no such plugin file 'missing.py'", "file.py:attribute"]),
        (["info", "privatesn"], ["unknown name 'privatesn'", "did you mean 'privatesnn'?"]),
        (["info", "missing.py:Mine"], ["no such plugin file 'missing.py'"]),
        (["info", "quik"], ["unknown name 'quik'", "did you mean 'quick'?"]),
        (["info", "mine.py"], ["'mine.py'", "Give mine.py:NAME, its class or function"]),
        ([*RUN, "--dataset", "mine.py"], ["dataset 'mine.py'", "Give mine.py:FUNCTION"]),
        ([*RUN, "--dataset", "."], ["dataset '.'", "give folder:."]),
        ([*RUN, "--dataset", "x" * 300], ["unknown dataset 'xxx"]),
        ([*RUN, "--device", "gpu"], ["--device gpu", "no such device: give auto, cpu or cuda"]),
        ([*RUN, "--out", "/dev/null/run", "--dry-run"], ["--out '/dev/null/run'"]),
        ([*RUN, "--out", "/dev", "--dry-run"], ["--out '/dev' is not empty and holds no run"]),
        ([*RUN, "--dataset", "missing.py:build", "--dry-run"], ["no such plugin file 'missing.py'"]),
        (["list", "attack"], ["unknown kind 'attack'", "did you mean 'attacks'?"]),
        (["report", "missing"], ["missing", "No such file", "finished run"]),
        (["cache", "ls", "--cache", "/dev/null/cache"], ["'/dev/null/cache'", "--cache"]),
        (["cache", "prune", "--cache", "/dev/null/cache"], ["'/dev/null/cache'", "--cache"]),
        (["cache", "prune", "--older-than", "-1"], ["--older-than", "0 to 36500 days", "-1"]),
        (["cache", "prune", "--older-than", "1e300"], ["--older-than", "0 to 36500 days", "1e+300"]),
        (["cache", "prune", "--older-than", "nan"], ["--older-than", "0 to 36500 days", "nan"]),
        (["report"], ["Missing argument"]),
        (["runn"], ["No such command", "runn"]),
        ([*RUN, "--timestep", "5"], ["No such option", "--timesteps"]),
    ],
    ids=lambda value: (
        " ".join(value) if value and value[0] in ("run", "info", "list", "report", "cache", "runn") else ""
    ),
)
def test_wrong_input_is_one_line_and_two(leakbench: Leakbench, arguments: list[str], words: list[str]) -> None:
    line = leakbench(*arguments).line
    assert [word for word in words if word not in line] == []
    assert line.count("got ") <= 1  # what was given is said once
    assert "Traceback" not in line
    assert not Path("runs").exists() or not list(Path("runs").iterdir())  # nothing begun


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("defense = [", ["--config", "no valid TOML"]),
        ("defense = 'han2020'\ndefense = 'ann'", ["--config", "no valid TOML"]),
        (b"defense = 'han2020' # caf\xe9", ["--config", "no valid TOML"]),
        (f"defense = {'[' * 3000}{']' * 3000}", ["--config", "nested too deeply"]),
        ("defence = 'han2020'", ["'defence'", "did you mean 'defense'?"]),
        ("defense = 'han2020'\nimages-per-clas = 3", ["'images_per_clas'", "did you mean 'images_per_class'?"]),
        ("defense = 'han2021'", ["unknown defense 'han2021'", "did you mean 'han2020'?"]),
        ("defense = 'han2020'\ntimesteps = 0", ["timesteps", "at least 1"]),
        ("defense = 'han2020'\ntimesteps = [4, 2.5]", ["timesteps", "integer", "2.5"]),
        ("defense = 'han2020'\ntimesteps = 100001", ["timesteps", "at most 100000", "100001"]),
        ("defense = 'han2020'\ntimesteps = true", ["timesteps", "a number", "True"]),
        ("defense = 'han2020'\ntimesteps = [8, true]", ["timesteps", "a number", "True"]),
        ("defense = 'han2020'\nseeds = true", ["seeds", "a number", "True"]),
        ("defense = 'han2020'\nseeds = 1001", ["seeds", "less than or equal to 1000", "1001"]),
        ("defense = 'han2020'\nimages-per-class = true", ["images-per-class", "a number", "True"]),
        ("defense = 'han2020'\nimages-per-class = 10001", ["images-per-class", "less than or equal to 10000"]),
        ("defense = 'han2020'\nseeds = 'many'", ["seeds", "integer", "many"]),
        ("defense = 'han2020'\nseeds = [1, 2]", ["seeds", "integer"]),
        ("defense = 'han2020'\npublic = 'cifar-10'", ["unknown public images 'cifar-10'", "did you mean 'cifar10'?"]),
        ("defense = 5", ["defense", "string", "5"]),
        ("defense = []", ["defense"]),
        ("defense = 'han2020'\ncontrols = 'perhaps'", ["controls", "perhaps"]),
        ("defense = 'han2020'\njobs = 0", ["--jobs must be 1 to ", "got 0"]),
        ("defense = 'han2020'\njobs = 'two'", ["jobs", "two"]),
        ("defense = 'han2020'\njobs = [2]", ["jobs"]),
        ("defense = 'han2020'\njobs = true", ["jobs", "a number", "True"]),
        ("defense = 'han2020'\njobs = 100000", ["--jobs must be 1 to ", "got 100000"]),
        ("defense = 'han2020'\nisolate = false", ["--config: isolate is no option of a file", "--no-isolate"]),
        ("defense = 'han2020'\nnull-networks = 6\nnull_networks = 20", ["null_networks stands in", "twice"]),
        ("defense = 'han2020'\nthreads = 2", ["unknown option", "threads"]),
        ("defense = 'han2020'\ndevice = ['cpu']", ["device"]),
        ("defense = 'han2020'\nset = 5", ["set", "5"]),
        ("defense = 'han2020'\n[set]\nhan2020 = 0.5", ["set", "plugin.param"]),
        ("defense = 'han2020'\n[set]\nhan2020.betta = 0.5", ["han2020.betta", "did you mean 'beta'?"]),
        ("defense = 'han2020'\n[set]\nhan2020.beta = 7", ["han2020.beta", "less than or equal to 1", "7"]),
        ("defense = 'han2020'\n[set]\nhan2020.beta = inf", ["han2020.beta"]),
        ("defense = 'han2020'\n[set]\nhan2020.beta = true", ["han2020.beta", "a number", "True"]),
        ("defense = 'han2020'\n[set]\nhan2020.images = true", ["han2020.images", "a number", "True"]),
        ("defense = 'han2020'\n[set]\nhan2020.images = 10000001", ["han2020.images", "10,000,000"]),
        ("defense = 'han2020'\n[set]\nhan2020.images = -10000001", ["han2020.images"]),
        ("defense = 'han2020'\n[set]\nhan2020.beta = [[0.5], [0.9]]", ["han2020.beta"]),
        ("defense = 'han2020'\n[set]\nhan2020.beta = []", ["han2020.beta"]),
    ],
)
def test_a_wrong_configuration_file_is_one_line_and_two(
    leakbench: Leakbench, tmp_path: Path, text: str | bytes, words: list[str]
) -> None:
    (tmp_path / "grid.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    line = leakbench("run", "--config", "grid.toml", "-a", "direct").line
    assert [word for word in words if word not in line] == []


NO_NAMES = {"long": "x" * 300, "very long": "x" * 5000, "NUL": "a\0b"}


# no shell can hand a NUL over, and not every release of typer looks for one
OLD_TYPER = tuple(map(int, version("typer").split(".")[:2])) < (0, 29)
NO_ARGUMENTS = [
    pytest.param(name, marks=pytest.mark.skipif(name == "NUL" and OLD_TYPER, reason="typer takes NUL for a path"))
    for name in NO_NAMES
]


@pytest.mark.parametrize("name", NO_ARGUMENTS)
@pytest.mark.parametrize(
    ("arguments", "origin"),
    [
        ([*RUN, "--out", "{}"], "--out"),
        (["run", "--resume", "--out", "{}"], "--out"),
        ([*RUN, "--ann", "{}"], "--ann"),
        ([*RUN, "--cache", "{}"], "--cache"),
        ([*RUN, "--data", "{}"], "--data"),
        ([*RUN, "--inception", "{}"], "--inception"),
        ([*RUN, "--features", "{}"], "--features"),
        (["run", "--config", "{}"], "--config"),
        ([*RUN, "--dataset", "folder:{}"], "folder"),
        ([*RUN, "--public", "folder:{}", "-a", "generative_prior"], "folder"),
        ([*RUN, "-a", "{}.py:Mine"], "plugin file"),
        (["run", "-d", "{}.py:Mine"], "plugin file"),
        (["info", "{}.py:Mine"], "plugin file"),
        (["report", "{}"], "run"),
        (["doctor", "--cache", "{}"], "--cache"),
        (["cache", "ls", "--cache", "{}"], "--cache"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_name_that_no_file_can_have(leakbench: Leakbench, name: str, arguments: list[str], origin: str) -> None:
    line = leakbench(*(argument.format(NO_NAMES[name]) for argument in arguments)).line
    assert origin in line.lower()
    assert ("\\x00" in line or "null " in line) if name == "NUL" else "too long" in line


@pytest.mark.parametrize("option", ["ann", "cache", "data", "features", "inception", "out"])
@pytest.mark.parametrize("name", ["x" * 300, "a\\u0000b"])
def test_a_configuration_file_with_a_name_that_no_file_can_have(
    leakbench: Leakbench, tmp_path: Path, option: str, name: str
) -> None:
    (tmp_path / "grid.toml").write_text(f'defense = "han2020"\nattack = "direct"\n{option} = "{name}"')
    line = leakbench("run", "--config", "grid.toml").line
    assert option in line
    assert "\\x00" in line or "too long" in line


@pytest.mark.parametrize("variable", ["LEAKBENCH_CACHE", "LEAKBENCH_DATA"])
def test_an_environment_with_a_name_that_no_file_can_have(
    leakbench: Leakbench, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "x" * 300)
    line = leakbench("doctor").line
    assert f"${variable}" in line and "too long" in line


def test_settings_on_top_of_a_wrong_set_table_are_one_line(leakbench: Leakbench, tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text("defense = 'han2020'\nset = 5")
    assert "set" in leakbench("run", "--config", "grid.toml", "--set", "han2020.beta=0.5").line


@pytest.mark.parametrize("fault", ["shape", "classes", "float8", "text", "folder"])
def test_a_checkpoint_that_does_not_fit(leakbench: Leakbench, warm: Warm, tmp_path: Path, fault: str) -> None:
    path, weights = tmp_path / "weights.safetensors", load_file(warm.tiny.checkpoint)
    if fault == "shape":
        weights["0.weight"] = torch.zeros(32, 3, 3, 3)
    elif fault == "classes":
        weights["10.weight"] = torch.zeros(10, 128)
    elif fault == "float8":
        weights["10.weight"] = weights["10.weight"].to(torch.float8_e4m3fn)
    if fault == "folder":
        path.mkdir()
    elif fault == "text":
        path.write_text("<html>404</html>")
    else:
        save_file(weights, path)
    line = leakbench(*warm.tiny.arguments(tmp_path / "run", ann=str(path)), "--cache", warm.cache).line
    words = {
        "shape": ["'0.weight'", "[32, 3, 3, 3]", "[32, 1, 3, 3]"],
        "classes": ["'10.weight'", "[10, 128]", "[3, 128]", "number of classes"],
        "float8": ["'10.weight'", "float8_e4m3fn", "save it as torch.float32"],
        "text": ["safetensors"],
        "folder": ["is a folder"],
    }[fault]
    assert [word for word in [*words, "--ann", str(path)] if word not in line] == []


@pytest.mark.parametrize("fault", ["one-class", "broken-image"])
def test_a_folder_that_is_no_data_set(leakbench: Leakbench, tmp_path: Path, fault: str) -> None:
    write_images(tmp_path / "images", CLASSES[:1] if fault == "one-class" else CLASSES, 3)
    if fault == "broken-image":
        (tmp_path / "images" / "boxes" / "02.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    line = leakbench(*RUN, "--dataset", "folder:images").line
    words = {"one-class": ["1 class subfolders", "two or more"], "broken-image": ["boxes/02.png", "mend or remove"]}
    assert [word for word in words[fault] if word not in line] == []


PLUGIN = """
from leakbench.contracts import Access, Attack, Params
{top}
class Mine(Attack[Params]):
    name = "mine"
    needs = Access.LABELS

    def run(self, victim, targets, context):
        raise AssertionError
"""


@pytest.mark.parametrize(
    ("target", "top", "words"),
    [
        ("mine.py:Yours", "", ["mine.py has no class or function 'Yours': it has Mine"]),
        ("mine.py:Params", "", ["must derive from leakbench.contracts."]),
        ("mine.py:Mine", "import no_such_module", ["mine.py can't be imported", "no_such_module"]),
        ("mine.py:Mine", "def broken(:", ["mine.py can't be imported", "SyntaxError"]),
        ("mine.py:Mine", "raise ImportError('one line\\nand another')", ["mine.py can't be imported", "one line"]),
        (
            "mine.py:Mine",
            "class Wordless(Exception):\n    def __str__(self):\n        raise KeyError\nraise Wordless",
            ["mine.py can't be imported", "Wordless: (its message can't be shown)"],
        ),
        (
            "mine.py:Half",
            "class Half(Attack[Params]): needs = Access.LABELS",
            ["name must be a printable text", "None"],
        ),
        ("mine.py:Half", "class Half(Attack[Params]): name = ''", ["name must be a printable text", "''"]),
        ("mine.py:Half", "class Half(Attack[Params]): name = 5", ["name must be a printable text", "5"]),
        ("mine.py:Half", "class Half(Attack[Params]): name = 'a\\x1b[31m'", ["name must be a printable text"]),
        ("mine.py:Half", "class Half(Attack[Params]): name = 'a[b=1]'", ["without [ ] = and commas", "a[b=1]"]),
        ("mine.py:Half", "class Half(Attack[Params]): name, version = 'a', '1'", ["version must be a whole number"]),
        ("mine.py:Half", "class Half(Attack[Params]): name, version = 'a', True", ["version must be a whole number"]),
        ("mine.py:Half", "class Half(Attack[Params]): name = 'a'", ["must have the method run"]),
        (
            "mine.py:Half",
            "class Half(Attack[Params]):\n    name = 'a'\n    def run(self, *_): pass",
            ["must say what it needs", "needs = Access.SCORES"],
        ),
    ],
)
@pytest.mark.parametrize("command", ["run", "info"])
def test_a_plugin_file_that_is_none(
    leakbench: Leakbench, tmp_path: Path, command: str, target: str, top: str, words: list[str]
) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN.format(top=top))
    run = ["run", "-d", "han2020", "--no-isolate", "-a", target]
    line = leakbench(*(run if command == "run" else ["info", target])).line
    wanted = [
        word for word in words if ("contracts.Attack" not in word and "no attack" not in word) or command == "run"
    ]
    assert [word for word in wanted if word not in line] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "top", "words"),
    [
        pytest.param(
            "mine.py:Mine", "raise ImportError('one\\ntwo')", "mine.py can't be imported", marks=pytest.mark.slow
        ),
        ("mine.py:Half", "class Half(Attack[Params]): name = 'a\\x1b[31m'", "name must be a printable text"),
    ],
    ids=["module", "class"],
)
def test_an_isolated_plugin_file_that_is_none(
    leakbench: Leakbench, tmp_path: Path, target: str, top: str, words: str
) -> None:
    """What is wrong is found in another process, and said here in the same words."""
    (tmp_path / "mine.py").write_text(PLUGIN.format(top=top))
    assert words in leakbench("run", "-d", "han2020", "--isolate", "-a", target).line


@pytest.mark.slow
def test_debug_shows_where() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "leakbench", "--debug", "info", "privatesn"], capture_output=True, text=True
    )
    assert ended.returncode != 0
    assert ended.stderr.startswith("Traceback (most recent call last):")
    assert "UnknownName" in ended.stderr
    assert "did you mean 'privatesnn'?" in ended.stderr


@pytest.mark.slow
def test_a_process_ends_as_the_tests_above_say() -> None:
    ended = subprocess.run([sys.executable, "-m", "leakbench", "info", "privatesn"], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert len(ended.stderr.splitlines()) == 1
    assert "did you mean 'privatesnn'?" in ended.stderr


def test_our_own_mistakes_are_one_line_and_one(leakbench: Leakbench, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: Any) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr("leakbench.registry.load", breaks)
    said = leakbench("info", "direct")
    assert (said.status, said.out) == (1, "")
    assert said.err.splitlines() == ["leakbench: RuntimeError: first line (--debug before the command shows where)"]
