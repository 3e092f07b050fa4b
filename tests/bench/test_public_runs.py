"""Public images in a run: who is handed which, what is shared, and what stands in the keys."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from planned_cells import attacks as attack_cells
from tiny_runs import DEFENSES, OURS, Warm, cell_of, copied, run_here

from leakbench.bench.grid import make_config
from leakbench.bench.plan import plan
from leakbench.data import load_dataset, public_images
from leakbench.errors import UsageError
from leakbench.records import CellRecord, RunRecord
from leakbench.runtime.workspace import Settings, Workspace

pytestmark = pytest.mark.slow

PUBLIC = '''
"""Attacks for tests: they say what they were handed."""

import hashlib

import torch

from leakbench.contracts import Access, Attack, Params


def number(images):
    """Some of the images' hash, as a finding."""
    return int(hashlib.sha256(images.numpy().tobytes()).hexdigest()[:8], 16)


class Prior(Attack[Params]):
    """Random images; what is shared is as good as random and made of public images."""

    name = "prior"
    needs = Access.LABELS
    uses_public = True

    def run(self, victim, targets, context):
        def build(own):
            return {
                "seen": own.public.images.clone(),
                "flips": torch.tensor(own.flips),
                "drawn": torch.rand(1, generator=own.generator),
            }

        made = context.shared("prior", 1, {"size": 3}, build)
        context.finding("handed", number(context.public.images))
        context.finding("built on", number(made["seen"]))
        context.finding("flips", context.flips)
        context.finding("flips in build", made["flips"])
        context.finding("drawn", made["drawn"])
        context.public.images.zero_()  # its own to spoil
        return torch.rand(len(targets), *victim.image_shape, generator=context.generator)


class Without(Attack[Params]):
    """Random images, and nothing that others left in the store."""

    name = "without"
    needs = Access.LABELS

    def run(self, victim, targets, context):
        assert context.public is None
        assert context.shared_store is None
        context.finding("flips", context.flips)
        return torch.rand(len(targets), *victim.image_shape, generator=context.generator)
'''


@pytest.fixture
def attacks(tmp_path: Path) -> list[str]:
    path = tmp_path / "public.py"
    path.write_text(PUBLIC, encoding="utf-8")
    return [f"{path}:{name}" for name in ("Prior", "Without")]


def found(cell: CellRecord) -> dict[str, float]:
    return {one.name: one.value for one in cell.findings}


def keys(record: RunRecord, attack: str) -> list[str]:
    return [cell.artifacts["images"] for cell in record.cells if cell.attack == attack]


@pytest.mark.long
def test_who_asks_gets_them_and_the_rest_does_not_depend_on_them(
    warm: Warm, tmp_path: Path, attacks: list[str]
) -> None:
    options = warm.tiny.options(attack=attacks, set={f"{OURS}.images": ["16"]})
    record = run_here(options, warm.grown, tmp_path / "run")
    assert {(cell.status, cell.reason) for cell in record.cells} == {("ok", "")}
    photos = public_images("photos", load_dataset(warm.tiny.dataset))
    expected = int(hashlib.sha256(photos.images.numpy().tobytes()).hexdigest()[:8], 16)
    cells = [cell_of(record, defense, "prior") for defense in DEFENSES]
    for cell in cells:  # the next ones, too, whatever the first has done to its copy
        said = found(cell)
        assert (said["handed"], said["built on"]) == (expected, expected)
        assert (said["flips"], said["flips in build"]) == (1, 1)  # as the name of the folder states
        assert cell.public == photos.source
    # built once, for all victims, and named in the record of each
    assert len({found(cell)["drawn"] for cell in cells}) == len({cell.artifacts["prior"] for cell in cells}) == 1
    others = [cell for cell in record.cells if cell.attack != "prior"]
    assert {cell.public for cell in others} == {""}
    assert not any("prior" in cell.artifacts for cell in others)
    assert found(cell_of(record, OURS, "without")) == {"flips": 1}
    uses = {plugin.name: plugin.uses_public for plugin in record.plugins}
    assert uses == {name: name == "prior" for name in (*DEFENSES, "prior", "without")}
    # other public images: other attacks where they are used, and the very same where they are not
    again = run_here(options | {"public": "digits"}, warm.grown, tmp_path / "again")
    assert {(cell.status, cell.reason) for cell in again.cells} == {("ok", "")}
    assert keys(again, "without") == keys(record, "without")
    assert not set(keys(again, "prior")) & set(keys(record, "prior"))
    assert cell_of(again, OURS, "prior").public == "1,437 training images of digits"
    assert cell_of(again, OURS, "prior").artifacts["prior"] != cells[0].artifacts["prior"]


def test_images_that_are_the_private_ones_are_refused_before_anything_is_computed(
    warm: Warm, tmp_path: Path, attacks: list[str]
) -> None:
    twin = copied(warm.tiny.images, tmp_path / "twin")
    options = warm.tiny.options(attack=attacks[:1], public=f"folder:{twin}", controls=False)
    options["set"] = {f"{OURS}.images": ["16"]}
    with pytest.raises(UsageError, match="would be the private ones"):
        run_here(options, tmp_path / "cache", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_public_images_are_loaded_once(tmp_path: Path, attacks: list[str]) -> None:
    options: dict[str, Any] = {"defense": ["ann"], "attack": attacks[:1], "dataset": ["digits:half"], "controls": False}
    (cell,) = attack_cells(plan(make_config(options)))
    workspace = Workspace(Settings(cache=str(tmp_path / "cache")), lambda *_: None)
    images, fingerprint = workspace.public(cell.public, cell.dataset)
    assert images.source.endswith("training images of the other 5 classes of digits")
    assert workspace.public(cell.public, cell.dataset)[0] is images
    # of shape and bytes: other images of the same bytes are something else
    head = f"[{len(images.images)}, 1, 8, 8]".encode()
    assert fingerprint == hashlib.sha256(head + images.images.numpy().tobytes()).hexdigest()
