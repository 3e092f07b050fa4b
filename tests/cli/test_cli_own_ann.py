"""``--ann``: a user's ANN from a file of weights, or a function and its weights, in every place it may be said."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from cli_said import Leakbench, record_in
from safetensors.torch import load_file
from tiny_runs import OURS_LABEL, Warm, cell_of, value_of

import leakbench as api

MINE = """
import torch
from torch import nn

def build():
    layers = [nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.ReLU(), nn.AvgPool2d(2),
              nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(),
              nn.Linear(256, 128, bias=False), nn.ReLU(), nn.Dropout(), nn.Linear(128, {classes}, bias=False)]
    return nn.Sequential(*layers)

def scaled():
    first = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.constant_(first.weight, 0.5)
    return nn.Sequential(first, *build())

def halved():
    network = scaled()
    nn.Sequential(*list(network)[1:]).load_state_dict(torch.load({weights!r}))
    return network

def tanh():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(72, 3))

def nothing():
    return None

def fails():
    raise RuntimeError("no weights\\nhere")
"""


@pytest.fixture
def mine(warm: Warm, tmp_path: Path) -> Path:
    """A file of functions, beside the tiny run's weights as torch saves them."""
    torch.save({"state_dict": load_file(warm.tiny.checkpoint)}, tmp_path / "weights.pt")
    torch.save(load_file(warm.tiny.checkpoint), tmp_path / "plain.pt")
    path = tmp_path / "mine.py"
    path.write_text(MINE.format(classes=3, weights=str(tmp_path / "plain.pt")))
    return path


def accuracies(out: Path, *defenses: str) -> dict[str, float | None]:
    record = record_in(out)
    return {name: value_of(cell_of(record, name, ""), "accuracy") for name in defenses}


@pytest.mark.slow
def test_a_function_and_its_weights_are_converted_as_a_built_in_model(
    leakbench: Leakbench, warm: Warm, mine: Path, tmp_path: Path
) -> None:
    wanted = value_of(cell_of(warm.record, "ann", ""), "accuracy")
    assert wanted is not None and wanted > 0.5
    defenses = ("ann", "han2020", "sengupta2019", "rueckauer2017")
    arguments = (
        "run", "-d", ",".join(defenses), "-a", "none", "--no-controls", "--dataset", warm.tiny.dataset,
        "--preset", "quick", "--timesteps", "16", "--cache", warm.grown, "--quiet",
    )  # fmt: skip
    said = leakbench(*arguments, "--ann", f"{mine}:build", "--weights", tmp_path / "weights.pt", "--out", "given")
    assert said.status == 0, said.err
    record = record_in(tmp_path / "given")
    assert accuracies(tmp_path / "given", *defenses)["ann"] == wanted
    assert {cell.status for cell in record.cells} == {"ok"}
    # the record says what the network is, in a file that is there when the user's function is gone
    kept = Path(record.grid["ann"])
    assert record.weights == hashlib.sha256(kept.read_bytes()).hexdigest() and kept.parent.parent.name == "networks"
    assert record.grid["model"][0].startswith("graph: conv 32 k3x3 p1x1; relu; avgpool k2x2; conv 64")
    mine.unlink()
    assert leakbench("run", "--resume", "--out", "given", "--cache", warm.grown, "-q").status == 0
    assert accuracies(tmp_path / "given", *defenses)["ann"] == wanted


