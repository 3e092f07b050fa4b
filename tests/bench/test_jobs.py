"""Jobs of a run: networks and evaluation models first, then the cells, each after what it builds on."""

from __future__ import annotations

import pytest
from planned_cells import OwnAttack, planned

from leakbench import registry
from leakbench.bench.jobs import Job, jobs_of
from leakbench.cells import (
    AnchorCell,
    AttackCell,
    Cell,
    CheckCell,
    NullCell,
    PreparationCell,
    ReferenceCell,
    UtilityCell,
)


def before(jobs: list[Job], job: Job) -> list[Job]:
    return [jobs[number] for number in job.after]


def part_of(job: Job) -> str:
    return job.cell.part if isinstance(job.cell, PreparationCell) else ""


def cells_of(jobs: list[Job], kind: type[Cell]) -> list[Job]:
    return [job for job in jobs if job.is_cell and type(job.cell) is kind]


@pytest.mark.slow
def test_the_last_jobs_are_the_cells_in_their_order() -> None:
    cells = planned(dataset=["digits", "mnist"], seeds=2)
    jobs = jobs_of(cells)
    assert [job.cell for job in jobs[-len(cells) :]] == cells
    assert all(job.is_cell for job in jobs[-len(cells) :])
    first = jobs[: -len(cells)]
    # a network of each data set and seed, evaluation models of each data set
    assert sorted((job.task, job.cell.dataset, part_of(job)) for job in first) == [
        *[("ann", "digits", "")] * 2,
        *[("ann", "mnist", "")] * 2,
        *[
            ("prepare", dataset, part)
            for dataset in ("digits", "mnist")
            for part in ("", "model 1", "model 2", "outliers")
        ],
    ]


@pytest.mark.slow
def test_a_job_waits_for_what_it_builds_on_and_for_nothing_later() -> None:
    jobs = jobs_of(planned(dataset=["digits", "mnist"], seeds=2))
    for number, job in enumerate(jobs):
        assert all(other < number for other in job.after)
        assert {other.cell.dataset for other in before(jobs, job)} <= {job.cell.dataset}
        if not job.is_cell:
            parts = {"": ["outliers", "model 1", "model 2"], "model 1": ["outliers"], "model 2": ["outliers"]}
            assert [part_of(one) for one in before(jobs, job)] == (
                parts.get(part_of(job), []) if job.task == "prepare" else []
            )
    for dataset in ("digits", "mnist"):
        leader, *others = [job for job in cells_of(jobs, AnchorCell) if job.cell.dataset == dataset]
        assert [(one.task, part_of(one)) for one in before(jobs, leader)] == [("prepare", "")]
        assert all(jobs[job.waits[0]] is leader and len(job.after) == 2 for job in others)
    for job in cells_of(jobs, UtilityCell):
        (network,) = before(jobs, job)
        assert (network.task, network.cell.seed) == ("ann", job.cell.seed)
    for job in (*cells_of(jobs, AttackCell), *cells_of(jobs, CheckCell)):
        models, network, anchor, row = before(jobs, job)
        assert type(anchor.cell) is AnchorCell  # makes the features that metrics share
        assert (models.task, network.task, network.cell.seed) == ("prepare", "ann", job.cell.seed)
        assert isinstance(job.cell, AttackCell) and type(row.cell) is UtilityCell
        assert row.cell.row == job.cell.row


@pytest.mark.slow
def test_one_attack_with_public_images_goes_ahead_and_may_fail_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OwnAttack, "uses_public", True)
    registry.register("attack", "own", OwnAttack)
    jobs = jobs_of(planned(attack=["own", "direct"], seeds=2))
    for seed in range(2):
        public = [job for job in cells_of(jobs, AttackCell) if isinstance(job.cell, AttackCell) and job.cell.public]
        leader, *others = [job for job in public if job.cell.seed == seed]
        assert others
        assert all(leader in before(jobs, job) for job in others)
        assert all(type(job.cell) is not AttackCell for job in before(jobs, leader))
        assert all(jobs.index(leader) in job.waits and jobs.index(leader) not in job.needs for job in others)
    rest = [job for job in cells_of(jobs, AttackCell) if isinstance(job.cell, AttackCell) and not job.cell.public]
    assert not any(type(one.cell) is AttackCell and one.is_cell for job in rest for one in before(jobs, job))


def test_the_first_attack_on_a_network_that_knows_nothing_goes_ahead() -> None:
    jobs = jobs_of(planned(seeds=3, attack=["direct", "reconversion"]))
    for number in range(6):
        first, second = (job for job in jobs if isinstance(job.cell, NullCell) and job.cell.number == number)
        assert [jobs[needed].task for needed in first.needs] == ["prepare", "ann"]
        assert jobs[second.waits[-1]] is first
        assert first not in [jobs[needed] for needed in second.needs]  # where this one fails, it builds it itself


