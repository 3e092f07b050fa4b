"""Images as PNG files beside a run's record."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from leakbench.errors import StoreError
from leakbench.records import Picture, RealPicture
from leakbench.runtime.files import replacing

PICTURES_A_CLASS = 10
"""images of a cell that are written beside the report; all of them are in the store"""


def write_pictures(
    images: Tensor,
    targets: Tensor,
    out: Path,
    folder: Path,
    predictions: Tensor | None = None,
    accepted: Tensor | None = None,
) -> list[Picture]:
    """PNGs of uint8 images [N, C, H, W] below ``out``, the first few of each class, with the evaluation models'
    ``predictions``, class probabilities [N, classes], and which they have ``accepted`` as showing a class, bool [N].

    A digest of its content is in a file's name: another picture never takes the place of one that a record names.
    """
    if any((out / part).is_symlink() for part in (folder, *folder.parents[:-1])):
        raise StoreError(f"{str(out / folder)!r} leads through a link: pictures stay in the run's folder")
    pictures: list[Picture] = []
    counts: dict[int, int] = {}
    try:
        (out / folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"--out {str(out)!r} can't be written: {error.strerror}") from None
    for index, (image, target) in enumerate(zip(images, targets.tolist(), strict=True)):
        number = counts[target] = counts.get(target, 0) + 1
        if number > PICTURES_A_CLASS:
            continue
        content = _png(image)
        path = folder / f"{target:03d}-{number:02d}-{hashlib.sha256(content).hexdigest()[:8]}.png"
        with replacing(out / path) as stream:
            stream.write(content)
        named = None if predictions is None else int(predictions[index].argmax())
        confidence = None if predictions is None else float(predictions[index].max())
        shown = None if accepted is None else bool(accepted[index])
        pictures.append(
            Picture(path=path.as_posix(), target=target, named=named, confidence=confidence, accepted=shown)
        )
    return pictures


def beside(pictures: Sequence[Picture], private: Mapping[str, Tensor], out: Path, folder: Path) -> list[Picture]:
    """The pictures, the first of each class with the ``private`` images that it is shown beside, written as PNGs.

    ``private``: "targets" [n], each once; "training" and "held_out", uint8 [n, C, H, W], with "training_ssim" and
    "held_out_ssim" [n].
    """
    compared: dict[int, dict[str, RealPicture]] = {}
    for kind, slug in (("training", "training"), ("held_out", "held-out")):
        written = write_pictures(private[kind], private["targets"], out, folder / f"nearest-{slug}")
        for picture, score in zip(written, private[f"{kind}_ssim"].tolist(), strict=True):
            compared.setdefault(picture.target, {})[kind] = RealPicture(path=picture.path, ssim=score)
    return [picture.model_copy(update=compared.pop(picture.target, {})) for picture in pictures]


def _png(image: Tensor) -> bytes:
    pixels = image.permute(1, 2, 0).contiguous().numpy()
    stream = io.BytesIO()
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(stream, "PNG")
    return stream.getvalue()
