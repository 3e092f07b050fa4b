"""What a metric says of itself, once: the store, the index, the report and the docs read it from here.

A metric of reconstructions derives from :class:`~leakbench.metrics.reconstructions.ImageMetric` or
:class:`~leakbench.metrics.reconstructions.ReconstructionMetric` and measures them; one of membership scores from
:class:`~leakbench.metrics.membership.MembershipMetric`. What the framework itself measures (accuracy, costs) is
declared the same way.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from leakbench.contracts import Plugin
from leakbench.contracts.plugin import P
from leakbench.errors import PluginError
from leakbench.metrics.estimate import Estimate

Unit = Literal["share", "cosine", "distance", "count", "ratio", "seconds", "p", "number"]
"""how a value is written; a share is from 0 to 1"""
Leaks = Literal["more", "less", ""]
"""whether more or less of it means that more leaks; empty for what measures no leakage"""
IndexScale = Literal["anchors", "brackets", "chance", ""]
"""where the ends of its leakage index are from: the anchors; brackets that are measured along with it; chance and the
highest value there is; nowhere"""
Counts = Literal["images", "test images", ""]
"""hits are counted over the images of the attack, over real test images, or it is no share of hits"""

INDEX = "index_"
"""before a metric's name: a table's rows of its leakage index"""
NAME = re.compile(r"[A-Za-z][\w-]*", re.ASCII)
"""what a metric may be called, and a plugin with an entry on a leaderboard"""


@dataclass(frozen=True)
class Declaration:
    """What is to be known of a metric wherever its values are kept, compared or shown."""

    name: str
    title: str
    meaning: str
    unit: Unit = "number"
    leaks: Leaks = ""
    per: Literal["class", "set"] = "set"
    counts: Counts = ""
    needs_same_n: bool = False
    scale: IndexScale = ""
    leakage: str = ""
    version: int = 1


@dataclass(frozen=True)
class Measurement:
    """A metric's value and, where it has one of each class, those."""

    estimate: Estimate
    classes: dict[int, Estimate] = field(default_factory=dict)


class Metric(Plugin[P]):
    """Base of all metrics. The class's docstring says what a value means: its first paragraph is shown to users."""

    kind = "metric"
    title: ClassVar[str]
    """heading of a table's column"""
    unit: ClassVar[Unit] = "number"
    leaks: ClassVar[Leaks] = ""
    per: ClassVar[Literal["class", "set"]] = "set"
    """class: the value is a mean over classes, each of which has one of its own; set: of all images together"""
    counts: ClassVar[Counts] = ""
    """of what it is a share, where every score is a hit or a miss"""
    needs_same_n: ClassVar[bool] = False
    """whether values are comparable at the same number of images only"""
    scale: ClassVar[IndexScale] = ""
    leakage: ClassVar[str] = ""
    """the kind of leak that it measures; empty for what is of the deployed network alone"""

    @classmethod
    def declaration(cls) -> Declaration:
        """What a record keeps of it. PluginError where the class says something that is not to be had."""
        invalid = f"the metric {cls.name!r} has an invalid"
        if not NAME.fullmatch(cls.name):
            raise PluginError(f"{invalid} name: letters, digits, _ and - are needed, a letter first")
        if cls.name.startswith(INDEX):
            raise PluginError(f"{invalid} name: rows of the leakage index begin with {INDEX}")
        paragraph = inspect.cleandoc(cls.__doc__ or "").partition("\n\n")[0]
        declared = Declaration(
            name=cls.name,
            title=getattr(cls, "title", cls.name),
            meaning=" ".join(paragraph.split()),
            unit=cls.unit,
            leaks=cls.leaks,
            per=cls.per,
            counts=cls.counts,
            needs_same_n=cls.needs_same_n,
            scale=cls.scale,
            leakage=cls.leakage,
            version=cls.version,
        )
        invalid = f"the metric {cls.name!r} has an invalid"
        for attribute, given, kind in (
            ("title", declared.title, str),
            ("needs_same_n", declared.needs_same_n, bool),
            ("leakage", declared.leakage, str),
        ):
            if not isinstance(given, kind):
                raise PluginError(f"{invalid} {attribute} {given!r}: a {kind.__name__} is needed")
        for attribute, given, allowed in (
            ("unit", declared.unit, Unit),
            ("leaks", declared.leaks, Leaks),
            ("scale", cls.scale, IndexScale),
            ("counts", declared.counts, Counts),
            ("per", declared.per, Literal["class", "set"]),
        ):
            if given not in allowed.__args__:  # type: ignore[attr-defined]
                raise PluginError(f"{invalid} {attribute} {given!r}: one of {allowed.__args__}")  # type: ignore[attr-defined]
        for method in ("measure", "scores"):
            if hasattr(cls, method) and not _takes_one(getattr(cls, method)):
                raise PluginError(f"the metric {cls.name!r}: {method} must take one argument besides self")
        # an index needs a direction
        return declared if declared.leaks else replace(declared, scale="")


def _takes_one(method: Any) -> bool:
    """Whether a method of a class can be called with one argument, as far as it says what it takes."""
    try:
        inspect.signature(method).bind(None, None)
    except TypeError:
        return False
    except ValueError:  # of what is written in C
        return True
    return True
