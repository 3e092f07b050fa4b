"""Half of a data set: every second class is private, so that the others are public images of the same kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakbench.data.dataset import Dataset, Split, fingerprint
from leakbench.data.folder import PREFIX
from leakbench.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = ":half"

_FEWEST_CLASSES = 4
"""two on either side"""


def base_name(name: str) -> str:
    """The whole data set's name: without ``:half``, which a PATH may end in and mean nothing by."""
    return name if name.startswith(PREFIX) else name.removesuffix(SUFFIX)


def private_half(data: Dataset) -> Dataset:
    """The classes 0, 2, 4, ... of a data set, relabelled 0, 1, 2, ..., in train and test.

    Raises DataError where it has fewer than 4 classes.
    """
    if len(data.classes) < _FEWEST_CLASSES:
        raise DataError(
            f"{data.name}{SUFFIX}: {data.name} has {len(data.classes)} classes, "
            f"and halves need {_FEWEST_CLASSES} or more"
        )
    classes, train, test = data.classes[::2], _even(data.train), _even(data.test)
    return Dataset(
        name=f"{data.name}{SUFFIX}",
        classes=classes,
        train=train,
        test=test,
        source=f"{data.source}; only every second class, from the first on: the other half is public",
        fingerprint=fingerprint(classes, train, test, data.flips),
        flips=data.flips,
    )


def public_half(data: Dataset) -> Tensor:
    """The training images, uint8 [N, C, H, W], of the classes that :func:`private_half` leaves out: 1, 3, 5, ..."""
    return data.train.images[data.train.labels % 2 == 1]


def _even(split: Split) -> Split:
    kept = split.labels % 2 == 0
    return Split(split.images[kept], split.labels[kept] // 2)
