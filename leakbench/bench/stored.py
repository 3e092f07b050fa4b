"""Which jobs of a run have nothing left to compute, since all of it is in the store.

A key follows from the keys of what an artifact builds on, so that the one way to know is the run's own: each job is
gone through as if it were to run, with a store that is read only.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from leakbench.bench import executors
from leakbench.bench.jobs import Job
from leakbench.bench.pipeline import Pipeline
from leakbench.bench.work import Sizes
from leakbench.cells import AttackCell
from leakbench.data.public import HALF, PHOTOS
from leakbench.runtime.process import device_here
from leakbench.runtime.store import NotStored
from leakbench.runtime.workspace import Settings

log = logging.getLogger("leakbench")


def stored_jobs(jobs: Sequence[Job], settings: Settings) -> frozenset[int]:
    """The numbers of the jobs of which everything is in the store; reads what they would read, and builds nothing.

    Not so of a job that failed, which is tried again, and of one whose data set would have to be downloaded to tell.
    """
    if not (Path(settings.cache) / "objects").is_dir():
        return frozenset()
    pipeline = Pipeline(replace(settings, device=device_here(settings.device)), lambda _what, _done, _total: None)
    pipeline.workspace.store.read_only = True
    sizes = Sizes(Path(settings.data) if settings.data else None)
    stored: set[int] = set()
    disabled, log.disabled = log.disabled, True  # what there is to warn of, the run says
    try:
        for number, job in enumerate(jobs):
            with contextlib.suppress(NotStored):
                if _at_hand(job, sizes) and executors.run_task(pipeline, job.task, job.cell).status == "ok":
                    stored.add(number)
    finally:
        log.disabled = disabled
    return frozenset(stored)


def _at_hand(job: Job, sizes: Sizes) -> bool:
    """Whether its data can be loaded without a download."""
    source = job.cell.public if isinstance(job.cell, AttackCell) else ""
    names = [job.cell.dataset, *([source] if source not in ("", HALF, PHOTOS) else [])]
    return all(sizes.data(name) is not None for name in names)
