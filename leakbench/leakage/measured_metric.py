"""A metric's value in a cell, an artifact of its own, whatever kind of leak it measures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import Field

from leakbench import registry
from leakbench.cells import Variant
from leakbench.contracts import Context
from leakbench.errors import LeakBenchError, NumericalError, PluginError, UsageError, described
from leakbench.leakage.kind import Measured
from leakbench.metrics.estimate import Estimate
from leakbench.metrics.metric import Measurement, Metric
from leakbench.runtime.fence import fenced, raised_at
from leakbench.runtime.plugins import made_plugin
from leakbench.runtime.store import Artifact, ArtifactRecord, Content
from leakbench.runtime.workspace import Stage, Workspace

M = TypeVar("M", bound=Metric[Any])

METRIC = Stage("metric", 1)
"""a metric's own version stands in its declaration"""


@dataclass(frozen=True)
class CellMetric(Generic[M]):
    """A metric of a cell, and what its key says of it."""

    metric: M
    identity: Mapping[str, Any]
    third_party: bool = False
    """then it is given copies, and whatever it raises is the reason why it has no value"""


def built_in_metrics(base: type[M]) -> list[type[M]]:
    """Those that derive from ``base``, in the order of the record."""
    loaded = (registry.load("metric", name) for name in registry.built_in("metric"))
    return [metric for metric in loaded if issubclass(metric, base)]


def cell_metrics(
    base: type[M], added: Sequence[Variant], total: Measured, of_files: Sequence[type[M]] = ()
) -> Iterator[CellMetric[M]]:
    """The built-in metrics that derive from ``base``, those ``of_files`` of the user's (as
    :meth:`LeakageKind.metrics_of_files`), then the ``added`` ones of the same kind of leak.

    An added one that can't be made now has its reason in ``total``.
    """
    for built_in in (*built_in_metrics(base), *of_files):
        yield CellMetric(built_in(), {"metric": built_in.name, "version": built_in.version})
    for variant in added:
        try:
            metric = made_plugin("metric", variant.target, variant.params, variant.code)
            if metric.leakage != base.leakage:
                continue
            if not isinstance(metric, base):
                raise PluginError(f"it must derive from {base.__module__}.{base.__name__}")
        except LeakBenchError as error:
            total.refuse(variant.name, str(error))
        else:
            yield CellMetric(metric, variant.identity, third_party=True)


class MetricRecord(ArtifactRecord):
    """A metric's value, or why it has none."""

    estimate: Estimate | None = None
    classes: dict[str, Estimate] = Field(default_factory=dict)
    """class -> its value"""
    refused: str = ""


def measured_metric(
    workspace: Workspace,
    one: CellMetric[Any],
    measure: Callable[[Context], Measurement],
    seed: int,
    inputs: Mapping[str, Any],
    parents: Iterable[Artifact],
) -> Measured:
    """The metric's value, or why it has none. ``inputs`` are of what is measured, ``measure`` calls the metric on it.

    A reason is kept like a value where it follows from what is measured (UsageError, NumericalError). Whatever else a
    third party's metric raises may be the machine's fault, and it is asked again the next time.
    """
    name = one.metric.name

    def build(context: Context) -> Content:
        fence: AbstractContextManager[None] = fenced(name, seed) if one.third_party else nullcontext()
        try:
            with fence:
                measurement = measure(context)
            if not isinstance(measurement, Measurement):
                raise PluginError(f"{name}.measure must return a Measurement, got {type(measurement).__name__}")
            Measured().add(name, measurement)  # checks the numbers
        except (UsageError, NumericalError) as error:
            return {}, MetricRecord(refused=str(error)).model_dump(exclude_unset=True)
        classes = {str(c): estimate for c, estimate in measurement.classes.items()}
        return {}, MetricRecord(estimate=measurement.estimate, classes=classes).model_dump(exclude_unset=True)

    total = Measured()
    try:
        artifact = workspace.make(METRIC, seed, {**one.identity, **inputs}, build, parents)
    except Exception as error:
        if not one.third_party:
            raise
        total.refuse(name, f"{described(error)}{raised_at(error, type(one.metric))}")
        return total
    record = MetricRecord.read(artifact)
    estimate = record.estimate
    if estimate is None:
        total.refuse(name, record.refused)
        return total
    # the store sorts names as text: 0, 1, 10, 2
    classes = {c: record.classes[str(c)] for c in sorted(map(int, record.classes))}
    outside = [e.value for e in (estimate, *classes.values()) if not 0 <= e.value <= 1]
    if one.metric.unit == "share" and outside:
        total.refuse(name, f"its unit is share, which is from 0 to 1, and a value came out as {outside[0]:g}")
        return total
    total.add(name, Measurement(estimate, classes))
    return total
