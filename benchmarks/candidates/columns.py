"""The source's scalar fields by type, for peers that are told their schema rather than left to guess it."""

from __future__ import annotations

PATH = "/numbers/virtual-number?purpose__ne=not_specified&state=active&type=def&type=abc"

# Fields that always hold a short word, and fields that hold any text.
WORDS = ("number", "type", "purpose", "state", "dgn_number", "redirect_number", "nc_type")
TEXTS = ("comment", "reason", "region_name", "sip_uri")
INTEGERS = ("scenario_id", "group_scenario_id", "group_id", "employee_id", "app_id")
BOOLEANS = ("is_scenario_active", "is_group_scenario_active")
REDIRECTS = "from_redirect_numbers"
