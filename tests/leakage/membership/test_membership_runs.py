"""Membership from the command's options to the record: candidates, controls, rows, verdict."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import Warm, cell_of, numbers, run_here, trained_briefly, value_of

from leakbench.bench.grid import make_config
from leakbench.bench.pipeline import Pipeline
from leakbench.bench.plan import plan
from leakbench.bench.stages import reference
from leakbench.bench.stages.victim import built_victim
from leakbench.cells import AttackCell, CheckCell, ReferenceCell
from leakbench.errors import NotApplicable, NumericalError
from leakbench.leakage.membership.candidates import candidates_of
from leakbench.metrics.estimate import Estimate, clopper_pearson
from leakbench.records import RunRecord
from leakbench.runtime.workspace import Settings

pytestmark = pytest.mark.slow

OPTIONS = {
    "defense": ["han2020"],
    "attack": ["loss_threshold"],
    "timesteps": ["4"],
    "set": {"overfitted.images": ["12"], "overfitted.epochs": ["30"], "han2020.images": ["16"]},
}


@pytest.fixture(scope="module")
def record(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    return run_here(warm.tiny.options(**OPTIONS), warm.grown, tmp_path_factory.mktemp("membership") / "run")


def test_the_attack_runs_on_the_defence_and_its_controls(record: RunRecord) -> None:
    attacked = [cell for cell in record.cells if cell.attack]
    assert {cell.leakage for cell in attacked} == {"membership"}
    names = [cell.defense_name for cell in attacked if not cell.of]
    assert names == ["ann", "random", "overfitted", "unseen", "han2020"]
    assert not [cell for cell in attacked if cell.of]  # no gate compares with half the effort
    for cell in attacked:
        assert cell.status == "ok", cell.reason
        names = [value.metric for value in cell.values]
        # there are too few others for a false positive rate of 1 %
        assert names == [
            "membership_auc",
            "membership_p",
            "membership_lower_p",
            "membership_tail_p",
            "membership_advantage",
            "audited_epsilon",
            "members_against_members_auc",
            "seconds",
            "queries",
            "gradient_steps",
        ]
        assert [line.partition(" needs ")[0] for line in cell.warnings] == [
            "membership_tpr_at_1pct_fpr: not measured: a false positive rate of 1 %",
            "membership_tpr_at_01pct_fpr: not measured: a false positive rate of 0.1 %",
        ]
        assert (cell.roc[0].fpr, cell.roc[-1].fpr, cell.roc[-1].tpr) == (0, 1, 1)
        assert not cell.pictures
        assert not cell.classes


METRICS = '''
import leakbench.metrics.membership as membership
from leakbench.contracts import Params
from leakbench.metrics.estimate import proportion
from leakbench.metrics.metric import Measurement


class Top(membership.MembershipMetric[Params]):
    """Share of members among the half that scores highest."""

    name = "top_half"
    title = "Members in the top half"
    unit, leaks = "share", "more"

    def measure(self, scored):
        top = scored.members[scored.scores.argsort(descending=True)][: len(scored.scores) // 2]
        scored.scores.zero_()  # a copy
        return Measurement(proportion(int(top.sum()), len(top)))


class Raises(Top):
    name = "raises"

    def measure(self, scored):
        raise ValueError("nothing here")
'''


def test_metrics_of_others_are_measured_and_one_that_raises_is_a_warning(
    record: RunRecord, warm: Warm, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(METRICS)
    targets = [f"{tmp_path}/mine.py:{name}" for name in ("Raises", "Top")]
    made = run_here(warm.tiny.options(**OPTIONS, metric=targets), warm.grown, tmp_path / "run")
    for cell in (cell for cell in made.cells if cell.attack and not cell.of):
        assert cell.status == "ok"
        assert cell.warnings[2:] == [
            f"raises: not measured: ValueError: nothing here (mine.py, line {len(METRICS.splitlines())})"
        ]
        assert 0 <= value_of(cell, "top_half") <= 1
        before = cell_of(record, cell.defense, cell.attack)
        assert value_of(cell, "membership_auc") == value_of(before, "membership_auc")
    assert next(m for m in made.metrics if m.name == "top_half").title == "Members in the top half"


def test_the_synthetic_set_of_a_defence_is_compared_and_where_there_is_none_nothing_is(
    warm: Warm, tmp_path: Path
) -> None:
    settings = {"datafree.samples": ["6"], "datafree.synthesis_steps": ["3"], "datafree.images": ["6"]}
    options = {**OPTIONS, "defense": ["han2020", "datafree"], "attack": ["synthetic_leak"], "set": settings}
    made = run_here(warm.tiny.options(**options, controls=False), warm.grown, tmp_path / "run")
    plain, synthetic = (
        next(c for c in made.cells if c.attack and c.defense_name == name) for name in ("han2020", "datafree")
    )
    assert (plain.status, synthetic.status) == ("not-applicable", "ok"), synthetic.reason
    assert plain.reason == "synthetic_leak needs images that the defence synthesised: this one kept none"
    assert {one.name: one.value for one in synthetic.findings}["synthetic images"] == 6
    assert value_of(synthetic, "queries") == 0


def test_no_evaluation_model_is_trained_and_no_anchor_scored(record: RunRecord) -> None:
    assert record.judges == []
    assert record.scales == []
    assert all(cell.defense for cell in record.cells)
    assert {row.leakage for row in record.rows} == {"membership"}
    assert [verdict.defense for verdict in record.verdicts] == ["han2020[images=16]"]
    assert {metric.name for metric in record.metrics} >= {"membership_auc", "membership_p", "accuracy"}


def test_the_area_is_that_of_the_scores_in_the_store(record: RunRecord, warm: Warm) -> None:
    cell = cell_of(record, "han2020", "loss_threshold")
    folder = warm.grown / "objects" / cell.artifacts["scores"][:2] / cell.artifacts["scores"]
    tensors = load_file(folder / "tensors.safetensors")
    scores, members = tensors["scores"], tensors["members"].bool()
    pairs = scores[members][:, None] - scores[~members]
    area = float(((pairs > 0).double() + 0.5 * (pairs == 0).double()).mean())
    assert value_of(cell, "membership_auc") == pytest.approx(area, abs=1e-12)


def test_every_metric_s_value_is_kept(record: RunRecord, warm: Warm) -> None:
    key = cell_of(record, "han2020", "loss_threshold").artifacts["scores"]
    manifests = [json.loads(path.read_bytes()) for path in (warm.grown / "objects").glob("??/*/manifest.json")]
    measured = [made["inputs"].get("metric") for made in manifests if made["inputs"].get("scores") == key]
    assert {"membership_auc", "membership_p"} <= set(measured)


def test_the_network_trained_on_other_images_is_of_an_ann_of_its_own(record: RunRecord) -> None:
    anns = {cell.defense_name: cell.artifacts["ann"] for cell in record.cells if cell.defense and not cell.attack}
    assert anns["unseen"] != anns["ann"] == anns["han2020"]
    (row,) = [row for row in record.rows if not row.control]
    assert {gate.name: gate.passed for gate in row.gates}["M5"] is not None


def cells(warm: Warm, **changes: object) -> list[AttackCell]:
    planned = plan(make_config(warm.tiny.options(**{**OPTIONS, **changes})))
    return [cell for cell in planned if isinstance(cell, AttackCell) and not isinstance(cell, CheckCell)]


def test_half_of_the_candidates_are_training_images_and_the_rest_are_not(warm: Warm) -> None:
    pipeline = Pipeline(Settings(cache=str(warm.grown)), lambda *_: None)
    data = pipeline.workspace.dataset(warm.tiny.dataset)
    training = {image.numpy().tobytes() for image in data.train.images}
    for cell in cells(warm):
        deployed = built_victim(pipeline.workspace, cell).deployed
        read = deployed.read_images
        images, labels, members, *_ = candidates_of(pipeline.workspace, cell, lambda read=read: read)
        assert len(images) == len(labels) == 2 * int(members.sum())
        inside = torch.tensor([image.numpy().tobytes() in training for image in images])
        assert torch.equal(inside, members)
        # in no order that an attack could use
        assert not bool(members[: len(members) // 2].all())
        if cell.defense.name == "overfitted":
            read = data.train.images[deployed.read_images]
            assert len(read) == 12
            known = {image.numpy().tobytes() for image in read}
            assert all(image.numpy().tobytes() in known for image in images[members])


@pytest.mark.long
def test_both_kinds_of_leak_share_a_grid_and_change_nothing_of_each_other(
    record: RunRecord, warm: Warm, tmp_path: Path
) -> None:
    both = run_here(
        warm.tiny.options(**{**OPTIONS, "attack": ["direct", "loss_threshold"]}), warm.grown, tmp_path / "run"
    )
    assert {cell.defense_name for cell in both.cells if cell.attack_name == "direct"} == {"ann", "random", "han2020"}
    assert {row.leakage for row in both.rows} == {"inversion", "membership"}
    assert [(verdict.leakage, verdict.defense) for verdict in both.verdicts] == [
        ("inversion", "han2020[images=16]"),
        ("membership", "han2020[images=16]"),
    ]
    together = numbers(both)
    assert {key: value for key, value in together.items() if key in numbers(record)} == numbers(record)


REFERENCED = {**OPTIONS, "ann": None, "attack": ["lira", "rmia"]}


@pytest.fixture
def short_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    trained_briefly(monkeypatch)


def made_by(cache: Path) -> Counter[str]:
    """How many artifacts of each stage a store holds."""
    manifests = (json.loads(path.read_bytes()) for path in (cache / "objects").glob("??/*/manifest.json"))
    return Counter(made["stage"] for made in manifests)


@pytest.mark.long
@pytest.mark.usefixtures("short_trainings")
def test_references_are_made_once_for_all_attacks_and_by_no_attack_without(warm: Warm, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    alone = run_here(warm.tiny.options(**{**REFERENCED, "attack": ["loss_threshold"]}), cache, tmp_path / "alone")
    before = made_by(cache)
    assert (before["ann"], before["victim"]) == (1 + 1, 4 + 1)  # the control "unseen" has an ANN of its own
    record = run_here(warm.tiny.options(**REFERENCED), cache, tmp_path / "run")
    attacked = [cell for cell in record.cells if cell.attack]
    assert {cell.attack_name for cell in attacked} == {"lira", "rmia"}
    assert all(cell.status == "ok" for cell in attacked), [cell.reason for cell in attacked]
    after = made_by(cache)
    # four references of each defence: their ANNs are shared, and the controls without one of their own have none
    assert (after["ann"], after["victim"]) == (2 + 4, 5 + 5 * 4)
    more = run_here(warm.tiny.options(**{**REFERENCED, "attack": ["auto_mia"]}), cache, tmp_path / "more")
    assert all(cell.status == "ok" for cell in more.cells if cell.attack)
    assert (made_by(cache)["ann"], made_by(cache)["victim"]) == (after["ann"], after["victim"])
    # what is measured without references is not changed by their being there
    again = run_here(warm.tiny.options(**{**REFERENCED, "attack": ["loss_threshold"]}), cache, tmp_path / "again")
    assert numbers(again) == numbers(alone)


def test_of_given_weights_there_are_no_references(warm: Warm, tmp_path: Path) -> None:
    options = warm.tiny.options(**{**OPTIONS, "attack": ["lira"], "controls": False, "set": None})
    record = run_here(options, warm.grown, tmp_path / "run")
    (cell,) = [cell for cell in record.cells if cell.attack and not cell.of]
    assert cell.status == "not-applicable"
    assert "how a given network was is not known" in cell.reason


@pytest.mark.usefixtures("short_trainings")
def test_a_reference_that_fails_to_train_fails_the_attack_in_words(
    warm: Warm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = reference.trained_ann

    def certain(*given: Any) -> Any:
        made = trained(*given)
        return replace(made, record=made.record.model_copy(update={"accuracy": Estimate(2.5, 2.4, 2.6, 100)}))

    monkeypatch.setattr(reference, "trained_ann", certain)
    options = warm.tiny.options(**{**REFERENCED, "attack": ["lira"], "controls": False, "set": None})
    record = run_here(options, tmp_path / "cache", tmp_path / "run")
    (cell,) = [cell for cell in record.cells if cell.attack and not cell.of]
    assert cell.status == "failed"
    assert "reference 0 failed: its ANN is right on" in cell.reason


@pytest.mark.usefixtures("short_trainings")
def test_a_reference_that_is_no_network_like_the_victim_fails_the_attack(
    warm: Warm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a defence that declines references, or spoils them, would be attacked by whoever learnt nothing."""
    options = warm.tiny.options(**{**REFERENCED, "attack": ["lira"], "controls": False, "set": None})

    def reason() -> str:
        record = run_here(options, tmp_path / "cache", tmp_path / "run")
        (cell,) = [cell for cell in record.cells if cell.attack and not cell.of]
        assert cell.status == "failed"
        return cell.reason

    built = reference.built_victim

    def declining(workspace: Any, cell: Any, training: Any = None) -> Any:
        if training is not None:
            raise NotApplicable("it needs more images")
        return built(workspace, cell)

    with monkeypatch.context() as patch:
        patch.setattr(reference, "built_victim", declining)
        assert "reference 0 failed: it could not be made as the victim is: it needs more images" in reason()
    measured = reference.utility

    def spoilt(workspace: Any, cell: Any, victim: Any) -> Any:
        made = measured(workspace, cell, victim)
        if isinstance(cell, ReferenceCell):
            bad = {"value": 0.0, "low": 0.0, "high": 0.01}
            made = replace(made, values=[one.model_copy(update=bad) for one in made.values if one.metric == "accuracy"])
        return made

    monkeypatch.setattr(reference, "utility", spoilt)
    assert "reference 0 failed: the network is right on 0.00 of test images, that of the victim on" in reason()


