"""The 8x8 digits inside scikit-learn: the default data set, which needs no network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from leakbench.data.dataset import Arrays, Availability, Dataset, GridDefaults, make_dataset

_TEST_IMAGES = 360
_SPLIT_SEED = 0
_DEFAULTS = GridDefaults(model="vgg4")


@dataclass(frozen=True)
class Digits:
    """1797 grey handwritten digits of 8x8 pixels: 1437 to train on, 360 (20 %) to test on, stratified."""

    name: str = "digits"
    defaults: GridDefaults = _DEFAULTS

    def __call__(self, folder: Path) -> Dataset:  # noqa: ARG002 - part of Source
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        raw = load_digits()
        # Pixels are counts of 0..16.
        images = np.round(raw.images / 16 * 255).astype(np.uint8)[:, None]
        labels = raw.target.astype(np.int64)
        train, test = train_test_split(
            np.arange(len(labels)), test_size=_TEST_IMAGES, stratify=labels, random_state=_SPLIT_SEED
        )
        return make_dataset(
            self.name,
            [str(digit) for digit in range(10)],
            Arrays(images[train], labels[train]),
            Arrays(images[test], labels[test]),
            "scikit-learn's load_digits (UCI handwritten digits), fixed stratified split",
            flips=False,
        )

    def availability(self, folder: Path) -> Availability:  # noqa: ARG002 - part of Source
        return Availability(self.name, True, "inside scikit-learn")


DIGITS = Digits()
"""1797 grey handwritten digits of 8x8 pixels."""
