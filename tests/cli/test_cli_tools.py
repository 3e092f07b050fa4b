"""doctor, cache and report: what they print and write."""

from __future__ import annotations

import csv
import json
import os
import time
from pathlib import Path

import pytest
from cli_said import Leakbench
from tiny_runs import (
    OURS,
    Warm,
    artifacts,
    cell_of,
    copied,
    numbers,
    plain,
)

from leakbench.paths import use_networks
from leakbench.runtime import process
from leakbench.runtime.isolation.confinement import what_is_lacking
from leakbench.runtime.store import Store

COLUMNS = ["dataset", "model", "defense", "attack", "seed", "status", "metric", "value", "low", "high", "n"]


@pytest.mark.slow
def test_doctor_tells_what_is_usable(leakbench: Leakbench, warm: Warm) -> None:
    said = leakbench("doctor", "--cache", warm.cache, "--json")
    assert (said.status, said.err) == (0, "")
    rows = {(row["kind"], row["name"]): row for row in json.loads(said.out)}
    assert rows["data set", "digits"]["ok"] is True
    assert rows["data set", "cifar10"]["ok"] is False
    assert "cifar10.tar" in rows["data set", "cifar10"]["detail"] and "faces.tar" in rows["data set", "faces"]["detail"]
    assert rows["device", "cpu"]["ok"] is True
    assert rows["isolation", "plugins"]["ok"] == (not what_is_lacking())
    native = process.has_bfloat16()
    assert rows.get(("precision", "bfloat16"), {}).get("ok") == native  # no row where the system does not tell
    assert rows["FID", "Inception"]["ok"] is False
    squeezenet = rows["fd_squeezenet", "SqueezeNet"]
    assert squeezenet["ok"] is False
    assert "checkpoints/squeezenet1_1-b8a52dc0.pth, or name one with --features" in squeezenet["detail"]
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
    # 3 draws of noise, the only one of real images, and a fresh one of each; of each set of images 17 metrics, of the
    # check 4; private images beside those of the attacks and of the real anchor
    counted = {
        "ann": 1, "judge": 2, "ensemble": 1, "features": 1, "victim": 4, "utility": 4, "attack": 9, "anchor": 6,
        "predictions": 15, "image-features": 14, "metric": 14 * 17 + 4, "outliers": 1, "uap": 8, "uap-brackets": 4,
        "training-features": 1, "nearest": 9, "budget": 8,
    }  # fmt: skip
    assert counts == counted | {"all": sum(counted.values())}


@pytest.mark.slow
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


def test_decoded_data_sets_are_listed_and_pruned(leakbench: Leakbench, tmp_path: Path) -> None:
    copy = tmp_path / "cache" / "datasets" / "cifar10-0123.records"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(bytes(10))
    listed = leakbench("cache", "ls", "--cache", tmp_path / "cache").out.splitlines()
    assert [line.split() for line in listed[1:]] == [
        ["decoded", "data", "sets", "1", "10", "B"],
        ["all", "1", "10", "B"],
    ]
    assert leakbench("cache", "prune", "--cache", tmp_path / "cache").out == "removed 0 artifacts, 0 B\n"
    pruned = leakbench("cache", "prune", "--cache", tmp_path / "cache", "--older-than", 0)
    assert pruned.out == "removed 1 artifacts, 10 B\n"
    assert not copy.exists()


def test_own_networks_are_listed_and_pruned(leakbench: Leakbench, tmp_path: Path) -> None:
    """They are the user's, and may be secret: what removes all removes them, too."""
    kept = tmp_path / "cache" / "networks" / "0123" / "mine.safetensors"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(bytes(10))
    assert "your own networks" in leakbench("cache", "ls", "--cache", tmp_path / "cache").out
    assert leakbench("cache", "prune", "--cache", tmp_path / "cache").out == "removed 0 artifacts, 0 B\n"
    pruned = leakbench("cache", "prune", "--cache", tmp_path / "cache", "--older-than", 0)
    assert pruned.out == "removed 1 artifacts, 10 B\n" and not kept.exists()


def test_a_network_of_a_run_that_starts_counts_as_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, users = (tmp_path / name for name in ("networks/0/one.safetensors", "networks/1/two.safetensors", "mine"))
    for path in (one, two, users):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (0, 0))
    monkeypatch.chdir(tmp_path.parent)
    use_networks(Path(tmp_path.name), [one, users])
    assert one.stat().st_mtime > two.stat().st_mtime == users.stat().st_mtime == 0


def test_the_cache_is_the_environment_s_unless_named(
    leakbench: Leakbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEAKBENCH_CACHE", str(tmp_path / "one"))
    assert leakbench("cache", "ls").out.splitlines()[0] == str(tmp_path / "one")
    (tmp_path / "two").mkdir()
    assert leakbench("cache", "ls", "--cache", tmp_path / "two").out.splitlines()[0] == str(tmp_path / "two")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LEAKBENCH_CACHE", "~/three")
    assert leakbench("cache", "ls").out.splitlines()[0] == str(tmp_path / "three")


@pytest.mark.slow
def test_report_writes_page_and_tables_from_the_record_alone(leakbench: Leakbench, warm: Warm, tmp_path: Path) -> None:
    out = copied(warm.out, tmp_path / "run")
    said = leakbench("report", out)
    assert (said.status, said.out, said.err) == (0, f"{out / 'report.html'}\n", "")
    assert "<html" in (out / "report.html").read_text(encoding="utf-8")
    assert all((out / name).stat().st_size > 0 for name in ("results.csv", "results.md", "results.tex"))


@pytest.mark.slow
def test_the_csv_holds_every_value_once(leakbench: Leakbench, warm: Warm, tmp_path: Path) -> None:
    out = copied(warm.out, tmp_path / "run")
    leakbench("report", out)
    with (out / "results.csv").open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        columns = next(reader)
        rows = [dict(zip(columns, row, strict=True)) for row in reader]
    assert columns[: len(COLUMNS)] == COLUMNS  # new ones come last
    # what is of all seeds together is of none; the tests of the reports look at that
    rows = [row for row in rows if row["seed"] and not row["metric"].startswith("budget: ")]
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
