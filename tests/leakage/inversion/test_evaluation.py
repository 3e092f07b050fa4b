"""The halves of the real images: what anchors draw from, and what reconstructions are compared with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from image_trees import encoded, picture, write_folder
from tiny_runs import Warm, cell_of, copied, forget, held_out
from torch.utils.flop_counter import FlopCounterMode

from leakbench.leakage.halves import halves
from leakbench.leakage.inversion import evaluation, gates
from leakbench.leakage.inversion.evaluation import evaluation_of, judge_work
from leakbench.models.judges import JUDGES, Judge, Residual
from leakbench.models.training import predict
from leakbench.runtime.workspace import Settings, Workspace


def test_the_two_halves_share_no_image_and_have_every_class() -> None:
    labels = torch.tensor([0] * 10 + [1] * 7 + [2] * 2 + [5] * 3)[torch.randperm(22, generator=torch.Generator())]
    anchors, others = halves(labels)
    assert sorted(torch.cat([anchors, others]).tolist()) == list(range(22))
    for part, counts in ((anchors, {0: 5, 1: 3, 2: 1, 5: 1}), (others, {0: 5, 1: 4, 2: 1, 5: 2})):
        assert {c: int((labels[part] == c).sum()) for c in (0, 1, 2, 5)} == counts
    again = halves(labels)
    assert torch.equal(again[0], anchors) and torch.equal(again[1], others)


def test_an_only_image_of_a_class_is_in_both_halves() -> None:
    anchors, others = halves(torch.tensor([0, 0, 0, 0, 3]))
    assert 4 in anchors.tolist() and 4 in others.tolist()
    assert set(anchors.tolist()) & set(others.tolist()) == {4}


def test_two_judges_and_their_ensemble_are_tested_on_images_that_no_anchor_draws_from(warm: Warm) -> None:
    found = {judge.name: judge for judge in warm.record.judges}
    assert found.keys() == {"bnconv", "mixer", "ensemble"}
    for judge in found.values():
        assert judge.dataset == warm.tiny.dataset
        assert judge.accuracy.n == judge.corrupted.n == len(held_out(warm.tiny)[1]) // 2
        assert judge.accuracy.value > 0.8
        assert judge.summary
    assert {f"judge {name}" for name in ("bnconv", "mixer")} < cell_of(warm.record, "", "noise").artifacts.keys()


@pytest.mark.long
@pytest.mark.slow
def test_models_that_are_too_weak_for_a_verdict_are_said_before_anything_is_attacked(
    warm: Warm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = copied(warm.cache, tmp_path / "cache")
    for least, lines in ((0.0, 0), (1.1, 1)):
        forget(cache, "ensemble")
        monkeypatch.setattr(gates, "LEAST_ABILITY", least)
        evaluation_of(Workspace(Settings(str(cache)), lambda _what, _done, _total: None), warm.tiny.dataset)
        said = [record.getMessage() for record in caplog.records]
        assert len(said) == lines
    assert "below their floor" in said[0] and "verdicts on classes may be inconclusive" in said[0]


@pytest.mark.long
@pytest.mark.slow
def test_of_pictures_clean_images_draw_the_line_and_others_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"{name}/{i}.png": encoded(picture(9 * i, 24, 24, 3), "PNG") for name in ("a", "b") for i in range(60)}
    folder = write_folder(tmp_path / "pictures", files)

    def untrained(kind: type[Judge], _images: torch.Tensor, _labels: torch.Tensor, classes: int, *_: object) -> Judge:
        torch.manual_seed(0)
        return kind((3, 24, 24), classes)

    monkeypatch.setattr(evaluation, "train_judge", untrained)
    monkeypatch.setattr(evaluation, "TESTED_IMAGES", 8)
    monkeypatch.setattr(evaluation, "OUTLIERS_EACH", 12)
    workspace = Workspace(Settings(str(tmp_path / "cache")), lambda _what, _done, _total: None)
    made, data = evaluation_of(workspace, f"folder:{folder}"), workspace.dataset(f"folder:{folder}")
    drawing = data.test.images[made.anchors[evaluation.tested(len(made.anchors))]]
    assert len(drawing) == 8
    evidence = predict(made.ensemble.answers, drawing, torch.device("cpu"))[:, -1].double()
    assert made.least_evidence == pytest.approx(float(evidence.quantile(0.05)))


@pytest.mark.parametrize("kind", JUDGES)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 30, 20), (3, 32, 32)])
def test_the_work_of_a_judge_is_what_torch_counts(kind: type[Judge], shape: tuple[int, int, int]) -> None:
    with FlopCounterMode(display=False) as counter:
        kind(shape, 7).eval()(torch.zeros(1, *shape))
    test, training = judge_work(kind, shape, 7, training=100, test=3, flips=True)
    assert test == 3 * counter.get_total_flops() / 2
    recipe = kind.recipe(100, shape, True)
    full = test / 3 * recipe.steps * recipe.batch_size
    assert training == full * (1 - 0.5 * 7 / 16 if kind is Residual else 1)  # half of it at 9/16 of the pixels
