from __future__ import annotations

import dataclasses
import json
import re
import shutil
import zipfile
from pathlib import Path
from typing import cast

import pytest
from board_entries import DIGITS, ENSEMBLE, attack_on, entry, following, key_of, plugin, saved, tree
from cli_said import Leakbench
from PIL import Image
from tiny_runs import Warm, copied

from leakbench.bench.leaderboard import submission
from leakbench.bench.leaderboard.board import Leaderboard
from leakbench.bench.leaderboard.entries import CLASSES, MOST_BYTES, AttackEntry, DefenseEntry, read_entry
from leakbench.bench.protocols import PROTOCOLS, Protocol
from leakbench.records import Picture, RealPicture, RunRecord
from leakbench.reports.tables import csv_text, latex_text

PICTURE = "images/digits-vgg4-s0/privatesnn/000-00-0123abcd.png"
PRIVATE = "images/digits-vgg4-s0/privatesnn/000-01-0123abcd.png"


def folder_of(record: RunRecord, folder: Path, pictures: tuple[str, ...] = (PICTURE, PRIVATE)) -> Path:
    folder.mkdir()
    for name in pictures:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(folder / name)
    (folder / "results.json").write_text(record.model_dump_json(), encoding="utf-8")
    (folder / "grid.json").write_text("{}")
    (folder / "notes.txt").write_text("private")
    return folder


def pictured(path: str = PICTURE) -> RunRecord:
    record = following()
    shown = Picture(path=path, target=0, named=0, training=RealPicture(path=PRIVATE, ssim=0.5))
    cells = [
        c.model_copy(
            update={"pictures": [shown]} if (c.defense, c.attack, c.seed) == ("privatesnn", ENSEMBLE, 0) else {}
        )
        for c in record.cells
    ]
    return record.model_copy(update={"cells": cells})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(pictured(), tmp_path_factory.mktemp("runs") / "mine")


# --- entries ---------------------------------------------------------------------------------------------------------


def test_an_entry_goes_to_a_file_or_to_standard_output(leakbench: Leakbench, run: Path, tmp_path: Path) -> None:
    said = leakbench("export", run, "--entry", "--link", "code=https://example.org")
    assert (said.status, said.err) == (0, "")
    made = read_entry(said.out.encode())
    assert isinstance(made, DefenseEntry)
    assert (made.protocol, made.links) == (DIGITS, {"code": "https://example.org"})
    said = leakbench("export", run, "--entry", "--defense", "privatesnn", "--out", "mine.json")
    assert (said.status, said.out, said.err) == (0, "", "")
    assert read_entry((tmp_path / "mine.json").read_bytes()).key == made.key


def test_a_breaking_attack_from_run_to_page(leakbench: Leakbench, run: Path, tmp_path: Path) -> None:
    (tmp_path / "entries").mkdir()
    assert leakbench("export", run, "--entry", "--out", "entries/mine.json").status == 0
    folder_of(following(attacks={ENSEMBLE: 0.5, "direct": 0.8}), tmp_path / "break", ())
    breaking = ("export", "break", "--entry", "--attack", "direct", "--breaks", "entries/mine.json")
    assert leakbench(*breaking, "--out", "entries/direct.json").status == 0
    made = read_entry((tmp_path / "entries" / "direct.json").read_bytes())
    assert isinstance(made, AttackEntry)
    assert made.breaks.entry == key_of((tmp_path / "entries" / "mine.json").read_text())
    said = leakbench("leaderboard", "entries", "--out", "page")
    assert (said.status, said.err) == (0, "")
    # .8 are recognised, .1 of noise and .9 of real images
    assert re.search(r"^1 +privatesnn +\.88 \[.*\] +direct$", said.out, re.MULTILINE)
    assert said.out.endswith("leaderboard: page/index.html\n")
    text = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert "breaks it" in text and "entries/direct" not in text and str(tmp_path) not in text


