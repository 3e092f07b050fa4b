"""``run``: where its options come from, and the folder that it writes to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from cli_said import Leakbench, record_in
from threadpoolctl import threadpool_info
from tiny_runs import (
    CELLS,
    OURS,
    OURS_LABEL,
    Warm,
    artifacts,
    cell_of,
    copied,
    numbers,
    value_of,
)

from leakbench.bench import runner
from leakbench.bench.grid import make_config
from leakbench.bench.run_folder import open_run
from leakbench.errors import UsageError


@pytest.mark.long
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
    assert leakbench("run", "--config", "grid.toml", "--no-isolate", "--quiet").status == 0
    assert numbers(record_in(tmp_path / "from-file")) == numbers(warm.record)
    assert artifacts(warm.cache) == before
    said = leakbench(
        "run", "--config", "grid.toml", "--no-isolate", "--quiet", "--out", "from-options", "--cache", warm.grown,
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
    at = arguments.index("--out")
    del arguments[at : at + 2]
    said = leakbench(*arguments, "--cache", warm.cache, "--json", "-q")
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith(f"shapes-flips-{OURS}-")
    assert json.loads(said.out)["run"] == f"runs/{folder.name}"
    assert leakbench(*arguments, "--cache", warm.cache, "--json", "-q").out == said.out  # the same grid goes on there
    assert list((tmp_path / "runs").iterdir()) == [folder]


@pytest.mark.slow
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
    said = leakbench(
        "run", "--resume", "--out", out, "--cache", warm.cache, "--trust-plugins", "--no-isolate", "-q", "--json"
    )  # fmt: skip
    assert said.status == 0
    assert json.loads(said.out)["cells"] == CELLS
    assert numbers(record_in(out)) == numbers(warm.record)
    assert json.loads((out / "grid.json").read_text()) == json.loads((warm.out / "grid.json").read_text())


@pytest.mark.slow
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
    words = {
        "another grid": "holds another run: choose another folder, or go on with that one: leakbench run --resume",
        "foreign folder": "not empty",
        "file in the path": "can't be written",
    }
    assert words[fault] in line
    assert f"--out '{out}'" in line
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_run_goes_on_with_the_files_that_it_was_started_with(leakbench: Leakbench, tmp_path: Path) -> None:
    """What a folder names is neither read nor left out silently: values would be lost."""
    open_run(tmp_path / "run", make_config({"defense": "ann", "attack": "none"}), "", ["cache", "features"])
    line = leakbench("run", "--resume", "--out", tmp_path / "run").line
    assert "was started with --cache, --features: give them again" in line
    again = leakbench("run", "--resume", "--out", tmp_path / "run", "--cache", tmp_path / "there")
    assert "was started with --features: give it again" in again.line
    assert not (tmp_path / "there").exists()


@pytest.mark.slow
def test_so_does_one_whose_configuration_file_named_them(leakbench: Leakbench, warm: Warm, tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text(f"cache = {json.dumps(str(warm.cache))}\n")
    assert leakbench(*warm.tiny.arguments(tmp_path / "run"), "--config", config, "-q").status == 0
    said = leakbench("run", "--resume", "--trust-plugins", "--out", tmp_path / "run")
    assert "was started with --cache: give it again" in said.line
