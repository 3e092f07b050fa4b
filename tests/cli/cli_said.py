"""What a command said and wrote, for the command line's tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from leakbench.records import RunRecord


@dataclass(frozen=True)
class Said:
    """How a command ended and what it said."""

    status: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line that a refused command says."""
        assert (self.status, self.out) == (2, ""), self
        assert self.err.startswith("leakbench: ") and self.err.endswith("\n"), self
        assert len(self.err.splitlines()) == 1, self.err
        return self.err.removeprefix("leakbench: ").rstrip("\n")


Leakbench = Callable[..., Said]


def record_in(out: Path) -> RunRecord:
    """The record of the run in that folder."""
    return RunRecord.model_validate_json((out / "results.json").read_bytes())
