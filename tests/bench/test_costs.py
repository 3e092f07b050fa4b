"""The estimate of a run: sizes from shapes, closed forms on a table made by hand, and the table that is shipped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from leakbench import registry
from leakbench.bench import speed
from leakbench.bench.costs import CostTable, Group, Network, Row, RunEstimate, estimate, read_costs
from leakbench.bench.grid import make_config
from leakbench.bench.jobs import jobs_of
from leakbench.bench.speed import Speed, Speeds
from leakbench.bench.suites import cells_of
from leakbench.bench.work import DataSize, Part, Sizes
from leakbench.cells import BaseCell
from leakbench.contracts import InputRange
from leakbench.data import load_dataset
from leakbench.models.judges import LEAST_STEPS

IMAGES, TEST, CLASSES = 1437, 360, 10
"""of digits"""
MACS = (8 * 8 * 9 * 32 + 4 * 4 * 32 * 9 * 64 + 2 * 2 * 64 * 128 + 128 * 10) / 1e9
"""of vgg4 on them"""
ONE = {"defense": ["han2020"], "preset": "quick", "controls": False, "dataset": "digits"}
UNIT = Speed(ann=1.0, spiking=1.0, other=1.0)
Weights = tuple[float, float, float, float, float, float, float]
FIXED: Weights = (1, 0, 0, 0, 0, 0, 0)
EACH: Weights = (0, 0, 1, 0, 0, 0, 0)
SIMULATED: Weights = (0, 0, 0, 0, 1, 0, 0)
OTHERS: Weights = (0, 0, 0, 0, 0, 0, 1)


def table(weights: Mapping[str, Weights], rows: tuple[Row, ...] = (), **shares: Any) -> CostTable:
    return CostTable(
        command="by hand", date="2026-01-01", version="0",
        networks=(Network(machine="none", dataset="d", model="m", speed=UNIT),),
        within_twice=1.0, shares=shares, weights=dict(weights), rows=rows,
    )  # fmt: skip


def row(stage: str, size: float, memory: float) -> Row:
    return Row(stage=stage, network=0, timesteps=1, sizes=(1, 0, size, 0, size, 0, 0), seconds=1, memory=memory)


def told(costs: CostTable, data: Path | None = None, **options: Any) -> RunEstimate:
    return estimate(cells_of(make_config({**ONE, **options})), Sizes(data), costs, lambda _: UNIT)


def seconds(costs: CostTable, **options: Any) -> float:
    return told(costs, **options).seconds


def group(of: RunEstimate, title: str) -> Group:
    (found,) = (group for group in of.groups if group.title == title)
    return found


def test_a_part_takes_the_weighted_sum_of_its_sizes() -> None:
    costs = table({"stage": (1, 2, 3, 4, 5, 6, 7)})
    part = Part("stage", once=0.5, each=2.0, steps=10, other=(3.0, 4.0))
    assert costs.seconds(part, UNIT) == 1 + 2 * 0.5 + 3 * 2 + 4 * 5 + 5 * 20 + 6 * 3 + 7 * 4
    assert costs.seconds(Part("another", 1.0, 1.0), UNIT) is None


def test_a_faster_machine_takes_less_but_for_what_is_taken_in_any_case() -> None:
    costs = table({"stage": (1, 2, 3, 4, 5, 6, 7)})
    part = Part("stage", once=0.5, each=2.0, steps=10, other=(3.0, 4.0))
    faster = Speed(ann=0.5, spiking=0.1, other=0.2)
    assert costs.seconds(part, faster) == pytest.approx(
        1 + (2 * 0.5 + 3 * 2) / 2 + (4 * 5 + 5 * 20) / 10 + (6 * 3 + 7 * 4) / 5
    )


def test_each_network_of_a_run_has_a_speed_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = cells_of(make_config({**ONE, "attack": "none", "model": "vgg4"}))[0]
    wide = small.model_copy(update={"model": "vgg9"})
    absent = small.model_copy(update={"dataset": "mnist"})
    speeds = Speeds(Sizes(tmp_path), "float32")
    first, second = speeds(small), speeds(wide)
    assert first is not None and second is not None
    assert (first.ann, first.spiking) != (second.ann, second.spiking)
    for one in (first, second):  # of no core more than a million million a second, of none less than a million
        assert 1e-3 < one.ann < 1e3
        assert 1e-3 < one.spiking < 1e3
    assert speeds(absent) is None
    monkeypatch.setattr("leakbench.bench.speed.measured_speed", lambda *_: UNIT)
    assert speeds(small) is first  # measured once


@pytest.mark.slow
def test_a_step_of_a_large_network_is_of_few_images_and_that_of_a_huge_one_is_not_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built, steps = [], []
    speed._usual.cache_clear()
    build, gradients = speed.build_ann, speed.add_gradients
    monkeypatch.setattr(speed, "build_ann", lambda *given: built.append(given[0]) or build(*given))
    monkeypatch.setattr(speed, "add_gradients", lambda snn, x, *more: steps.append(len(x)) or gradients(snn, x, *more))
    picture = DataSize((3, 32, 32), 10, 1, 1, flips=False, input_range=InputRange(0, 1))
    monkeypatch.setattr(speed, "_SPIKING_WORK", 10.0)  # of which vgg9's image takes .19 a time step
    assert speed.measured_speed("vgg9", picture, "float32").spiking > 0
    assert set(steps) == {3}
    built.clear()
    monkeypatch.setattr(speed, "_LARGEST", 0.3)  # of which vgg16's image takes .32
    assert speed.measured_speed("vgg16", picture, "float32").ann > 0
    assert built == ["vgg16"]  # vgg9, which it is taken for, was timed before


def test_memory_is_that_of_the_nearest_size() -> None:
    costs = table({}, (row("stage", 1, 100), row("stage", 100, 900), row("another", 5, 5)))
    assert [costs.memory(Part("stage", 0, each)) for each in (0.1, 2, 60, 1e6)] == [100, 100, 900, 900]
    assert costs.memory(Part("unknown", 0, 1)) == 0


def test_what_is_far_larger_than_what_was_measured_is_an_extrapolation() -> None:
    costs = table({"ANN training": EACH, "attack direct": SIMULATED}, (row("ANN training", 100, 1),))
    of = told(costs, attack="direct")
    assert not costs.beyond(Part("ANN training", 0, 200))
    assert costs.beyond(Part("ANN training", 0, 401))
    attacks = group(of, "attack direct").seconds + group(of, "attacks at half effort").seconds
    assert of.extrapolated == pytest.approx(attacks / of.seconds)  # no row at all


@pytest.mark.slow
def test_training_scales_with_network_and_steps() -> None:
    costs = table({"ANN training": EACH})
    assert seconds(costs, attack="none") == pytest.approx(MACS * 32 * 900)
    assert seconds(costs, attack="none", preset="standard", seeds=2) == pytest.approx(2 * MACS * 32 * 1350)


def test_your_own_weights_take_no_training(tmp_path: Path) -> None:
    (tmp_path / "own.safetensors").write_bytes(b"")
    own = told(table({"ANN training": EACH}), attack="none", ann=str(tmp_path / "own.safetensors"))
    assert own.seconds == 0 and "training of ANNs" not in [group.title for group in own.groups]


@pytest.mark.slow
def test_attacks_scale_with_images_effort_and_time_steps() -> None:
    costs = table({"attack direct": SIMULATED})
    of = {"attack": "direct", "set": {"direct.iterations": 1}}
    one = seconds(costs, **of, timesteps=8, images_per_class=1)
    assert one == pytest.approx(MACS * CLASSES * 8)
    assert seconds(costs, **of, timesteps=[8, 16], images_per_class=3) == pytest.approx(3 * one + 3 * 2 * one)
    assert seconds(table({"attack direct": EACH}), **of, timesteps=8, images_per_class=1) == pytest.approx(one / 8)
    # and the check at half its effort
    more = {"attack": "direct", "set": {"direct.iterations": 10}}
    assert seconds(costs, **more, timesteps=8, images_per_class=1) == pytest.approx((10 + 5) * one)


@pytest.mark.slow
def test_an_ensemble_is_the_work_of_its_members() -> None:
    costs = table({f"attack {name}": EACH for name in ("inversion", *registry.together("attack", "auto"))})
    alone = seconds(costs, attack="inversion", images_per_class=1, set={"inversion.iterations": 1})
    assert seconds(costs, attack="auto", images_per_class=1) > 1000 * alone


@pytest.mark.slow
def test_what_an_attack_prepares_grows_with_its_images_no_more_than_their_own_answers_do() -> None:
    """The copies that it makes are the same however many images it draws."""
    costs = table({"attack pruned": (0, 1, 0, 0, 0, 0, 0)})
    few, many = (told(costs, attack="auto", images_per_class=n).seconds / MACS for n in (1, 10))
    assert many - few == pytest.approx(9 * CLASSES)
    assert few > 2 * 3 * 80 * CLASSES  # copies, rounds, and short ascents for each class


@pytest.mark.slow
def test_accuracy_is_measured_on_the_test_images_once_for_all_t_of_one_network() -> None:
    costs = table({"accuracy and energy": SIMULATED})
    assert seconds(costs, attack="none", timesteps=[4, 8]) == pytest.approx(MACS * TEST * (4 + 8))
    of = {"defense": ["rueckauer2017"], "attack": "none"}
    assert seconds(costs, **of, timesteps=[4, 8]) == pytest.approx(MACS * TEST * 8)


def test_a_defense_of_its_own_t_is_simulated_for_that() -> None:
    costs = table({"accuracy and energy": SIMULATED})
    of = {"defense": ["stbp"], "attack": "none", "timesteps": 64}
    assert seconds(costs, **of, set={"stbp.timesteps": 5}) == pytest.approx(MACS * TEST * 5)


def test_private_training_passes_over_the_training_images_and_a_student_over_synthetic_ones() -> None:
    for defense, passes in (("dpsgd", 3 * len(load_dataset("digits").train)), ("zskd", 3 * 50)):
        settings = {f"{defense}.epochs": 3, f"{defense}.samples": 50}
        told_of = seconds(table({f"defense {defense}": EACH}), defense=[defense], attack="none", set=settings)
        assert told_of == pytest.approx(MACS * passes)


@pytest.mark.slow
def test_what_is_shared_is_counted_once() -> None:
    depends = ("samples", "synthesis_steps", "beta")
    costs = table(
        {"shared synthetic": EACH}, privatesnn={"synthetic": depends}, datafree={"synthetic": depends}
    )  # fmt: skip
    of = {"defense": ["privatesnn", "datafree"], "attack": "none"}
    settings = {f"{name}.{key}": value for name in of["defense"] for key, value in
                (("samples", 30), ("synthesis_steps", 7))}  # fmt: skip
    one = MACS * 30 * 7
    assert seconds(costs, **of, set=settings) == pytest.approx(one)
    assert seconds(costs, **of, set=settings, seeds=2) == pytest.approx(2 * one)  # another network
    assert seconds(costs, **of, set={**settings, "datafree.beta": 3}) == pytest.approx(2 * one)


@pytest.mark.slow
def test_generators_of_public_images_are_shared_by_victims_and_attacks() -> None:
    depends = ("gan_steps", "gan_batch", "latent")
    costs = table({"shared generator": FIXED}, evolution={"generator": depends}, label_only={"generator": depends})
    of = {"attack": ["evolution", "label_only"], "defense": ["han2020", "bu2022"]}
    assert seconds(costs, **of) == 1
    assert seconds(costs, **of, set={"evolution.gan_steps": 3}) == 2


@pytest.mark.slow
def test_evaluation_models_are_trained_once_a_data_set() -> None:
    costs = table({"evaluation of inversion": FIXED})
    assert seconds(costs, attack="direct", seeds=3, defense=["han2020", "bu2022"]) == 1


def test_evaluation_models_of_pictures_are_a_stage_of_their_own(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    arrays = {f"x_{part}": draw.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8) for part in ("train", "test")}
    np.savez(tmp_path / "mine.npz", **arrays, y_train=np.arange(8) % 2, y_test=np.arange(8) % 2)
    of = {"dataset": str(tmp_path / "mine.npz"), "model": "vgg4", "attack": "direct"}
    assert seconds(table({"evaluation of inversion": OTHERS}), **of) == 0
    assert seconds(table({"evaluation of inversion on pictures": OTHERS}), **of) > 0


SINGLE = """
from torch import nn


