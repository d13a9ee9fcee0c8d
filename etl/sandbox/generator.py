"""Generates the numbers of an account: plausible, consistent within a record, and the same for the same seed."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from random import Random
from typing import Any, TypeVar

from etl.sandbox import numbering
from etl.sandbox.numbering import Region

T = TypeVar("T")
NumberRecord = dict[str, Any]
"""A number as the API's JSON has it."""

MOBILE, CITY = "def", "abc"
MAX_REDIRECTS = 5

# How many redirects a number has: the index is looked up at random, so the mean is two.
_REDIRECT_COUNTS = (0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5)

# What keeps a number out of the list for outgoing scenarios, as the fields that differ.
_OUTSIDE: tuple[dict[str, Any], ...] = (
    {"state": "freeze"},
    {"purpose": "not_specified"},
    {"type": "sip_registration"},
    {"state": "debt_lock"},
    {"type": "toll_free"},
    {"state": "activation"},
    {"type": "sip_redirection"},
    {"state": "unconfirmed"},
)


class NumberGenerator:
    """Draws numbers, and changes to numbers, from one random sequence.

    Only `Random.random()` is used: it is the one method whose sequence Python promises to keep between versions.
    """

    def __init__(self, seed: int, app_id: int) -> None:
        self._random = Random(seed)  # noqa: S311 - made-up phone numbers are no secret
        self._app_id = app_id
        self._last_id = 100 + self.below(100)
        self._last_employee = 100
        self._phones: set[str] = set()
        self._outside = cycle(_OUTSIDE)
        self._scenarios = tuple(700 + 7 * position + self.below(7) for position in range(20))
        self._groups = tuple(self._group(40 + 3 * position) for position in range(12))

    def below(self, limit: int) -> int:
        """Draw an integer from 0 to `limit` - 1."""
        return int(self._random.random() * limit)

    def chance(self, probability: float) -> bool:
        """Draw true with this probability."""
        return self._random.random() < probability

    def pick(self, values: Sequence[T]) -> T:
        """Draw one of the values."""
        return values[self.below(len(values))]

    def sample(self, values: Sequence[T], count: int) -> list[T]:
        """Draw `count` different ones of the values."""
        pool = list(values)
        for position in range(count):
            other = position + self.below(len(pool) - position)
            pool[position], pool[other] = pool[other], pool[position]
        return pool[:count]

    def reserve(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Never draw the ids and phone numbers of these records again."""
        for record in records:
            for entry in (record, *(record.get("from_redirect_numbers") or ())):
                self._last_id = max(self._last_id, entry["id"])
                self._phones.add(entry["number"])

    def inside(self) -> NumberRecord:
        """Generate a number that may be used in outgoing scenarios."""
        region = self.pick(numbering.REGIONS)
        kind = MOBILE if self.chance(0.6) else CITY
        purpose = self._purpose(kind)
        with_mobile_service = kind == MOBILE and purpose == "employee" and self.chance(0.6)
        scenario_id, is_scenario_active = self._scenario()
        group_id, group_scenario_id, is_group_scenario_active = self._membership()
        return {
            "number": self._phone(region.mobile_codes if kind == MOBILE else region.city_codes),
            "comment": self._comment(purpose),
            "type": kind,
            "purpose": purpose,
            "scenario_id": scenario_id,
            "group_scenario_id": group_scenario_id,
            "group_id": group_id,
            "is_scenario_active": is_scenario_active,
            "is_group_scenario_active": is_group_scenario_active,
            "id": self._id(),
            "state": "active",
            "reason": None,
            "from_redirect_numbers": [self.redirect() for _ in range(self.pick(_REDIRECT_COUNTS))],
            "employee_id": self._employee() if purpose == "employee" else None,
            "dgn_number": self._phone(region.city_codes) if with_mobile_service else None,
            "region_name": region.name,
            "sip_uri": None,
            "nc_type": "custom+fmc" if with_mobile_service else "custom",
            "redirect_number": self._phone(region.mobile_codes) if self.chance(0.1) else None,
            "app_id": self._app_id,
        }

    def outside(self) -> NumberRecord:
        """Generate a number that may not be used in outgoing scenarios; all reasons for that take turns."""
        record: NumberRecord = self.inside() | next(self._outside)
        record["reason"] = numbering.REASONS.get(record["state"])
        if record["purpose"] == "not_specified":
            record["employee_id"] = None
        if record["type"] not in {MOBILE, CITY}:
            self._make_special(record)
        return record

    def redirect(self) -> dict[str, Any]:
        """Generate a number redirected to another; it takes the next id, for both kinds share one id space."""
        return {"id": self._id(), "number": self._redirected_phone()}

    def edited(self, record: Mapping[str, Any]) -> NumberRecord:
        """Return the record with another comment, another scenario, or other redirects."""
        kind = self.pick(("comment", "comment", "comment", "scenario", "scenario", "redirects", "redirects"))
        if kind == "comment":
            return {**record, "comment": self._other_comment(record)}
        if kind == "scenario":
            return {**record, **self._other_scenario(record)}
        return {**record, "from_redirect_numbers": self._other_redirects(record["from_redirect_numbers"] or [])}

    def withdrawn(self, record: Mapping[str, Any]) -> NumberRecord:
        """Return the record frozen, locked for debt, or without a purpose: no longer for outgoing scenarios."""
        match self.pick(("freeze", "debt_lock", "not_specified")):
            case "not_specified":
                return {**record, "purpose": "not_specified", "employee_id": None}
            case state:
                return {**record, "state": state, "reason": numbering.REASONS[state]}

    def restored(self, record: Mapping[str, Any]) -> NumberRecord:
        """Return a mobile or city record that may be used in outgoing scenarios again."""
        restored = {**record, "state": "active", "reason": None}
        if restored["purpose"] == "not_specified":
            restored["purpose"] = self._purpose(restored["type"])
            restored["employee_id"] = self._employee() if restored["purpose"] == "employee" else None
        return restored

    def _id(self) -> int:
        self._last_id += 1 + self.below(4)
        return self._last_id

    def _employee(self) -> int:
        self._last_employee += 1 + self.below(3)
        return self._last_employee

    def _phone(self, codes: Sequence[str]) -> str:
        """Draw a phone number that the account has not seen yet."""
        while True:
            phone = f"7{self.pick(codes)}{self.below(10_000_000):07d}"
            if phone not in self._phones:
                self._phones.add(phone)
                return phone

    def _redirected_phone(self) -> str:
        region: Region = self.pick(numbering.REGIONS)
        return self._phone(self.pick((region.mobile_codes, region.city_codes, (numbering.TOLL_FREE_CODE,))))

    def _purpose(self, kind: str) -> str:
        return "employee" if self.chance(0.7 if kind == MOBILE else 0.25) else "company"

    def _scenario(self) -> tuple[int | None, bool | None]:
        """Draw `scenario_id` and `is_scenario_active`, which is null for a number without a scenario."""
        return (self.pick(self._scenarios), self.chance(0.8)) if self.chance(0.7) else (None, None)

    def _group(self, group_id: int) -> tuple[int, int | None, bool | None]:
        return (group_id, *self._scenario())

    def _membership(self) -> tuple[int | None, int | None, bool | None]:
        """Draw a group; its scenario is the same for all its numbers."""
        return self.pick(self._groups) if self.chance(0.3) else (None, None, None)

    def _comment(self, purpose: str) -> str | None:
        if self.chance(0.2):
            return None
        if purpose == "employee":
            initials = f"{self.pick(numbering.INITIALS)}. {self.pick(numbering.INITIALS)}."
            return f"{self.pick(numbering.SURNAMES)} {initials}, {self.pick(numbering.POSITIONS)}"
        department = self.pick(numbering.DEPARTMENTS)
        return f"{department}, линия {1 + self.below(40)}" if self.chance(0.5) else department

    def _other_comment(self, record: Mapping[str, Any]) -> str | None:
        while (comment := self._comment(record["purpose"])) == record["comment"]:
            pass
        return comment

    def _other_scenario(self, record: Mapping[str, Any]) -> dict[str, Any]:
        while (scenario := self._scenario()) == (record["scenario_id"], record["is_scenario_active"]):
            pass
        return {"scenario_id": scenario[0], "is_scenario_active": scenario[1]}

    def _other_redirects(self, redirects: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Add, remove or renumber one redirect."""
        changed = list(redirects)
        kind = self.pick(("add", "remove", "renumber"))
        if not changed or (kind == "add" and len(changed) < MAX_REDIRECTS):
            return [*changed, self.redirect()]
        position = self.below(len(changed))
        if kind == "renumber":
            changed[position] = {**changed[position], "number": self._redirected_phone()}
        else:
            del changed[position]
        return changed

    def _make_special(self, record: NumberRecord) -> None:
        """Fit the fields of a number that is neither mobile nor city to its type."""
        record.update(dgn_number=None, nc_type="custom")
        if record["type"] == "toll_free":
            record.update(number=self._phone((numbering.TOLL_FREE_CODE,)), region_name=None)
        elif record["type"] == "sip_redirection":
            record["sip_uri"] = f"sip:{record['number']}@sip.example.com"
