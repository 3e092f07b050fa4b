"""What is measured of an attack's images on its way, in a real run."""

from __future__ import annotations

import pytest
import torch
from tiny_runs import CLASSES, DEFENSES, OURS, Warm, cell_of, value_of

from leakbench.leakage.inversion.evaluation import evaluation_of
from leakbench.leakage.inversion.measurement import budget_points
from leakbench.models.training import predict
from leakbench.runtime.store import Artifact
from leakbench.runtime.workspace import Settings, Workspace


@pytest.fixture(scope="module")
def workspace(warm: Warm) -> Workspace:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(warm.out))  # no weights of the user's own
        for name in ("LEAKBENCH_INCEPTION", "LEAKBENCH_FEATURES"):
            patch.delenv(name, raising=False)
        made = Workspace(Settings(cache=str(warm.grown)), lambda _what, _done, _total: None)
        evaluation_of(made, warm.tiny.dataset)
    return made


def test_the_last_point_is_the_outcome(warm: Warm) -> None:
    for defense in DEFENSES:
        for attack, costs in (("direct", [1, 2]), ("gated", [0])):
            cell = cell_of(warm.record, defense, attack)
            assert [point.cost for point in cell.budget] == costs
            last = cell.budget[-1]
            assert last.images == 2 and len(last.forced) == len(last.accepted) == len(CLASSES)
            assert sum(last.forced) / 6 == pytest.approx(value_of(cell, "judge_accuracy"))
            assert sum(last.accepted) / 6 == pytest.approx(value_of(cell, "open_set_accuracy"))


def test_checks_have_none(warm: Warm) -> None:
    assert not [cell for cell in warm.record.cells if cell.of and cell.budget]
    assert not cell_of(warm.record, OURS, "direct (iterations=1)").budget


def test_hits_are_counted_class_by_class(warm: Warm, workspace: Workspace) -> None:
    """Real images in the place of an attack's: both models see what they are, and not what the next class is."""
    data, evaluation = workspace.dataset(warm.tiny.dataset), evaluation_of(workspace, warm.tiny.dataset)
    labels, order = data.train.labels.sort(stable=True)
    picked = torch.stack([(labels == c).nonzero().squeeze(1)[:4] for c in range(3)]).flatten()
    images = data.train.images[order][picked]
    targets = labels[picked]
    shifted = torch.cat([images[4:], images[:4]])  # each class in the next one's place
    half = torch.cat([images[:6], shifted[6:]])
    snapshots = torch.stack([shifted, half])
    tensors = {"images": images, "targets": targets, "snapshots": snapshots, "budgets": torch.tensor([1.0, 3.0, 4.5])}
    artifact = Artifact("of the test", tensors)
    workspace._seeds[artifact.key] = 0
    points = budget_points(workspace, evaluation, artifact)
    assert [(point.cost, point.images) for point in points] == [(1, 4), (3, 4), (4.5, 4)]
    for point, shown in zip(points, (*snapshots, images), strict=True):
        answers = predict(evaluation.ensemble.answers, shown, torch.device("cpu"))
        for number, row in enumerate(answers.view(3, 4, 4)):
            right = [int(one[:3].argmax()) == number for one in row]
            sure = [float(one[3]) >= evaluation.least_evidence for one in row]
            assert point.forced[number] == sum(right)
            assert point.accepted[number] == sum(hit and known for hit, known in zip(right, sure, strict=True))
    assert sum(points[0].forced) < sum(points[1].forced) < sum(points[2].forced)


def test_what_was_not_attacked_is_no_answer(warm: Warm, workspace: Workspace) -> None:
    """One image of a third class, made for two others: it is taken for one of these, of which half are, and rejected"""
    evaluation, train = evaluation_of(workspace, warm.tiny.dataset, 2), workspace.dataset(warm.tiny.dataset).train
    images = train.images[~torch.isin(train.labels, evaluation.classes)][:1].expand(4, -1, -1, -1).contiguous()
    tensors = {"images": images, "targets": evaluation.classes.repeat(2), "snapshots": images[None]}
    artifact = Artifact("of two classes", {**tensors, "budgets": torch.tensor([1.0, 2.0])})
    workspace._seeds[artifact.key] = 0
    for point in budget_points(workspace, evaluation, artifact):
        assert (sorted(point.forced), point.accepted) == ([0, 2], [0, 0])


def test_an_artifact_of_before_has_no_points(warm: Warm, workspace: Workspace) -> None:
    known = {"images": torch.zeros(3, 1, 8, 8, dtype=torch.uint8), "targets": torch.arange(3)}
    assert budget_points(workspace, evaluation_of(workspace, warm.tiny.dataset), Artifact("of before", known)) == []