def single(image_shape, classes, generator):
    channels, height, width = image_shape
    return nn.Sequential(nn.Flatten(), nn.Tanh(), nn.Linear(channels * height * width, classes))
"""


def test_evaluation_models_take_the_same_whatever_the_network_of_the_run_also_one_that_is_not_converted(
    tmp_path: Path,
) -> None:
    (tmp_path / "single.py").write_text(SINGLE)
    single = f"{tmp_path / 'single.py'}:single"
    costs = table({"evaluation of inversion": OTHERS})

    def pace(cell: BaseCell) -> Speed:
        ann = {"vgg4": 3.0, "vgg5": 5.0}.get(cell.model, 7.0)
        return Speed(ann=ann, spiking=ann, other=2.0)

    def evaluation(*models: str) -> tuple[float, int]:
        cells = cells_of(make_config({**ONE, "attack": "direct", "model": list(models)}))
        of = group(estimate(cells, Sizes(None), costs, pace), "evaluation models")
        return of.seconds, of.unknown

    alone = evaluation("vgg4")
    assert alone[0] > 0 and alone[1] == 0
    for models in (["vgg5"], ["vgg5", "vgg4"], [single], [single, "vgg5"]):
        assert evaluation(*models) == alone


@pytest.mark.slow
def test_the_training_of_evaluation_models_scales_with_its_steps() -> None:
    """Of few images it takes as many steps as of more: its work is not that of a pass over the images."""
    costs = table({"evaluation of inversion": OTHERS})
    # 5x5 and 3x3 convolutions on maps of 8x8, 8x8, 4x4 and 4x4, and the last layer
    bnconv = 64 * 25 * 32 + 64 * 9 * 32 * 64 + 16 * 9 * 64 * 96 + 16 * 9 * 96 * 96 + 96 * CLASSES
    # 16 patches of 2x2, and two blocks of two layers across them and two within
    mixer = 16 * 4 * 64 + 2 * (2 * 64 * 16 * 64 + 2 * 16 * 64 * 128) + 64 * CLASSES
    assert seconds(costs, attack="direct") == pytest.approx((bnconv + mixer) * 32 * LEAST_STEPS / 1e9)


def test_the_longest_chain_bounds_what_workers_gain() -> None:
    costs = table({"ANN training": FIXED, "defense han2020": FIXED, "attack direct": FIXED, "attack spsa": FIXED})
    of = told(costs, attack=["direct", "spsa"])
    assert of.seconds == 6  # both attacks at half their effort, too
    assert of.chain == 3
    assert (of.wall(1), of.wall(2), of.wall(100)) == (6, 3, 3)


@pytest.mark.slow
def test_a_third_party_has_no_measured_cost(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from leakbench.contracts import Access, Attack, Params\n"
        "class Mine(Attack[Params]):\n"
        "    '''Mine.'''\n"
        "    name = 'mine'\n"
        "    needs = Access.LABELS\n"
        "    def run(self, victim, targets, context):\n"
        "        raise AssertionError('an estimate runs nothing')\n"
    )
    costs = table({"attack direct": FIXED, "attack mine": FIXED})
    of = told(costs, attack=["direct", f"{tmp_path / 'mine.py'}:Mine"])
    mine = group(of, "attack mine")
    assert (len(mine.jobs), mine.unknown, mine.seconds) == (1, 1, 0)
    assert of.seconds == 2


def test_a_missing_data_set_is_not_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetched(*_: Any) -> None:
        raise AssertionError("downloaded")

    monkeypatch.setattr("urllib.request.urlopen", fetched)
    costs = table({"attack direct": FIXED, "metrics of inversion": (0, 0, 0, 0, 0, 0, 0)})
    of = told(costs, data=tmp_path, dataset=["cifar10", "digits"], attack="direct")
    assert of.missing == ("cifar10",)
    assert (group(of, "attack direct").unknown, of.seconds) == (1, 2)
    assert not list(tmp_path.iterdir())


def test_the_shipped_table_is_whole() -> None:
    costs = read_costs()
    measured = {row.stage for row in costs.rows}
    assert measured == set(costs.weights)
    assert all(weight >= 0 for weights in costs.weights.values() for weight in weights)
    assert all(row.memory > 0 for row in costs.rows)
    assert 0.3 < costs.within_twice <= 1
    assert costs.command and costs.date and costs.version
    assert {row.network for row in costs.rows} == set(range(len(costs.networks)))
    plugins = [
        (kind, registry.newest(kind, name)) for kind in ("attack", "defense") for name in registry.built_in(kind)
    ]
    assert [f"{kind} {name}" for kind, name in plugins if f"{kind} {name}" not in measured] == []


UNUSUAL = '''
from typing import Literal

import torch

from leakbench.contracts import Access, Attack, Params


class UnusualParams(Params):
    pool: Literal["max", "mean"] = "max"
    steps: tuple[int, ...] = (1, 2)
    restarts: int | None = None
    points: bool = True
    timesteps: str = "all"


class Unusual(Attack[UnusualParams]):
    """Means something else by usual names."""

    name = "unusual"
    needs = Access.LABELS

    def run(self, victim, targets, context):
        return torch.rand(len(targets), *victim.image_shape, generator=context.generator)
'''


def test_parameters_of_others_that_are_no_numbers_are_no_work(tmp_path: Path) -> None:
    (tmp_path / "unusual.py").write_text(UNUSUAL)
    costs = table({f"attack {tmp_path / 'unusual.py'}:Unusual": FIXED})
    estimated = told(costs, attack=[f"{tmp_path / 'unusual.py'}:Unusual"])
    assert any("unusual" in one.title for one in estimated.groups)


DEAD = """
from torch import nn


def dead(image_shape, classes, generator):
    channels, height, width = image_shape
    layers = nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * height * width, classes)
    nn.init.constant_(layers[0].bias, -100.0)
    return nn.Sequential(*layers)
"""


def test_a_network_that_is_not_trained_as_it_is_built_stops_no_run(tmp_path: Path) -> None:
    (tmp_path / "dead.py").write_text(DEAD)
    cell = cells_of(make_config({**ONE, "attack": "none", "model": f"{tmp_path / 'dead.py'}:dead"}))[0]
    with torch.no_grad():  # as a program may call
        found = Speeds(Sizes(None), "float32")(cell)
    assert found is not None and found.ann > 0


def test_what_is_in_the_store_is_not_measured() -> None:
    cells = cells_of(make_config({**ONE, "attack": "none"}))
    every = frozenset(range(len(jobs_of(cells))))
    asked: list[str] = []
    estimate(cells, Sizes(None), table({}), lambda cell: asked.append(cell.model) or UNIT, every)
    assert asked == []
