"""Drawn images: a bar at one of four places, with noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from leakbench.data import Arrays, Dataset, make_dataset


def bars(folder: Path) -> Dataset:  # noqa: ARG001 - drawn, not read
    """Grey images of 8x8 pixels with a bar at one of four places."""

    def split(count: int, seed: int) -> Arrays:
        random = np.random.RandomState(seed)
        labels = np.arange(count) % 4
        images = random.randint(0, 60, (count, 1, 8, 8))
        for image, label in zip(images, labels, strict=True):
            image[:, 2 * label : 2 * label + 2] += 180
        return Arrays(images.astype(np.uint8), labels)

    names = ["top", "upper", "lower", "bottom"]
    return make_dataset("bars", names, split(120, 0), split(40, 1), "drawn by noise-plugins", flips=True)
