"""Whose membership is asked about, and what the networks are trained on that an attacker compares the victim with."""

from __future__ import annotations

import logging
from collections.abc import Callable
from hashlib import blake2b
from typing import NamedTuple

import torch
from torch import Tensor

from leakbench.cells import ReferenceCell, UtilityCell
from leakbench.contracts import LabeledImages
from leakbench.contracts.membership import Question
from leakbench.data import Dataset, dataset_label
from leakbench.errors import NotApplicable
from leakbench.leakage.controls import OVERFITTED, UNSEEN
from leakbench.leakage.halves import halves
from leakbench.leakage.kind import Deployed, OtherTraining, ReferenceTraining
from leakbench.runtime.seeds import seed_of
from leakbench.runtime.workspace import Workspace

log = logging.getLogger("leakbench")

MOST = 1000
"""candidates of either side at most, where the conversion is asked about: nothing is trained for them"""

Read = Callable[[], Tensor]
"""gives bool [training images]: those that the defence asked for"""


class Candidates(NamedTuple):
    """Images uint8 [N, C, H, W] in random order, their labels [N], and which are members, bool [N]."""

    images: Tensor
    labels: Tensor
    members: Tensor
    rows: Tensor
    """int64 [N]: number among the training images; -1 of a test image"""
    left_out: int
    """images on both sides, which were no candidates: others stand in their places"""


def candidates_of(workspace: Workspace, cell: UtilityCell, read: Read, question: Question = "training") -> Candidates:
    """Members of the network that a cell deploys and others, as many of each.

    Members are images that the network was trained on: the ANN was on all training images, the overfitted control on
    those alone that it read. The others are from the half of the test set that no metric compares with.

    Asked of the conversion, members are the training images that the defence read and the others those that it did
    not, up to MOST of either at any preset: the ANN was trained on both, so that nothing but the conversion
    distinguishes them. Where it read all, the others are test images, and where it read none there is nothing to find:
    candidates are the usual, as they are of the control that was trained on none of them, see :func:`question_of`.

    An image that is on both sides is neither a member nor an other, and no candidate. NotApplicable where none is left.
    """
    data = workspace.dataset(cell.dataset)
    pool = _pool(workspace, cell, read)
    unread = pool[:0]
    if question == "conversion" and cell.defense.name != UNSEEN and bool(read().any()):
        pool, unread = read().nonzero().squeeze(1), (~read()).nonzero().squeeze(1)
    same = workspace.once(("same images", data.fingerprint), lambda: _same(data))
    nonmembers, _ = halves(data.test.labels)
    numbers, source, others = (same.train, data.train, unread) if len(unread) else (same.test, data.test, nonmembers)
    both = len(pool) + len(others)
    pool, others = _apart(pool, same.train[pool], others, numbers[others])
    left_out = both - len(pool) - len(others)
    seed = seed_of("candidates", data=data.fingerprint, replicate=cell.seed)
    generator = torch.Generator().manual_seed(seed)
    most = MOST if len(unread) else min(cell.candidates, len(pool), len(others))
    inside = pool[torch.randperm(len(pool), generator=generator)[:most]]
    outside = others[torch.randperm(len(others), generator=generator)[:most]]
    images = torch.cat([data.train.images[inside], source.images[outside]])
    labels = torch.cat([data.train.labels[inside], source.labels[outside]])
    rows = torch.cat([inside, outside if len(unread) else torch.full_like(outside, -1)])
    members = torch.arange(len(images)) < len(inside)
    # the attacker must not learn anything from the order
    order = torch.randperm(len(images), generator=generator)
    return Candidates(images[order], labels[order], members[order], rows[order], left_out)


def question_of(cell: UtilityCell, read: Tensor, question: Question) -> Question:
    """What the usual candidates ask, or those of the conversion: its own question only where it read some training
    images and not others. ``read``: bool [training images], those that the defence asked for."""
    parted = bool(read.any()) and not bool(read.all())
    return question if parted and cell.defense.name != UNSEEN else "training"


class _Same(NamedTuple):
    """A number for each image, int64, equal where their pixels are."""

    train: Tensor
    test: Tensor


def _same(data: Dataset) -> _Same:
    known: dict[bytes, int] = {}

    def numbers(images: Tensor) -> Tensor:
        digests = (blake2b(row.tobytes(), digest_size=16).digest() for row in images.flatten(1).numpy())
        return torch.tensor([known.setdefault(digest, len(known)) for digest in digests])

    same = _Same(numbers(data.train.images), numbers(data.test.images))
    if twice := int(torch.isin(same.test, same.train).sum()):
        log.warning("%s: training images among the test images: %d, no candidates", dataset_label(data.name), twice)
    return same