@pytest.mark.usefixtures("short_trainings")
def test_attacks_with_references_are_not_applicable_where_the_defense_is_not(warm: Warm, tmp_path: Path) -> None:
    """That a defence declines the victim is no failure of its references: ``vgg4`` has no batch norm."""
    given = {"defense": ["knowledge_within"], "attack": ["lira"], "controls": False, "set": None}
    record = run_here(warm.tiny.options(**{**REFERENCED, **given}), tmp_path / "cache", tmp_path / "run")
    assert {(cell.attack_name, cell.status) for cell in record.cells} == {
        ("", "not-applicable"), ("lira", "not-applicable"),
    }  # fmt: skip


def test_a_reference_that_is_weaker_by_chance_is_one() -> None:
    cell = cast(Any, SimpleNamespace(number=3))
    for own, usual in ((26, 60), (5, 12), (0, 0), (10, 11)):  # of 100 images
        reference._check(cell, "the network", clopper_pearson(own, 100), clopper_pearson(usual, 100))
    with pytest.raises(NumericalError, match=r"reference 3 failed: the network is right on 0\.10 of test images"):
        reference._check(cell, "the network", clopper_pearson(10, 100), clopper_pearson(95, 100))


@pytest.mark.long
@pytest.mark.usefixtures("short_trainings")
def test_of_untrained_networks_nothing_is_asked(warm: Warm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they are right on is chance."""
    checked: list[str] = []
    check = reference._check
    monkeypatch.setattr(
        reference, "_check", lambda cell, *rest: (checked.append(cell.defense.name), check(cell, *rest))
    )
    options = warm.tiny.options(**{**REFERENCED, "attack": ["lira"]})
    record = run_here(options, tmp_path / "cache", tmp_path / "run")
    assert {cell.status for cell in record.cells if cell.defense_name == "random"} == {"ok"}
    assert set(checked) == {"ann", "overfitted", "unseen", "han2020"}


@pytest.mark.usefixtures("short_trainings")
def test_references_are_quantized_as_the_victim_is(warm: Warm, tmp_path: Path) -> None:
    settings = {"han2020.images": ["16"], "han2020.quantize": ["int8"]}
    given = {**REFERENCED, "attack": ["lira"], "controls": False, "set": settings}
    record = run_here(warm.tiny.options(**given), tmp_path / "cache", tmp_path / "run")
    (cell,) = [cell for cell in record.cells if cell.attack and not cell.of]
    assert cell.status == "ok", cell.reason
    manifests = (json.loads(path.read_bytes()) for path in (tmp_path / "cache" / "objects").glob("??/*/manifest.json"))
    rounded = [made for made in manifests if made["stage"] == "victim" and made["inputs"].get("quantize") == "int8"]
    assert len(rounded) == 1 + 4
