"""What all parts of the codec share: the error, the mapping of third-party errors to it, and tables of enum words.

This file knows no message; the parts (`codec_mail`, `codec_event`, ...) know one .proto file each.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TypeVar

from google.protobuf.message import DecodeError as ProtobufDecodeError
from google.protobuf.message import EncodeError as ProtobufEncodeError

MAX_QUOTED = 64
"""Characters of a foreign value that an error quotes: bounded because somebody else chose it."""

DECODE_ERRORS = (ProtobufDecodeError, UnicodeDecodeError)
"""What protobuf raises for octets that are no message."""
ENCODE_ERRORS = (ProtobufEncodeError, ValueError, TypeError)
"""What protobuf raises for a value that does not fit its field (out of range, lone surrogates, wrong type)."""

E = TypeVar("E", bound=StrEnum)


class CodecError(ValueError):
    """Octets that are not the message they should be, or a value that has no form on the wire.

    Trying again gives the same error: a record that raises it is poison and belongs in HELD.
    """


class Words(dict[str, E]):
    """The members of an enum by their word on the wire; an unknown word raises CodecError.

    A dictionary and not a call of the enum, because every mail asks several times.
    """

    def __init__(self, what: str, members: Iterable[E]) -> None:
        super().__init__((member.value, member) for member in members)
        self._what = what

    def __missing__(self, word: str) -> E:
        raise CodecError(
            f"unknown {self._what} {word[:MAX_QUOTED]!r} (known: {', '.join(repr(known) for known in self)}); "
            "it was written by a newer version or is damaged"
        )


def not_a(what: str, error: Exception) -> CodecError:
    """The error for octets that are no `what`."""
    return CodecError(f"not a {what}: {error}")


def does_not_fit(what: str, error: Exception) -> CodecError:
    """The error for a value that has no form on the wire. It quotes nothing: the value may be a secret or a mail.

    Raise it `from None`, because the original error quotes the value.
    """
    if isinstance(error, UnicodeError):
        return CodecError(f"{what} has text that is not valid Unicode")
    return CodecError(f"{what} has a value that does not fit its field ({type(error).__name__})")


@contextmanager
def encoding(what: str) -> Iterator[None]:
    """Map the errors of encoding; for messages that are rare enough to afford a context manager."""
    try:
        yield
    except CodecError:
        raise
    except ENCODE_ERRORS as error:
        raise does_not_fit(what, error) from None


@contextmanager
def decoding(what: str) -> Iterator[None]:
    """Map the errors of decoding; for messages that are rare enough to afford a context manager."""
    try:
        yield
    except DECODE_ERRORS as error:
        raise not_a(what, error) from error
