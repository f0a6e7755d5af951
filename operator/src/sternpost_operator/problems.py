"""What is wrong with which object, so that its author can act: file, document, object, field, and what to do.

This file alone turns pydantic's errors into our words. It never repeats a value it was given: it may be a secret.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from pydantic import ValidationError


class Reason(StrEnum):
    """Why an object is left out; the words will also be condition reasons, so they are CamelCase."""

    INVALID = "Invalid"
    """It breaks a rule of its own kind."""
    CONFLICTED = "Conflicted"
    """Another object was first."""
    NOT_PERMITTED = "NotPermitted"
    """It asks for what its namespace may not have."""
    SECRET_UNUSABLE = "SecretUnusable"  # noqa: S105 - a reason, not a secret
    """The Secret it refers to is missing, not labelled for this use, or holds something else."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an object was read; both empty when it did not come from a file."""

    file: str = ""
    document: int = 0
    """Counted from 1 within the file."""

    def __str__(self) -> str:
        return f"{self.file}, document {self.document}" if self.document else self.file


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `text` says what, and what to do about it."""

    origin: Origin
    subject: str
    """`Kind namespace/name`, as far as it is known."""
    field: str
    """Path of the field, such as `spec.smartHosts[0].tls`; empty where it is the object as a whole."""
    text: str
    reason: Reason = Reason.INVALID

    def __str__(self) -> str:
        return ", ".join(part for part in (str(self.origin), self.subject, self.field) if part) + f": {self.text}"


class ManifestError(Exception):
    """Something cannot be used; carries every problem found."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class FieldError(Exception):
    """Raised inside the compiler for one field of the object at hand; the caller adds where it is."""

    def __init__(self, field: str, text: str, reason: Reason = Reason.INVALID) -> None:
        super().__init__(text)
        self.field = field
        self.text = text
        self.reason = reason

    def within(self, field: str) -> "FieldError":
        """The same for a field further out."""
        return FieldError(f"{field}.{self.field}" if self.field else field, self.text, self.reason)


def problems_of(error: ValidationError, origin: Origin, subject: str) -> list[Problem]:
    """Every problem that pydantic found, one per field; its own messages never repeat a value."""
    found: list[Problem] = []
    for detail in error.errors(include_url=False, include_input=False, include_context=False):
        found.append(Problem(origin, subject, _path(detail["loc"]), _text(detail["type"], detail["msg"])))
    return found


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part}" if path else part
    return path


def _text(kind: str, message: str) -> str:
    match kind:
        case "extra_forbidden":
            return "there is no such field; remove it or check its spelling"
        case "missing":
            return "is required"
        case "model_type" | "dict_type" | "model_attributes_type":
            return "must be a mapping of fields"
    text = message.removeprefix("Value error, ").removeprefix("Input ")
    return text[:1].lower() + text[1:]
