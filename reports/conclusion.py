"""What a verdict on classes says, in words: for cards, tables and the terminal alike."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from leakbench.metrics.class_leaks import NETWORKS, NO_NAMES
from leakbench.metrics.class_votes import DRAWN
from leakbench.records import RunRecord, Verdict
from leakbench.reports.audited import of_one_network
from leakbench.reports.command_line import settling_command
from leakbench.reports.vocabulary import index_text, plain, value_of

NO_VALID = "no valid attack"
MOST_NAMES = 10
"""more classes than this are counted and not named, where they are not all there is to say"""


def conclusion(verdict: Verdict, names: Mapping[int, str]) -> str:
    """The outcome in a sentence, as in "3 of 10 classes leak: ship, truck, frog."; empty for a verdict on no classes.

    ``names``: index of a class -> its name.
    """
    total = len(verdict.classes)
    if verdict.outcome == "inconclusive":
        missing = missing_lines(verdict)
        return f"No conclusion: {missing[0]}." if missing else ""
    if not total:
        return ""
    if verdict.outcome == "resists":
        most = (verdict.detectable or total) - 1
        drawn = f"at most {most} of {total} classes are drawn" if most else f"none of {total} classes is drawn"
        return f"By these attacks {drawn} from {DRAWN * 100:.0f} % of networks."
    classes = "classes" if verdict.among is None else f"attacked classes (of {verdict.among})"
    more = "" if verdict.comparable else " More may leak: attacks may have been misled."
    if not verdict.named:
        networks = networks_text(verdict.networks) if verdict.networks < NETWORKS else "this evidence"
        which = "Classes" if verdict.among is None else f"Some of {total} {classes}"
        return f"{which} leak; which ones, {networks} can't tell.{more}"
    if len(verdict.named) == total:
        return f"All {total} {classes} leak."
    leak = "leaks" if len(verdict.named) == 1 else "leak"
    return f"{len(verdict.named)} of {total} {classes} {leak}: {listed(class_texts(verdict.named, names))}.{more}"


def summary(verdict: Verdict, names: Mapping[int, str]) -> str:
    """The outcome, what it rests on and the worst case, for one line; the reason of a verdict on no classes."""
    said = conclusion(verdict, names)
    if not said:
        return verdict.reason
    rests = "" if verdict.p is None else f"{p_text(verdict.p)}, {networks_text(verdict.networks)}."
    worst = f"Worst case {verdict.attack}: index {index_text(verdict.index)}." if value_of(verdict.index) else ""
    return " ".join(part for part in (said, rests, worst) if part)


def notes_of(verdict: Verdict, names: Mapping[int, str]) -> list[str]:
    """What limits a verdict, a sentence each, without its stop."""
    doubtful = listed(class_texts(verdict.doubtful, names))
    alike = [f"networks that know nothing may show {doubtful} as often"] if doubtful else []
    return [*alike, *verdict.notes]


def needed_to_name(verdict: Verdict) -> str:
    """What a verdict that names no class lacks to name any, as in "6 null networks"; empty where it lacks nothing."""
    lacking = next((note.removeprefix(NO_NAMES) for note in verdict.notes if note.startswith(NO_NAMES)), "")
    return f"{NETWORKS} networks" if verdict.networks < NETWORKS else lacking.partition(",")[0]


def class_texts(classes: Sequence[int], names: Mapping[int, str]) -> list[str]:
    """The classes by name, those without one by their index."""
    return [names.get(one, str(one)) for one in classes]


def listed(texts: Sequence[str]) -> str:
    """As in "ship, truck, frog"; of many the first ones, and how many more."""
    shown = ", ".join(texts[:MOST_NAMES])
    return f"{shown} and {len(texts) - MOST_NAMES} more" if len(texts) > MOST_NAMES else shown


def missing_lines(verdict: Verdict) -> list[str]:
    """What another outcome lacks, a few words each; attacks of which the same is said share a line."""
    attacks: dict[str, list[str]] = {}
    for reason in verdict.missing:
        subject, colon, rest = brief(reason).partition(": ")
        if subject == NO_VALID:  # which are not and why stands with the attacks
            said, subject = NO_VALID, ""
        elif colon and " (" in reason and not _REASON.search(reason):  # an attack and why it is not valid
            said = rest
        else:
            said, subject = brief(reason), ""
        attacks.setdefault(said, []).append(subject)
    return [f"{said} ({', '.join(names)})" if any(names) else said for said, names in attacks.items()]


def detectable_text(verdict: Verdict) -> str:
    """The smallest leak that so many networks show, in words; empty where classes leak, or were not attacked."""
    if not verdict.networks or not verdict.classes or verdict.outcome == "leaks":
        return ""
    networks = networks_text(verdict.networks)
    if verdict.detectable is None:
        return f"{networks} may show no leak, however many classes are drawn"
    classes = f"{verdict.detectable} class{'es' * (verdict.detectable > 1)}"
    return f"{networks} show a leak of {classes} or more, each drawn from {DRAWN * 100:.0f} % of networks"


def settling(record: RunRecord, verdict: Verdict) -> str:
    """The command that would settle it, or its options where the record's command does not say the grid.

    Empty where networks are lacking and one was given: other seeds would be of the same.
    """
    options = settling_options(record, verdict)
    return settling_command(record.command, record.grid, options) or options


def settling_options(record: RunRecord, verdict: Verdict) -> str:
    """What that command has besides the run's own, as in "--seeds 4"."""
    if of_one_network(record):
        return re.sub(r" ?--seeds \d+", "", verdict.settle).strip()
    return verdict.settle


def p_text(p: float) -> str:
    """As in "p = .003" and "p < .001"."""
    text = plain("p", p)
    return f"p < {text[1:]}" if text.startswith("<") else f"p = {text}"


def networks_text(number: int) -> str:
    """As in "4 networks"."""
    return "one network" if number == 1 else f"{number} networks"


_REASON = re.compile(r" (failed|found no signal): ")
"""what stands behind it was said by a plugin or of its error"""


def brief(text: str) -> str:
    """Without what stands in parentheses, which may hold others; reasons of failures are left as they are."""
    reason = _REASON.search(text)
    own, rest = (text[: reason.start()], text[reason.start() :]) if reason else (text, "")
    depth, kept = 0, []
    for char in own:
        depth += char == "("
        if not depth:
            kept.append(char)
        depth -= char == ")" and depth > 0
    return re.sub(r" +(?=[,:;])", "", "".join(kept)).rstrip() + rest
