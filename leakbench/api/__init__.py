"""The Python interface: what the command line does, with DataFrames, figures and images of what came out."""

from leakbench.api.calls import audit, compare, load, run
from leakbench.api.results import AttackImage, ComparisonResult, RunResult

__all__ = ["AttackImage", "ComparisonResult", "RunResult", "audit", "compare", "load", "run"]
