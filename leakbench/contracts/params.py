"""A plugin's parameters."""

from __future__ import annotations

from collections.abc import Iterable
from types import NoneType
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, ValidatorFunctionWrapHandler, field_validator


class Params(BaseModel):
    """Base of every plugin's parameters: frozen, unknown names refused. Give each field a description and bounds.

    A field without an upper bound of its own takes whole numbers within +-10 million, beyond which a slip in a grid
    would take all of a machine, and other numbers within +-1e38, beyond which float32 has only infinity. true and
    false are no numbers. The text "none" is None where a field takes that.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="wrap")
    @classmethod
    def _sane(cls, given: Any, validate: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        field = cls.model_fields[str(info.field_name)]
        value = validate(None if given == "none" and NoneType in get_args(field.annotation) else given)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return value
        if isinstance(given, bool):
            raise ValueError("input should be a number, not true or false")
        most, shown = (10_000_000, "10,000,000") if isinstance(value, int) else (1e38, "1e38")
        if abs(value) > most and not _bounded(field.metadata):
            raise ValueError(f"input should be within +-{shown}")
        return value


def _bounded(constraints: Iterable[object]) -> bool:
    """Whether one of a field's constraints is an upper bound."""
    return any(getattr(one, bound, None) is not None for one in constraints for bound in ("le", "lt"))