def test_options_of_an_entry_go_with_it(leakbench: Leakbench, run: Path) -> None:
    assert "give --entry, too" in leakbench("export", run, "--latex", "--link", "code=https://a.org").line
    assert "go together" in leakbench("export", run, "--entry", "--attack", "direct").line
    assert "go together" in leakbench("export", run, "--entry", "--breaks", "x.json").line
    assert (
        "--link code: must be an https:// address" in leakbench("export", run, "--entry", "--link", "code=ftp:x").line
    )
    assert "did you mean 'privatesnn'" in leakbench("export", run, "--entry", "--defense", "privatesn").line
    line = leakbench("export", run, "--entry", "--attack", "direct", "--breaks", "none.json").line
    assert line.startswith("none.json is no regular file")
    assert leakbench("export", run, "--entry", "--out", "leaderboard.json").line.endswith("choose another name")


def test_a_run_without_a_protocol_has_no_entry(leakbench: Leakbench, tmp_path: Path) -> None:
    folder_of(following(protocol=""), tmp_path / "run", ())
    assert "the run follows no protocol" in leakbench("export", "run", "--entry").line


@pytest.mark.slow
def test_a_measured_run_has_an_entry(
    leakbench: Leakbench, warm: Warm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of everything that a real record holds; only its protocol is pretended, whose attacks have no parameters."""
    version = next(cell.attack_version for cell in warm.record.cells if cell.attack_name == "direct")
    assert version is not None
    tiny = dataclasses.replace(PROTOCOLS[DIGITS], name="tiny", attacks={"direct": version})
    monkeypatch.setitem(cast("dict[str, Protocol]", PROTOCOLS), "tiny", tiny)
    monkeypatch.setattr(submission, "departures", lambda *_: [])
    monkeypatch.setitem(cast("dict[str, int]", CLASSES), "digits", 3)
    run = copied(warm.out, tmp_path / "run")
    plain = {"attack_params": {}}
    cells = [one.model_copy(update=plain) if one.attack_name == "direct" else one for one in warm.record.cells]
    pretended = warm.record.model_copy(update={"protocol": "tiny", "cells": cells})
    (run / "results.json").write_text(pretended.model_dump_json())
    (tmp_path / "entries").mkdir()
    said = leakbench("export", "run", "--entry", "--out", "entries/ours.json")
    assert (said.status, said.err) == (0, "")
    content = (tmp_path / "entries" / "ours.json").read_bytes()
    made = read_entry(content)
    assert isinstance(made, DefenseEntry) and len(content) < 10_000
    assert {one.plugin.name for one in made.attacks} == {"direct", "gated"}
    assert made.artifacts.anns and made.artifacts.victims and len(made.artifacts.images) == 2
    assert str(tmp_path) not in content.decode() and str(warm.out.parent) not in content.decode()
    assert leakbench("leaderboard", "entries", "--out", "page").status == 0


# --- bundles ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_bundle_holds_the_run_and_nothing_else(leakbench: Leakbench, run: Path, tmp_path: Path) -> None:
    assert leakbench("export", run, "--bundle", "mine.zip").status == 0
    with zipfile.ZipFile(tmp_path / "mine.zip") as bundle:
        names = ("results.json", "grid.json", "report.html", "results.csv", PICTURE, PRIVATE)
        assert sorted(bundle.namelist()) == sorted(f"mine/{name}" for name in names)
        assert bundle.read("mine/results.json") == (run / "results.json").read_bytes()
        assert bundle.read("mine/results.csv").decode() == csv_text(pictured())
        assert b"private" not in b"".join(bundle.read(name) for name in bundle.namelist() if name.endswith(".txt"))


@pytest.mark.slow
def test_a_bundle_takes_the_place_of_a_folder(leakbench: Leakbench, run: Path, tmp_path: Path) -> None:
    leakbench("export", run, "--bundle", "mine.zip")
    assert leakbench("export", "mine.zip", "--latex").out == latex_text(pictured())
    assert leakbench("export", "mine.zip", "--entry").out == leakbench("export", run, "--entry").out
    folder_of(following(0.9, defense="other"), tmp_path / "other", ())
    said = leakbench("compare", "mine.zip", "other", "--out", "compared")
    assert said.status == 0 and "privatesnn" in said.out and "other" in said.out
    said = leakbench("report", "mine.zip", "--out", "unpacked")
    assert (said.status, said.out) == (0, "unpacked/report.html\n")
    with zipfile.ZipFile(tmp_path / "mine.zip") as bundle:
        assert (tmp_path / "unpacked" / "report.html").read_bytes() == bundle.read("mine/report.html")
    assert (tmp_path / "unpacked" / PICTURE).is_file()


@pytest.mark.slow
def test_a_measured_run_is_the_same_from_its_bundle(leakbench: Leakbench, warm: Warm, tmp_path: Path) -> None:
    run = copied(warm.out, tmp_path / "run")
    assert leakbench("report", "run").status == 0
    assert leakbench("export", "run", "--bundle", "warm.zip").status == 0
    assert leakbench("report", "warm.zip", "--out", "unpacked").status == 0
    files, unpacked = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (run, tmp_path / "unpacked")
    )
    assert any(path.suffix == ".png" for path in files) and files == unpacked


def test_half_a_report_of_a_bundle_is_removed(
    leakbench: Leakbench, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the disk is full: what is left would refuse the next try."""
    leakbench("export", run, "--bundle", "mine.zip")

    def full(_source: Path, out: Path, **_more: object) -> None:
        (out / "half").touch()
        raise shutil.Error([("a", "b", "[Errno 28] No space left on device")])

    monkeypatch.setattr(shutil, "copytree", full)
    assert "No space left on device" in leakbench("report", "mine.zip", "--out", "unpacked").line
    assert not (tmp_path / "unpacked").exists()


def test_where_a_report_of_a_bundle_goes(leakbench: Leakbench, run: Path, tmp_path: Path) -> None:
    leakbench("export", run, "--bundle", "mine.zip")
    assert "a bundle needs one" in leakbench("report", "mine.zip").line
    assert "RUN is none" in leakbench("report", run, "--out", "x").line
    assert "choose a new folder" in leakbench("report", "mine.zip", "--out", tmp_path).line


@pytest.mark.parametrize("verb", [("export", "--latex"), ("export", "--entry"), ("compare",), ("report", "--out", "x")])
def test_a_zip_of_a_stranger_is_refused(leakbench: Leakbench, tmp_path: Path, verb: tuple[str, ...]) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as bundle:
        bundle.writestr("run/results.json", "{}")
        bundle.writestr("run/../../evil.png", "")
    line = leakbench(verb[0], "evil.zip", *verb[1:]).line
    assert line.startswith("evil.zip is no bundle of a run: 'run/../../evil.png'")
    assert [one.name for one in tmp_path.iterdir()] == ["evil.zip"]


@pytest.mark.slow
def test_what_can_not_be_bundled(leakbench: Leakbench, run: Path, tmp_path: Path) -> None:
    assert "does not end with .zip" in leakbench("export", run, "--bundle", "mine.tar").line
    leakbench("export", run, "--bundle", "mine.zip")
    assert "is a bundle" in leakbench("export", "mine.zip", "--bundle", "again.zip").line
    assert "leave out --out" in leakbench("export", run, "--bundle", "x.zip", "--out", "y").line
    (tmp_path / "secret.png").write_bytes(b"secret")
    folder_of(pictured("images/../../secret.png"), tmp_path / "evil", (PRIVATE,))
    assert "is no path below images/" in leakbench("export", "evil", "--bundle", "evil.zip").line
    (folder_of(pictured(), tmp_path / "linked", (PRIVATE,)) / PICTURE).symlink_to(tmp_path / "secret.png")
    assert "leads through a link" in leakbench("export", "linked", "--bundle", "linked.zip").line
    assert not (tmp_path / "evil.zip").exists() and not (tmp_path / "linked.zip").exists()


# --- the board -------------------------------------------------------------------------------------------------------


def test_hostile_files_are_refused_in_a_line_each(leakbench: Leakbench, tmp_path: Path) -> None:
    folder = saved(tmp_path / "entries", good=entry())
    text = entry().model_dump_json()
    hostile = {
        "nan": text.replace('"p":0.0001', '"p":NaN'),
        "huge": text.replace('"queries":40.0', '"queries":1e999'),
        "larger": text.replace('"queries":40.0', '"queries":' + "9" * 400),
        "schema": text.replace('"schema_version":1', '"schema_version":99'),
        "protocol": text.replace(DIGITS, "../../x"),
        "deep": '{"a":' * 20_000,
        "twice": text.replace('{"schema_version":1', '{"schema_version":1,"schema_version":1'),
        "\x1b[2Jname": "{",
    }
    for name, content in hostile.items():
        assert content != text
        (folder / f"{name}.json").write_text(content)
    with (folder / "large.json").open("wb") as file:
        file.truncate(100 << 20)
    (folder / "link.json").symlink_to("/etc/hostname")
    saved(folder, orphan=attack_on(entry("nobody")))
    said = leakbench("leaderboard", "entries")
    lines = said.err.splitlines()
    assert said.status == 1 and len(lines) == len(hostile) + 3
    assert all(line.startswith("leakbench: ") and line.isprintable() and len(line) < 400 for line in lines)
    assert said.out.endswith("leaderboard: runs/leaderboard/index.html\n")
    made = Leaderboard.model_validate_json((tmp_path / "runs" / "leaderboard" / "leaderboard.json").read_bytes())
    assert [row.shown.path for board in made.boards for row in board.ranked] == ["good.json"]


def test_hostile_texts_are_shown_and_not_obeyed(leakbench: Leakbench, tmp_path: Path) -> None:
    bad = '<script>alert(1)</script>\x1b[2J\u202e"onload="x'
    mine = plugin("x", label='x[a="<script>alert(1)"]', origin=bad, cites=bad, params={bad: bad}, given=[bad])
    saved(tmp_path / "entries", a=entry(defense=mine))
    said = leakbench("leaderboard", "entries", "--out", "page")
    assert said.status == 0 and "\x1b" not in said.out and "\u202e" not in said.out
    text = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert "<script>alert" not in text and "\x1b" not in text and "\u202e" not in text


def test_the_same_entries_give_the_same_page(leakbench: Leakbench, tmp_path: Path) -> None:
    saved(tmp_path / "entries", a=entry("a", 0.2), b=entry("b", 0.9))
    pages = []
    for _ in range(2):
        assert leakbench("leaderboard", "entries", "--out", "page").status == 0
        pages.append([(tmp_path / "page" / name).read_bytes() for name in ("index.html", "leaderboard.json")])
    assert pages[0] == pages[1]


def test_no_entry_is_a_page_too(leakbench: Leakbench, tmp_path: Path) -> None:
    (tmp_path / "entries").mkdir()
    assert leakbench("leaderboard", "entries", "--out", "page").status == 0
    assert "There is no entry yet" in (tmp_path / "page" / "index.html").read_text(encoding="utf-8")


def test_folders_that_do_not_fit(leakbench: Leakbench, run: Path, tmp_path: Path) -> None:
    assert "is no folder" in leakbench("leaderboard", "none").line
    saved(tmp_path / "entries", a=entry())
    assert "holds no leaderboard" in leakbench("leaderboard", "entries", "--out", run).line
    assert "holds no leaderboard" in leakbench("leaderboard", "entries", "--out", "entries").line


def test_the_limit_is_far_above_what_is_written() -> None:
    assert len(json.dumps(tree())) * 10 < MOST_BYTES
