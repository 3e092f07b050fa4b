"""What attacks and defences have in common."""

from __future__ import annotations

import difflib
from abc import ABC
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar, cast, get_args

from pydantic import ValidationError

from leakbench.contracts.params import Params
from leakbench.errors import UsageError

P = TypeVar("P", bound=Params)


class Plugin(ABC, Generic[P]):
    """What attacks and defences have in common: a name, a version, a citation and checked parameters.

    The parameters' class is the one in the brackets: ``class Mine(Attack[MyParams])``.
    """

    kind: ClassVar[str]
    name: ClassVar[str]
    version: ClassVar[int] = 1
    """a bump makes new artifacts: raise it with every change of what is computed"""
    cites: ClassVar[str] = ""
    """the paper, with equation or algorithm where there is one"""
    Params: ClassVar[type[Params]] = Params
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """preset name -> parameters that differ from the defaults there"""

    params: P

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "Params" in cls.__dict__:
            return
        for base in cls.__dict__.get("__orig_bases__", ()):
            for argument in get_args(base):
                if isinstance(argument, type) and issubclass(argument, Params):
                    cls.Params = argument

    def __init__(self, **params: Any) -> None:
        try:
            self.params = cast(P, self.Params(**params))
        except ValidationError as error:
            raise UsageError(_one_line(self.name, self.Params, error)) from None


def _one_line(name: str, params: type[Params], error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join([name, *(str(part) for part in first["loc"])])
    if first["type"] == "extra_forbidden":
        field_name = str(first["loc"][0])
        near = difflib.get_close_matches(field_name, params.model_fields, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        known = ", ".join(params.model_fields) or "none"
        return f"unknown parameter {where}: {hint}{name} has: {known}"
    given = "" if isinstance(first["input"], dict) else f" (got {first['input']!r})"
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message[0].lower()}{message[1:]}{given}"
