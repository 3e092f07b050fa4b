"""What attacks and defences have in common."""

from __future__ import annotations

import difflib
from abc import ABC
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar, cast, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo

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
    KindParams: ClassVar[type[Params]] = Params
    """parameters that all plugins of the kind have: a run acts on them, and the plugin never sees them"""
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
            raise UsageError(_one_line(self, error)) from None


def kind_fields(plugin: type[Plugin[Any]]) -> dict[str, FieldInfo]:
    """The parameters that a plugin has of its kind: all but those that it declares itself, which are its own."""
    own = plugin.Params.model_fields
    return {name: field for name, field in plugin.KindParams.model_fields.items() if name not in own}


def settable(plugin: type[Plugin[Any]]) -> dict[str, FieldInfo]:
    """Name -> field of all that --set takes: a plugin's own parameters, then those of its kind."""
    return {**plugin.Params.model_fields, **kind_fields(plugin)}


def kind_params(plugin: type[Plugin[Any]], given: Mapping[str, Any]) -> Params:
    """Checked parameters of the plugin's kind. UsageError, one line, for a wrong value."""
    try:
        return plugin.KindParams(**given)
    except ValidationError as error:
        raise UsageError(_one_line(plugin, error)) from None


def _one_line(plugin: Plugin[Any] | type[Plugin[Any]], error: ValidationError) -> str:
    first, name = error.errors()[0], plugin.name
    where = ".".join([name, *(str(part) for part in first["loc"])])
    if first["type"] == "extra_forbidden":
        field_name, kind = str(first["loc"][0]), plugin.KindParams.model_fields
        if field_name in kind:
            return f"{where} is for runs, which act on it: --set {where}=VALUE"
        fields = {**plugin.Params.model_fields, **kind}
        near = difflib.get_close_matches(field_name, fields, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"unknown parameter {where}: {hint}{name} has: {', '.join(fields) or 'none'}"
    given = "" if isinstance(first["input"], dict) else f" (got {first['input']!r})"
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message[0].lower()}{message[1:]}{given}"
