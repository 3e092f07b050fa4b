"""The errors of LeakBench. Each message is one line that names what is wrong and what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def printable(text: str) -> str:
    """``text`` on one line; what can't be printed becomes an escape like ``\\x1b`` or ``\\u202e``.

    For whatever others wrote (file names, exceptions, names of tensors) on its way to a terminal: control characters,
    line ends, marks that turn the writing direction and lone surrogates are shown and not obeyed.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class LeakBenchError(Exception):
    """Something that the user can mend; the command line prints it without a traceback and exits with 2."""

    where = ""
    """the place in a plugin's file, in brackets, of an error that was raised in the plugin's own process"""


class UsageError(LeakBenchError):
    """A name, parameter or file that was given is wrong."""


class UnknownName(UsageError):
    """A name that is in no registry; the message lists what is there and the nearest one."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        super().__init__(f"unknown {kind} {name!r}: {hint}available: {', '.join(names) or 'none'}")


class DataError(LeakBenchError):
    """A data set is missing or damaged; the message says what to do."""


class StoreError(LeakBenchError):
    """The store or the output folder can't be written or read."""


class PluginError(LeakBenchError):
    """A plugin can't be loaded or broke its contract."""


class NumericalError(LeakBenchError):
    """A network or an attack produced NaN or infinity."""


class NotApplicable(LeakBenchError):
    """A plugin can't work on this victim (no access, no batch norm, ...): a state of a cell, not a mistake."""


class NoSignal(LeakBenchError):
    """A victim gives an attack no signal: constant answers, zero gradients, logits that are no numbers.

    A state of a cell, and no sign of protection: the message starts with the state's name.
    """
