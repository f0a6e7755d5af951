"""Questions to the auth service and its answers."""

from dataclasses import dataclass
from enum import StrEnum

from sternpost_mail.envelope import Lane


class Verdict(StrEnum):
    """The answer to a question of identity."""

    GRANTED = "granted"
    DENIED = "denied"
    UNAVAILABLE = "unavailable"
    """Auth cannot tell (no configuration yet, or overloaded): the door answers 454 or 503, never lets in."""


@dataclass(frozen=True, slots=True)
class VerifyRequest:
    """A login to verify: SMTP user and password, or an API key as `secret` with an empty `login`."""

    login: str
    secret: str
    client: str

    def __repr__(self) -> str:
        return f"VerifyRequest(login={self.login!r}, secret=..., client={self.client!r})"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who was let in and what they may do. `allowed_senders` are patterns (`sternpost_mail.route.address_matches`)."""

    tenant: str
    name: str
    allowed_senders: tuple[str, ...]
    lane: Lane = Lane.NORMAL


@dataclass(frozen=True, slots=True)
class VerifyReply:
    """Auth's answer; `identity` is set exactly when it is GRANTED."""

    verdict: Verdict
    identity: Identity | None = None
