"""Faults on demand: which answer a stage of a session gets instead of the usual one. Pure; used up when taken."""

from dataclasses import dataclass, replace
from enum import StrEnum
from fnmatch import fnmatchcase

MAX_FAULTS = 1000
"""Faults waiting at once; a test that sets more has lost track."""


class Stage(StrEnum):
    """Where in a session a fault strikes."""

    CONNECT = "connect"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    DOT = "dot"


class Action(StrEnum):
    """What happens then."""

    REPLY = "reply"
    CLOSE = "close"
    HANG = "hang"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    `recipient` and `sender` are patterns (`*` and `?`, without case; `x@` means `x@*`). `times` 0 means always.
    With `keep` a fault at the dot strikes after the message was stored: the remote took it and its answer is lost.
    """

    stage: Stage
    recipient: str = "*"
    sender: str = "*"
    action: Action = Action.REPLY
    code: int = 451
    text: str = ""
    delay_s: float = 0.0
    times: int = 1
    keep: bool = False

    def __post_init__(self) -> None:
        if not 200 <= self.code <= 599:
            raise ValueError(f"code must be an SMTP reply code from 200 to 599, got {self.code}")
        if any(char in self.text for char in "\r\n"):
            raise ValueError("text must be one line")
        if self.times < 0 or self.delay_s < 0:
            raise ValueError("times and delay_s cannot be negative")
        if self.keep and self.stage is not Stage.DOT:
            raise ValueError("keep makes sense at stage dot only: before that there is no message")
        if self.stage is Stage.CONNECT and (self.recipient, self.sender) != ("*", "*"):
            raise ValueError("at stage connect neither sender nor recipient is known: leave both at *")
        if self.stage is Stage.MAIL and self.recipient != "*":
            raise ValueError("at stage mail no recipient is known: leave recipient at *")

    @property
    def reply(self) -> str:
        """The reply line."""
        text = self.text or f"{str(self.code)[0]}.0.0 a fault at {self.stage}, as ordered"
        return f"{self.code} {text}"


class Faults:
    """The faults that wait, in the order in which they were set; the first that matches is taken."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Fault]] = []
        self._number = 0
        self.used = 0

    def add(self, fault: Fault) -> int:
        """Set a fault; its number. Raises ValueError when there are too many."""
        if len(self._waiting) >= MAX_FAULTS:
            raise ValueError(f"there are {MAX_FAULTS} faults already: DELETE /faults first")
        self._number += 1
        self._waiting.append((self._number, fault))
        return self._number

    def take(self, stage: Stage, sender: str = "", recipients: tuple[str, ...] = ()) -> Fault | None:
        """The fault that strikes now, None for the usual answer. At data and dot any recipient may match."""
        for place, (number, fault) in enumerate(self._waiting):
            if fault.stage is not stage or not matches(fault.sender, sender):
                continue
            if fault.recipient != "*" and not any(matches(fault.recipient, address) for address in recipients):
                continue
            if fault.times == 1:
                del self._waiting[place]
            elif fault.times:
                self._waiting[place] = (number, replace(fault, times=fault.times - 1))
            self.used += 1
            return fault
        return None

    def clear(self) -> int:
        """Forget all that wait; how many that were."""
        count = len(self._waiting)
        self._waiting.clear()
        return count

    @property
    def waiting(self) -> list[tuple[int, Fault]]:
        """Number and fault, in order."""
        return list(self._waiting)


def matches(pattern: str, address: str) -> bool:
    """Whether an address fits a pattern."""
    wanted = pattern.lower()
    return fnmatchcase(address.lower(), f"{wanted}*" if wanted.endswith("@") else wanted)
