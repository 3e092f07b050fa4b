"""What of a run's cells a report's numbers are over."""

from __future__ import annotations

from typing import Any

from report_samples import cell, record, share

from leakbench.records import CellRecord
from leakbench.reports.flags import flags
from leakbench.reports.summary import groups


def seeds(count: int, **given: Any) -> list[CellRecord]:
    """A defence and an attack on it, by seed: the accuracy rises, the image that is recognised is one more."""
    return [
        made
        for seed in range(count)
        for made in (
            cell("d", seed=seed, values=[share("accuracy", 90 + seed)], **given),
            cell("d", "a", seed=seed, values=[share("judge_accuracy", 50 + seed)]),
        )
    ]


def test_each_network_counts() -> None:
    (group,) = groups(record(seeds(3)))
    accuracy = group.experiments["d", ""].overall("accuracy")
    assert accuracy is not None and accuracy.n == 3 and accuracy.value == 0.91


def test_copies_of_one_network_are_one() -> None:
    made = record(seeds(3, artifacts={"ann": "one"}))
    (group,) = groups(made)
    for attack, metric, value in (("", "accuracy", 0.9), ("a", "judge_accuracy", 0.5)):
        told = group.experiments["d", attack].overall(metric)
        assert told is not None and (told.value, told.n) == (value, 100)
    assert any(flag.title.startswith("A single seed") for flag in flags(made, [group], []))
