"""From a record's JSON text to a typed record."""

import msgspec

from etl.records import NumberRecord, RedirectRecord

_decode = msgspec.json.Decoder(NumberRecord).decode

# The vendor's page spells the purpose with a Cyrillic first letter (U+0441), its sample payloads with a Latin one.
_CYRILLIC_COMPANY = "\u0441ompany"


class RepeatedRedirectError(ValueError):
    """Two redirects of one record have the same id and different values."""


def decode(text: msgspec.Raw) -> NumberRecord:
    """Decode the text of a record that has known fields only.

    It does not look for NUL characters: the caller knows whether the text can hold any.
    Raises msgspec.DecodeError or RepeatedRedirectError when the record, or this fast way, is at fault.
    """
    return normalise(_decode(text))


def normalise(record: NumberRecord) -> NumberRecord:
    """Give one form to what may arrive in several: the company purpose, and redirects in any order, twice or null."""
    if record.purpose == _CYRILLIC_COMPANY:
        record.purpose = "company"
    redirects = record.from_redirect_numbers
    if redirects is None:
        record.from_redirect_numbers = []
    else:
        highest = 0
        for redirect in redirects:
            if redirect.id <= highest:
                record.from_redirect_numbers = _sorted_once(redirects)
                break
            highest = redirect.id
    return record


def _sorted_once(redirects: list[RedirectRecord]) -> list[RedirectRecord]:
    by_id: dict[int, RedirectRecord] = {}
    for redirect in redirects:
        if by_id.setdefault(redirect.id, redirect) != redirect:
            raise RepeatedRedirectError
    return [by_id[identity] for identity in sorted(by_id)]
