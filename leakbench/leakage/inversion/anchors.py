"""Anchors: noise and real images, scored as reconstructions are and at the same number of images."""

from __future__ import annotations

import math

import torch

from leakbench.cells import AnchorCell
from leakbench.contracts import Context
from leakbench.errors import NotApplicable
from leakbench.leakage.inversion.evaluation import evaluation_of
from leakbench.leakage.inversion.measurement import measured, merged
from leakbench.leakage.inversion.targets import part_of_key
from leakbench.leakage.kind import Measured
from leakbench.leakage.seed_group import Declarations
from leakbench.runtime.seeds import seed_of
from leakbench.runtime.store import Artifact, Content
from leakbench.runtime.workspace import Stage, Workspace

ANCHOR = Stage("anchor", 3)

NOISE, REAL = "noise", "real"
DRAWS = 3
"""draws of an anchor, without an image in two of them, whose mean is the scale; one more is a check of it"""
FRESH = "fresh"


def anchor(workspace: Workspace, cell: AnchorCell, declared: Declarations) -> tuple[Measured, Artifact]:
    """The values of an anchor, and its first draw."""
    draws_held = _draws_held(workspace, cell)
    if cell.fresh and draws_held < 1:
        raise NotApplicable("the test set has fewer images of a class than are drawn: a fresh draw is the same one")
    # the same images drawn again are no further evidence
    numbers = range(max(1, int(min(DRAWS, draws_held))))
    draws = [_draw(workspace, cell, number) for number in ((FRESH,) if cell.fresh else numbers)]
    evaluation = evaluation_of(workspace, cell.dataset, cell.classes)
    each = [measured(workspace, evaluation, draw, cell.metrics, quick=False) for draw in draws]
    return merged(each, declared), draws[0]


def _draws_held(workspace: Workspace, cell: AnchorCell) -> float:
    """How many draws without an image in two of them there are images for."""
    if cell.anchor == NOISE:
        return math.inf
    data, evaluation = workspace.dataset(cell.dataset), evaluation_of(workspace, cell.dataset, cell.classes)
    held = data.test.labels[evaluation.anchors].bincount(minlength=len(data.classes))
    return float(held[evaluation.classes].min()) / cell.images_per_class


def _draw(workspace: Workspace, cell: AnchorCell, number: int | str) -> Artifact:
    """One draw: of real images the fresh one begins at the other end, so that it shares as few as there can be."""
    data, evaluation = workspace.dataset(cell.dataset), evaluation_of(workspace, cell.dataset, cell.classes)
    classes = evaluation.classes

    def build(context: Context) -> Content:
        if cell.anchor == NOISE:
            targets = classes.repeat_interleave(cell.images_per_class)
            shape = (len(targets), *data.image_shape)
            images = torch.randint(0, 256, shape, generator=context.generator, dtype=torch.uint8)
            return {"images": images, "targets": targets}, {}
        # the same order for every draw, of which each takes its part
        order = evaluation.some_anchors(data.test.labels, classes, len(data.test.labels), context.generator)
        each = [order[data.test.labels[order] == one] for one in classes]
        count = cell.images_per_class
        parts = [one[-count:] if number == FRESH else one[int(number) * count :][:count] for one in each]
        index = torch.cat(parts)
        return {"images": data.test.images[index], "targets": data.test.labels[index]}, {}

    inputs = {
        "data": data.fingerprint,
        "anchor": cell.anchor,
        "images_per_class": cell.images_per_class,
        **part_of_key(len(data.classes), len(classes)),
        "replicate": cell.seed,
    }
    numbered = inputs | {"draw": number}
    seed = seed_of("anchor", **(numbered if cell.anchor == NOISE else inputs))
    return workspace.make(ANCHOR, seed, numbered, build)
