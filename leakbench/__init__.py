"""LeakBench: the benchmark that tells what a spiking neural network gives away."""

from typing import TYPE_CHECKING

from leakbench.registry import register

if TYPE_CHECKING:
    from leakbench.api import ComparisonResult, RunResult, audit, compare, load, run

__version__ = "0.2.0"
__all__ = ["ComparisonResult", "RunResult", "__version__", "audit", "compare", "load", "register", "run"]

if not TYPE_CHECKING:  # a type checker would take any name for one of these

    def __getattr__(name: str) -> object:
        """The Python interface, imported when it is first asked for: importing the package stays cheap."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module("leakbench.api"), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