def _apart(inside: Tensor, inside_same: Tensor, outside: Tensor, outside_same: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers of images without those whose pixels are on the other side."""
    left = inside[~torch.isin(inside_same, outside_same)], outside[~torch.isin(outside_same, inside_same)]
    if not all(map(len, left)):
        raise NotApplicable("every image that could be asked about is among the members and among the others")
    return left


class Synthetic(NamedTuple):
    """What a defence synthesised."""

    images: Tensor
    """uint8 [N, C, H, W]"""
    keys: list[str]
    """of the artifacts that hold them"""


def synthetic_of(workspace: Workspace, deployed: Deployed) -> Synthetic | None:
    """The images among what the defence shares with others of the same ANN; None where there are none.

    NotApplicable where they have been removed from the store.
    """
    found: dict[str, Tensor] = {}
    for name, key in deployed.shared.items():
        if (artifact := workspace.store.read(key)) is None:
            raise NotApplicable(f"what the defence shares as {name!r} is no longer in the store")
        images = artifact.tensors.get("images")
        if images is not None and images.dtype == torch.uint8 and images.shape[1:] == deployed.network.image_shape:
            workspace.use([artifact])
            found[key] = images
    return Synthetic(torch.cat(list(found.values())), list(found)) if found else None


def population_of(workspace: Workspace, cell: UtilityCell) -> LabeledImages:
    """Images that neither the network nor a reference was trained on and that are no candidates, as many at most.

    They are of the other half of the test set: metrics compare with it, and nothing is trained on it. NotApplicable
    where there is none.
    """
    data = workspace.dataset(cell.dataset)
    nonmembers, others = halves(data.test.labels)
    same = workspace.once(("same images", data.fingerprint), lambda: _same(data))
    others = others[~torch.isin(same.test[others], torch.cat([same.train, same.test[nonmembers]]))]
    if not len(others):
        raise NotApplicable("every test image is a training image or may be a candidate: none is left to compare with")
    generator = torch.Generator().manual_seed(seed_of("population", data=data.fingerprint, replicate=cell.seed))
    others = others[torch.randperm(len(others), generator=generator)[: cell.candidates]]
    return LabeledImages(data.test.images[others].float() / 255, data.test.labels[others])


def reference_training(workspace: Workspace, cell: ReferenceCell, read: Read) -> ReferenceTraining:
    """What a reference is trained on: what the victim was and is no candidate, and half of the candidates.

    Candidates alone would be a small training set and another network than the victim, which had all of them: with the
    rest it is exactly as large. Halves are random, and those of the references 2i and 2i + 1 complementary, so that
    each candidate is in half of the references. They are the same for all defences, so that these share the ANNs.
    Images keep their places, others take those of members that are left out: a defence that reads the first hundred
    images reads as many candidates of a reference as of the victim.
    """
    data = workspace.dataset(cell.dataset)
    candidates = candidates_of(workspace, cell, read)
    seed = seed_of("references", data=data.fingerprint, replicate=cell.seed, pair=cell.number // 2)
    order = torch.randperm(len(candidates.labels), generator=torch.Generator().manual_seed(seed))
    chosen = torch.zeros(len(order), dtype=torch.bool)
    chosen[order[: len(order) // 2]] = True
    if cell.number % 2:
        chosen = ~chosen
    images, labels = data.train.images.clone(), data.train.labels.clone()
    left_out, added = candidates.rows[candidates.members & ~chosen], ~candidates.members & chosen
    images[left_out], labels[left_out] = candidates.images[added], candidates.labels[added]
    pool = _pool(workspace, cell, read)
    return ReferenceTraining(images[pool], labels[pool], chosen)


def unseen_training(workspace: Workspace, cell: UtilityCell) -> OtherTraining:
    """All training images but the candidates and their copies.

    NotApplicable where less than half of the training images are left, or none of a class: another network than those
    that were trained on all of them.
    """
    data = workspace.dataset(cell.dataset)
    candidates = candidates_of(workspace, cell, lambda: torch.zeros(len(data.train), dtype=torch.bool))
    same = workspace.once(("same images", data.fingerprint), lambda: _same(data)).train
    left = ~torch.isin(same, same[candidates.rows[candidates.members]])
    if 2 * int(left.sum()) < len(left) or set(data.train.labels[left].tolist()) != set(data.train.labels.tolist()):
        raise NotApplicable("too few training images are left to train a network without those that are asked about")
    return OtherTraining(data.train.images[left], data.train.labels[left])


def _pool(workspace: Workspace, cell: UtilityCell, read: Read) -> Tensor:
    """Numbers of the training images that the cell's network was trained on."""
    if cell.defense.name == OVERFITTED:
        return read().nonzero().squeeze(1)
    return torch.arange(len(workspace.dataset(cell.dataset).train))
