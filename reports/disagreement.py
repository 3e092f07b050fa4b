"""Where the metrics tell different stories of the worst case, in words."""

from __future__ import annotations

from leakbench.leakage.inversion.class_evidence import OPEN_SET
from leakbench.records import Value
from leakbench.reports.summary import JUDGED, KES, Group
from leakbench.reports.vocabulary import compares_sets, index_text, interval, value_of

APART = 0.5
"""between the headline's index of the worst case and another's"""


def headline_title(group: Group) -> str:
    """As in "judge accuracy"."""
    title = group.vocabulary.describe(group.headline).title
    return title[:1].lower() + title[1:]


def _told_apart(one: Value, other: Value) -> bool:
    """Whether their intervals do not overlap; one without an interval is not known to be elsewhere."""
    a, b = interval(one), interval(other)
    return a is not None and b is not None and (a[1] < b[0] or b[1] < a[0])


def statistics_apart(group: Group, defense: str, attack: str) -> str:
    """One sentence where the headline's index and another lie more than APART of the scale from each other, and their
    intervals do not overlap: that by
    KES, by what the evaluation models say otherwise, or by a Fréchet or kernel distance; else empty."""
    judged = value_of(group.index(defense, attack))
    if judged is None:
        return ""
    others = [
        metric
        for name in group.indexed()
        if name != group.headline
        and (name in (KES, JUDGED, OPEN_SET) or compares_sets(group.vocabulary.describe(name)))
        and (metric := group.vocabulary.describe(name))
    ]
    apart = [
        (f"{metric.title} {index_text(index)}", value.value)
        for metric in others
        if (index := group.index(defense, attack, metric.name))
        if (value := value_of(index)) and abs(value.value - judged.value) > APART and _told_apart(value, judged)
    ]
    if not apart:
        return ""
    meaning = (
        "recognised by the evaluation models, but nearer to noise than to real images in these"
        if apart[0][1] < judged.value
        else "near to real images in these, but not recognised by the evaluation models"
    )
    named = ", ".join(text for text, _ in apart)
    judged_text = index_text(group.index(defense, attack))
    by = f"By {headline_title(group)} the index is {judged_text}, by {named}"
    return f"Metrics disagree. {by}: {meaning}. Look at the images."
