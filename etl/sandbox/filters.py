"""The filter syntax of the vendor's lists: `field=value`, repeated to mean any of them, and `field__ne=value`."""

from collections.abc import Iterable, Mapping
from typing import Any

FIELDS: tuple[str, ...] = (
    "number", "comment", "type", "purpose", "scenario_id", "group_scenario_id", "group_id", "is_scenario_active",
    "is_group_scenario_active", "id", "state", "reason", "from_redirect_numbers", "employee_id", "dgn_number",
    "region_name", "sip_uri", "nc_type", "redirect_number", "app_id",
)  # fmt: skip
"""The fields of a number, in the order of the sample in Data API, «Получить список номеров для исходящих сценариев»."""

OUTGOING: tuple[tuple[str, str], ...] = (
    ("purpose__ne", "not_specified"),
    ("state", "active"),
    ("type", "def"),
    ("type", "abc"),
)
"""The filter of the same page: the numbers that may be used in outgoing scenarios."""

_EXCLUDE = "__ne"
_SCALARS = frozenset(FIELDS) - {"from_redirect_numbers"}


class FilterError(ValueError):
    """A filter names a field that no number has or that is not a scalar; the API answers 400."""


class Filter:
    """A parsed filter: which values each field may have, and which it may not."""

    def __init__(self, conditions: Iterable[tuple[str, str]]) -> None:
        self._allowed: dict[str, set[str]] = {}
        self._excluded: dict[str, set[str]] = {}
        for name, value in conditions:
            field = name.removesuffix(_EXCLUDE)
            if field not in _SCALARS:
                raise FilterError(f"unknown filter: {name}")
            side = self._allowed if field == name else self._excluded
            side.setdefault(field, set()).add(value)

    def accepts(self, record: Mapping[str, Any]) -> bool:
        """Tell whether a number passes; a field it lacks counts as null."""
        return all(_text(record.get(field)) in values for field, values in self._allowed.items()) and not any(
            _text(record.get(field)) in values for field, values in self._excluded.items()
        )


def _text(value: object) -> str:
    """Write a scalar as a filter does: as JSON, but strings without quotes."""
    if isinstance(value, str):
        return value
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
