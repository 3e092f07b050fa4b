"""The private images that an attack's pictures are shown beside in the report."""

from __future__ import annotations

import torch

from leakbench.contracts import Context
from leakbench.leakage.inversion.evaluation import Evaluation
from leakbench.metrics.similarity import most_similar
from leakbench.runtime.seeds import seed_of
from leakbench.runtime.store import Artifact, Content
from leakbench.runtime.workspace import Stage, Workspace

NEAREST = Stage("nearest", 1)

CLASSES = 10
"""of which private images are shown, the first ones"""


def nearest(workspace: Workspace, evaluation: Evaluation, images: Artifact) -> Artifact:
    """The most similar real images of the target class, as the metric `train_ssim` finds them, to the first image of
    each of the first ten classes.

    Tensors "targets" [n], "training" and "held_out" uint8 [n, C, H, W], and their SSIM "training_ssim" and
    "held_out_ssim" [n]. A class without real images of both kinds is left out.
    """

    def build(_context: Context) -> Content:
        real, targets = evaluation.real, images.tensors["targets"]
        kinds = {"training": (real.training_images, real.training_labels), "held_out": (real.images, real.labels)}
        classes = [
            c for c in targets.unique().tolist() if all(bool((labels == c).any()) for _, labels in kinds.values())
        ][:CLASSES]
        tensors = {"targets": torch.tensor(classes, dtype=torch.int64)}
        for kind, (candidates, labels) in kinds.items():
            chosen, scores = torch.zeros(len(classes), dtype=torch.int64), torch.zeros(len(classes))
            for n, c in enumerate(classes):
                first = int((targets == c).nonzero()[0])
                of_class = (labels == c).nonzero().flatten()
                row, score = most_similar(images.tensors["images"][first : first + 1], candidates[of_class])
                chosen[n], scores[n] = of_class[row[0]], score[0]
            tensors |= {kind: candidates[chosen], f"{kind}_ssim": scores}
        return tensors, {}

    inputs = {"images": images.key, "data": evaluation.fingerprint}
    return workspace.make(NEAREST, seed_of("nearest", images=workspace.seed(images)), inputs, build, [images])
