"""The errors of LeakBench. Each message is one line that names what is wrong and what would be right."""

from __future__ import annotations

import difflib
import traceback
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
        lowered = {one.lower(): one for one in reversed(names)}
        near = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
        hint = f"did you mean {lowered[near[0]]!r}? " if near else ""
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


_LONGEST, _LONGEST_TRACEBACK = 1000, 20_000
"""characters of a message that are shown, and of a traceback that are kept, from both of its ends"""


def one_line(error: BaseException) -> str:
    """The first line of an error's message, and the others too where it ends with a colon, as a state dict's does.

    An error whose message can't be had is named all the same.
    """
    try:
        line, _, others = str(error).strip().partition("\n")
        if line.rstrip().endswith(":"):
            line = " ".join([line.strip(), *others.split()])
        return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."
    except (Exception, SystemExit):  # a plugin's own __str__
        return "(its message can't be shown)"


def described(error: BaseException) -> str:
    """An error in one line: our own by its message, others with their type before it."""
    message = one_line(error)
    return message if isinstance(error, LeakBenchError) else f"{type(error).__name__}: {message}"


def traceback_text() -> str:
    """The traceback of the error that is being handled; empty where it can't be printed."""
    try:
        text = traceback.format_exc()
    except Exception:  # as it prints the message, a plugin's own __str__
        return ""
    half = _LONGEST_TRACEBACK // 2
    return text if len(text) <= 2 * half else f"{text[:half]}\n...\n{text[-half:]}"
