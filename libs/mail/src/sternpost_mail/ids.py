"""Identifiers of mails, records and events: time-ordered, 26 characters, safe in a subject, a header and a URL.

The shape is that of a ULID (48 bits of milliseconds, 80 random bits, Crockford base32), in lower case. The time inside an
id lets a reader start a stream scan at the moment the mail was accepted.
"""

import re

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUES = {char: value for value, char in enumerate(_ALPHABET)}
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]
_ID = re.compile(f"[0-7][{_ALPHABET}]{{25}}")

RANDOM_OCTETS = 10
"""How many random octets an id needs."""


def make_id(now_ms: int, random: bytes) -> str:
    """The id for a moment (milliseconds since the epoch) and ten random octets."""
    if len(random) != RANDOM_OCTETS:
        raise ValueError(f"an id needs {RANDOM_OCTETS} random octets, got {len(random)}")
    number = (now_ms << 80) | int.from_bytes(random, "big")
    pairs = _PAIRS
    return "".join([pairs[(number >> shift) & 1023] for shift in range(120, -1, -10)])


def is_id(text: str) -> bool:
    """Whether the text has the shape of an id; everything else is refused before it reaches a subject."""
    return _ID.fullmatch(text) is not None


def id_time_ms(identifier: str) -> int:
    """The moment, in milliseconds since the epoch, at which the id was minted.

    Raises ValueError for a text that is no id.
    """
    if not is_id(identifier):
        raise ValueError(f"{identifier!r} is not a message id (26 characters, as the 250 or 202 reply told it)")
    number = 0
    for char in identifier[:10]:
        number = number << 5 | _VALUES[char]
    return number