def test_references_come_before_the_attacks_that_use_them_and_are_shared_by_those() -> None:
    jobs = jobs_of(planned(attack=["lira", "rmia", "loss_threshold"], seeds=2))
    made = [job for job in jobs if job.task == "reference"]
    assert not any(job.is_cell for job in made)
    rows = {job.cell.row for job in jobs if type(job.cell) is UtilityCell and job.is_cell}
    assert len(made) == 4 * len(rows)  # four of each row at the preset quick
    for job in (*cells_of(jobs, AttackCell), *cells_of(jobs, CheckCell)):
        assert isinstance(job.cell, AttackCell)
        own = [one for one in before(jobs, job) if isinstance(one.cell, ReferenceCell)]
        if job.cell.attack.name == "loss_threshold":
            assert not own
        else:
            assert [one.cell.number for one in own if isinstance(one.cell, ReferenceCell)] == [0, 1, 2, 3]
            assert {one.cell.row for one in own if isinstance(one.cell, ReferenceCell)} == {job.cell.row}
    # defences share the references' ANNs, and none of them waits for another's conversion
    anns = [job for job in jobs if job.task == "ann" and isinstance(job.cell, ReferenceCell)]
    assert [(job.cell.seed, job.cell.number) for job in anns if isinstance(job.cell, ReferenceCell)] == [
        (seed, number) for seed in range(2) for number in range(4)
    ]
    for job in made:
        assert isinstance(job.cell, ReferenceCell)
        network, *own = before(jobs, job)
        assert network.task == "ann" and network.cell.network == job.cell.network
        if job.cell.defense.name == "random":
            assert own == []
        elif job.cell.defense.name == "overfitted":  # trained on what the victim has read: one builds that
            assert [one.cell.row for one in own] == [job.cell.row] * (job.cell.number > 0)
        else:
            assert [one.cell.number for one in own if isinstance(one.cell, ReferenceCell)] == [job.cell.number]
            assert {one.task for one in own} == {"ann"}
    assert len({job.title for job in jobs}) == len(jobs)


def test_rows_that_build_the_same_wait_for_each_other_and_for_no_lock() -> None:
    """One network of several T, the network whose weights are rounded, a synthetic set of two defences."""
    options = {"attack": ["none"], "controls": False, "timesteps": [8, 16]}
    rounded = {"rueckauer2017.quantize": ["int8", "none"]}
    defenses = ["rueckauer2017", "privatesnn", "datafree", "han2020"]
    jobs = jobs_of(planned(defense=defenses, set={**rounded, "privatesnn.epochs": [1, 2]}, **options))
    rows = {job.cell.row[-1]: job for job in jobs if isinstance(job.cell, UtilityCell) and job.is_cell}

    def waits(label: str) -> list[str]:
        return [jobs[number].cell.row[-1] for number in rows[label].waits]  # type: ignore[union-attr]

    first = "rueckauer2017[quantize=int8,T=8]"
    assert waits(first) == []
    assert waits("rueckauer2017[quantize=int8,T=16]") == [first]
    assert waits("rueckauer2017[T=8]") == [first]
    assert waits("rueckauer2017[T=16]") == [first, "rueckauer2017[T=8]"]
    synthesis = "privatesnn[epochs=1,T=8]"
    assert waits(synthesis) == []
    assert waits("privatesnn[epochs=2,T=16]") == waits("datafree[T=8]") == [synthesis]
    assert waits("han2020[T=8]") == waits("han2020[T=16]") == []
    assert all(len(job.needs) == 1 for job in rows.values())


def test_without_attacks_no_evaluation_models_are_trained() -> None:
    assert [job.task for job in jobs_of(planned(attack=["none"]))] == ["ann", *["compute"] * 4]


def test_jobs_that_take_as_long_are_alike() -> None:
    jobs = jobs_of(planned(seeds=2))
    by_seed = [[job for job in jobs if job.cell.seed == seed and job.is_cell] for seed in range(2)]
    for one, other in zip(*by_seed, strict=True):
        assert one.alike == other.alike
    (check,) = [job for job in by_seed[0] if isinstance(job.cell, CheckCell)]
    whole = [job for job in by_seed[0] if type(job.cell) is AttackCell and job.cell.timesteps is not None]
    # the same attack on other networks of as many steps is kin; half of it is kin to the whole, but no twin
    assert all(set(one.alike) & set(other.alike) for one in whole for other in whole)
    assert all(set(check.alike) & set(one.alike) for one in whole)
    assert check.alike[0] not in {one.alike[0] for one in whole}
    titles = [job.title for job in jobs]
    assert len(set(titles)) == len(titles)
