"""The pictures of a run: which are written, where, and that no two cells meet in a name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import (
    ATTACKS,
    CLASSES,
    DEFENSES,
    OURS,
    Warm,
    copied,
    held_out,
    run_here,
)

from leakbench.leakage.inversion.evaluation import evaluation_of
from leakbench.leakage.pictures import write_pictures
from leakbench.metrics.similarity import shortlisted_ssim, ssim
from leakbench.runtime.workspace import Settings, Workspace


def test_pictures_are_there_inside_and_of_their_class(warm: Warm) -> None:
    images, labels = held_out(warm.tiny)
    tests = {(image.numpy().tobytes(), int(label)) for image, label in zip(images, labels, strict=True)}
    paths, private = [], set()
    for cell in warm.record.cells:
        wanted = 0 if cell.of or (cell.defense and not cell.attack) else 2 * len(CLASSES)
        assert len(cell.pictures) == wanted
        assert sorted(picture.target for picture in cell.pictures) == [0, 0, 1, 1, 2, 2][:wanted]
        for picture in cell.pictures:
            path = (warm.out / picture.path).resolve()
            assert path.is_relative_to((warm.out / "images").resolve())
            with Image.open(path) as image:
                assert (image.format, image.size, image.mode) == ("PNG", (8, 8), "L")
                pixels = np.asarray(image)
            if cell.attack == "real":
                assert (pixels.tobytes(), picture.target) in tests
            paths.append(path)
            private |= {warm.out / one.path for one in (picture.training, picture.held_out) if one}
    assert len(set(paths)) == len(paths) == (2 + len(DEFENSES) * len(ATTACKS)) * 6
    assert len(private) == (1 + len(DEFENSES) * len(ATTACKS)) * 3 * 2  # real images and attacks, classes, kinds
    assert set(warm.out.rglob("*.png")) == set(paths) | private


@pytest.mark.slow
def test_the_first_picture_of_a_class_is_beside_the_private_images_most_like_it(warm: Warm) -> None:
    workspace = Workspace(Settings(cache=str(warm.grown)), lambda *_: None)
    data, real = workspace.dataset(warm.tiny.dataset), evaluation_of(workspace, warm.tiny.dataset).real
    assert data.fingerprint == evaluation_of(workspace, warm.tiny.dataset).fingerprint
    kinds = {
        "training": (data.train.images, data.train.labels),
        "held_out": (real.images, real.labels),
    }
    for cell in warm.record.cells:
        for number, picture in enumerate(cell.pictures):
            first = picture.target not in {one.target for one in cell.pictures[:number]}
            for kind, (images, labels) in kinds.items():
                shown = getattr(picture, kind)
                assert (shown is not None) == (first and cell.attack != "noise")
                if shown is None:
                    continue
                pixels = [torch.from_numpy(np.array(Image.open(warm.out / p))) for p in (picture.path, shown.path)]
                drawn, beside = (one[None, None] for one in pixels)
                of_class = images[labels == picture.target]
                assert (of_class == beside).flatten(1).all(1).any()
                assert shown.ssim == pytest.approx(float(ssim(drawn, beside)), abs=1e-5)
                assert shown.ssim == pytest.approx(float(shortlisted_ssim(drawn, of_class)[1].max()), abs=1e-5)


@pytest.mark.long
@pytest.mark.slow
def test_long_names_do_not_mix_pictures_up(warm: Warm, tmp_path: Path) -> None:
    """Folders are named by data set, seed and label, and names have to end somewhere: no two cells may meet there."""
    deep, attack = tmp_path / ("a" * 60) / ("b" * 60) / "shapes", tmp_path / "long.py"
    deep.parent.mkdir(parents=True)
    attack.write_text(
        "import torch\n"
        "from pydantic import Field\n"
        "from leakbench.contracts import Access, Attack, Params\n"
        "class LongParams(Params):\n"
        '    number: int = Field(1, ge=1, description="number")\n'
        "class Long(Attack[LongParams]):\n"
        '    """Random images."""\n'
        f'    name = "{"long" * 25}"\n'
        "    needs = Access.LABELS\n"
        "    def run(self, victim, targets, context):\n"
        "        return torch.rand(len(targets), *victim.image_shape, generator=context.generator)\n",
        encoding="utf-8",
    )
    options = warm.tiny.options(
        dataset=[f"folder:{copied(warm.tiny.images, deep)}:flips"],
        attack=[f"{attack}:Long"],
        controls=False,
        seeds=2,
        set={f"{OURS}.images": ["16"], f"{'long' * 25}.number": ["1", "2"]},
    )
    record = run_here(options, warm.grown, tmp_path / "run")
    paths = [picture.path for cell in record.cells for picture in cell.pictures]
    assert len(paths) == 2 * (2 + 2) * 6  # seeds x (anchors, variants) x images
    assert len(set(paths)) == len(paths)


def test_no_more_than_ten_pictures_of_a_class_are_written(tmp_path: Path) -> None:
    images = torch.arange(36, dtype=torch.uint8).view(36, 1, 1, 1).expand(36, 3, 4, 5)
    targets = torch.arange(36) % 3
    predictions = torch.full((36, 3), 0.2)
    predictions[:, 1] = 0.6
    pictures = write_pictures(images, targets, tmp_path, Path("images") / "here", predictions)
    assert [picture.target for picture in pictures] == targets.tolist()[:30]  # the first ten of each, in their order
    assert {(picture.named, round(picture.confidence or 0, 6)) for picture in pictures} == {(1, 0.6)}
    assert len({picture.path for picture in pictures}) == len(list(tmp_path.rglob("*.png"))) == 30
    for number, picture in enumerate(pictures):
        with Image.open(tmp_path / picture.path) as image:
            assert (image.size, image.mode, image.getpixel((0, 0))) == ((5, 4), "RGB", (number,) * 3)