@pytest.mark.slow
def test_normalised_images(leakbench: Leakbench, warm: Warm, mine: Path, tmp_path: Path) -> None:
    """A network that halves what it gets, and gets images divided by .5, is the same network."""
    wanted = value_of(cell_of(warm.record, "ann", ""), "accuracy")
    (tmp_path / "grid.toml").write_text(
        f"defense = ['ann', 'rueckauer2017']\nattack = 'none'\ntimesteps = 16\ndataset = '{warm.tiny.dataset}'\n"
        f"preset = 'quick'\ncontrols = false\ncache = '{warm.grown}'\nann = '{mine}:halved'\nmean = '0'\nstd = '0.5'\n"
    )
    said = leakbench("run", "--config", "grid.toml", "--out", "halved", "-q")
    assert said.status == 0, said.err
    assert accuracies(tmp_path / "halved", "ann")["ann"] == wanted
    assert {cell.status for cell in record_in(tmp_path / "halved").cells} == {"ok"}
    # of a built-in model, as a file of torch
    result = api.run(
        "ann", "none", dataset=warm.tiny.dataset, preset="quick", controls=False, cache=warm.grown, model="vgg4",
        ann=tmp_path / "weights.pt", mean=0, std=[1.0], out=tmp_path / "api", quiet=True,
    )  # fmt: skip
    assert result.record.grid["model"][0].startswith("graph: affine; conv 32")
    assert accuracies(tmp_path / "api", "ann")["ann"] == wanted


@pytest.mark.slow
def test_an_ann_in_an_audit(leakbench: Leakbench, warm: Warm, mine: Path, tmp_path: Path) -> None:
    leakbench("export", warm.out, "--snn", OURS_LABEL, "--cache", warm.cache, "--out", "net.safetensors")
    arguments = ("--snn", "net.safetensors", "--dataset", warm.tiny.dataset, "--preset", "quick", "--dry-run")
    given = ("--ann", f"{mine}:build", "--weights", tmp_path / "weights.pt", "--cache", warm.grown)
    said = leakbench("audit", *arguments, *given)
    assert said.status == 0, said.err
    kept = [load_file(one).get("body.n1.weight") for one in (warm.grown / "networks").rglob("mine.safetensors")]
    wanted = load_file(warm.tiny.checkpoint)["0.weight"]
    assert any(one is not None and one.shape == wanted.shape and torch.equal(one, wanted) for one in kept)


@pytest.mark.slow
def test_what_is_no_ann_is_one_line(leakbench: Leakbench, warm: Warm, mine: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text(MINE.format(classes=10, weights=""))
    weights = tmp_path / "weights.pt"
    begin = ("run", "-d", "ann", "-a", "none", "--dataset", warm.tiny.dataset, "--cache", tmp_path / "cache")
    for arguments, problem in (
        (("--ann", f"{mine}:missing"), "has no class or function 'missing'"),
        (("--ann", tmp_path / "none.py:build"), "no such plugin file"),
        (("--ann", f"{mine}:nothing"), "it must return a torch.nn.Module, and returned NoneType"),
        (("--ann", f"{mine}:fails"), "mine.py:fails: RuntimeError: no weights"),
        (("--ann", f"{mine}:tanh"), "the layer '1' (Tanh) is not known"),
        (("--ann", f"{other}:build"), "must give logits [100, 3], and give [100, 10]"),
        (("--ann", f"{other}:build", "--weights", weights), "'10.weight' is [3, 128] instead of [10, 128]"),
        (("--ann", f"{mine}:build", "--weights", tmp_path / "no.pt"), "--weights: no such file"),
        (("--ann", f"{mine}:build", "--weights", mine), "--weights"),
        (("--ann", f"{mine}:build", "--dataset", "digits"), "and give [100, 3]"),
        (("--ann", f"{mine}:build", "--model", "vgg4"), "leave out --model"),
        (("--ann", f"{mine}:build", "--std", "0"), "--std 0: must be above 0"),
        (("--ann", f"{mine}:build", "--mean", "125"), "--mean 125: it is of images in [0, 1]: divide it and"),
        (("--ann", f"{mine}:build", "--mean", "0.5,x"), "--mean '0.5,x': give a number, or one of each channel"),
        (("--ann", f"{mine}:build", "--mean", "0.5,0.5"), "--mean: 2 numbers, and the images have 1 channels"),
        (("--weights", weights), "--weights fills the network of --ann FILE.py:FUNCTION"),
        (("--mean", "0.5"), "name it with --ann"),
    ):
        # of several --dataset options, all count
        named = begin if "--dataset" not in arguments else (*begin[:5], *begin[7:])
        assert problem in leakbench(*named, *arguments).line
    assert not (tmp_path / "cache" / "networks").exists()
