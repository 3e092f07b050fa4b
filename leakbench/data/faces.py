"""The AT&T (ORL) faces: 40 people, ten grey photographs of each, in the folder orl_faces or a tar of it.

Samaria & Harter, "Parameterisation of a stochastic model for human face identification", WACV 1994. Credit: AT&T
Laboratories Cambridge (Olivetti Research Laboratory). What Fredrikson et al., CCS 2015, showed model inversion on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leakbench.data.dataset import Arrays, Availability, Dataset, GridDefaults, make_dataset
from leakbench.data.images import pixels
from leakbench.data.records import Collector, Published, Records, arrays, check_complete
from leakbench.data.trees import read_tree
from leakbench.errors import DataError

_TREE = "orl_faces"
_TAR = "faces.tar"
_IMAGE = re.compile(r"s([1-9][0-9]{0,8})/[^/]+\.pgm")
_WIDTH, _HEIGHT = 92, 112
_SIDE = 32
_TRAINING_IMAGES = 7
_MOST_BYTES = 2**16
"""of an image file: six times what 92x112 pixels take"""
_PUBLISHED = Published(10, "b3e164634a711386929e91ba87c9c1ea0690d996c9bc186cb431d3cda42e0a75")
_DEFAULTS = GridDefaults(model="vgg5", timesteps={"quick": 64})
"""at T = 16 conversions know too few of 40 people"""


@dataclass(frozen=True)
class Faces:
    """Who is in the picture: classes are the people s1 to s40.

    Of each person's images, in the order of their digests, the first 7 are for training and the other 3 for testing, as
    many as Fredrikson et al. took. See :func:`shrunk` for their size. A mirrored face is the same person's.
    """

    name: str = "faces"
    people: int = 40
    published: Published = _PUBLISHED
    defaults: GridDefaults = _DEFAULTS

    def __call__(self, folder: Path) -> Dataset:
        path = self._path(folder)
        if path is None:
            raise DataError(f"{self.name} are missing: {self._right_place(folder)}")
        train, test = _split(self.published.in_order(path, self._records(path)))
        source = f"AT&T/ORL faces from {path.name}, all {10 * self.people} images checked by digest"
        source += f"; centre {_WIDTH}x{_WIDTH} shrunk to {_SIDE}x{_SIDE}, fixed split of 7 and 3 images a person"
        return make_dataset(self.name, self._classes, train, test, source, flips=True)

    def availability(self, folder: Path) -> Availability:
        path = self._path(folder)
        return Availability(self.name, path is not None, str(path or self._right_place(folder)))

    @property
    def _classes(self) -> list[str]:
        return [f"s{number}" for number in range(1, self.people + 1)]

    def _path(self, folder: Path) -> Path | None:
        """What of the set lies in the folder, if anything does."""
        if (folder / _TREE).is_dir():
            return folder / _TREE
        return folder / _TAR if (folder / _TAR).is_file() else None

    def _right_place(self, folder: Path) -> str:
        return (
            f"put the folder {_TREE}/s1...s{self.people}/NAME.pgm or {_TAR} of it into {folder}: there is no download"
        )

    def _records(self, path: Path) -> Records:
        faces = Collector(path, self._classes, self.published.each, _WIDTH * _HEIGHT)
        for found, content in read_tree(path, _TREE, _IMAGE, _MOST_BYTES):
            where, person = f"{path}: {found.string!a}", int(found[1])
            if person > self.people:
                raise DataError(f"{where}: there are {self.people} people, s1 to s{self.people}")
            faces.add(person - 1, pixels(where, content, ("PPM",), "L", (_WIDTH, _HEIGHT)))
        check_complete(path, [faces], f"{_TREE}/sN/NAME.pgm")
        return faces.records


def shrunk(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Images [N, 1, 112, 92] as [N, 1, 32, 32]: the means of 32x32 equal areas of the central 92x92 pixels, rounded.

    In whole numbers, so that every machine has the same. 32 pixels a side are what all built-in networks take with
    little time, and faces of that size are recognisable.
    """
    top = (_HEIGHT - _WIDTH) // 2
    # each pixel counts 8 = 736 / 92 times, and a mean is over 23 = 736 / 32 of these
    parts = np.repeat(np.eye(_WIDTH, dtype=np.int64), 8, axis=0).reshape(_SIDE, 23, _WIDTH).sum(1)
    sums: NDArray[np.int64] = parts @ images[:, :, top : top + _WIDTH].astype(np.int64) @ parts.T
    return ((sums + 23 * 23 // 2) // (23 * 23)).astype(np.uint8)


def _split(records: Records) -> tuple[Arrays, Arrays]:
    """Of sorted records: the first seven of each person, and the others."""
    faces = arrays(records, (1, _HEIGHT, _WIDTH))
    place = np.empty(len(records), np.int64)
    for person in np.unique(faces.labels):
        own = faces.labels == person
        place[own] = np.arange(own.sum())
    images = shrunk(faces.images)
    train = place < _TRAINING_IMAGES
    return Arrays(images[train], faces.labels[train]), Arrays(images[~train], faces.labels[~train])


FACES = Faces()
"""400 grey photographs of the faces of 40 people, 32x32 pixels."""
