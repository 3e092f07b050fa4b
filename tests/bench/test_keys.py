"""Keys: what changes when an option, a seed, the weights, a version or a pixel does, and what must not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_runs import (
    OURS,
    Warm,
    artifacts,
    cell_of,
    copied,
    run_here,
)

from leakbench.attacks.direct import Direct
from leakbench.records import RunRecord

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("short_lessons")]

BOTH_JUDGES = ("judge bnconv", "judge mixer")


def keys_of(record: RunRecord, seed: int = 0) -> dict[str, str]:
    """role -> key of the cell direct on what was asked for, and of what it stands on."""
    found = {**cell_of(record, OURS, seed=seed).artifacts, **cell_of(record, OURS, "direct", seed).artifacts}
    return {role: found[role] for role in ("ann", *BOTH_JUDGES, "victim", "images")}


@pytest.fixture
def grown(warm: Warm, tmp_path: Path) -> Path:
    """A store for these tests' metrics."""
    return copied(warm.cache, tmp_path / "grown")


@pytest.fixture
def alone(warm: Warm) -> dict[str, Any]:
    """The options of the tiny grid with one defence and one attack."""
    return warm.tiny.options(attack=["direct"], controls=False)


@pytest.mark.parametrize(
    ("changed", "options"),
    [
        ({"victim", "images"}, {"timesteps": ["3"]}),
        ({"victim", "images"}, {"set": {"direct.iterations": ["2"], f"{OURS}.images": ["15"]}}),
        ({"images"}, {"set": {"direct.iterations": ["3"], f"{OURS}.images": ["16"]}}),
        ({"images"}, {"images_per_class": 4}),
        (set(), {"preset": "standard"}),  # whatever it sets is set by options here
        (set(), {"attack": ["direct", "reconversion"]}),
    ],
    ids=["timesteps", "defence-params", "attack-params", "images-per-class", "preset", "another-attack"],
)
def test_an_option_changes_the_keys_of_what_it_enters_and_no_other(
    warm: Warm, grown: Path, alone: dict[str, Any], tmp_path: Path, changed: set[str], options: dict[str, Any]
) -> None:
    before = keys_of(warm.record)
    after = keys_of(run_here({**alone, **options}, grown, tmp_path / "run"))
    assert {role for role in before if before[role] != after[role]} == changed


def test_the_seed_the_weights_and_the_version_are_in_the_keys(
    warm: Warm, grown: Path, alone: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, cache = keys_of(warm.record), grown

    def changed(after: dict[str, str]) -> set[str]:
        return {role for role in before if before[role] != after[role]}

    seeds = run_here({**alone, "seeds": 2}, cache, tmp_path / "seeds")
    assert changed(keys_of(seeds, seed=0)) == set()
    assert changed(keys_of(seeds, seed=1)) == {"victim", "images"}  # the ANN is given; judges have seeds of their own
    weights = load_file(warm.tiny.checkpoint)
    weights["10.weight"][0, 0] += 1e-4
    save_file(weights, tmp_path / "other.safetensors")
    other = run_here({**alone, "ann": str(tmp_path / "other.safetensors")}, cache, tmp_path / "weights")
    assert changed(keys_of(other)) == {"ann", "victim", "images"}
    monkeypatch.setattr(Direct, "version", Direct.version + 1)
    assert changed(keys_of(run_here(alone, cache, tmp_path / "version"))) == {"images"}


@pytest.mark.long
def test_one_changed_pixel_changes_every_key(warm: Warm, alone: dict[str, Any], tmp_path: Path) -> None:
    images = copied(warm.tiny.images, tmp_path / "shapes")
    path = images / "bars" / "00.png"
    with Image.open(path) as image:
        pixels = np.asarray(image).copy()
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(path)
    after = keys_of(run_here({**alone, "dataset": [f"folder:{images}:flips"]}, tmp_path / "cache", tmp_path / "run"))
    before = keys_of(warm.record)
    assert {role for role in before if before[role] != after[role]} == {"ann", *BOTH_JUDGES, "victim", "images"}


def test_places_and_devices_are_in_no_key(warm: Warm, alone: dict[str, Any], tmp_path: Path) -> None:
    """Data set, weights and store elsewhere, the device by another name: nothing is computed again."""
    moved = replace(
        warm.tiny,
        images=copied(warm.tiny.images, tmp_path / "elsewhere"),
        checkpoint=Path(tmp_path / "w.safetensors"),
    )
    moved.checkpoint.write_bytes(warm.tiny.checkpoint.read_bytes())
    cache = copied(warm.cache, tmp_path / "cache")
    record = run_here(
        {**alone, "dataset": [moved.dataset], "ann": str(moved.checkpoint)}, cache, tmp_path / "run", device="cpu:0"
    )
    assert keys_of(record) == keys_of(warm.record)
    assert artifacts(cache) == artifacts(warm.cache)
