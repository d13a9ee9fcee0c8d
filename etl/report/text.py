"""Text that stays within its line, wherever it came from: it can move no cursor and forge no line."""

import re

# Control characters, line and paragraph separators, and those that change the direction of what follows.
# A string, for compiling it costs start-up time that most runs have no use for.
UNSAFE = "[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"


def printable(value: object) -> str:
    """Return the value as text that stays within its line; unsafe characters are shown as escapes."""
    text = str(value)
    if text.isprintable():
        return text
    return re.sub(UNSAFE, lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), text)
