"""Who is this: from configuration and question to the one hash that must be compared, and from that to the answer.

Pure: no hashing of passwords here, no clock, no broker. An unknown login gets a hash to compare too (the caller's
dummy), so that it costs what a wrong password costs and is answered in the same words.
"""

import hmac
from dataclasses import dataclass

from sternpost_mail.config import Config, Credential, CredentialKind
from sternpost_mail.credentials import (
    MAX_LOGIN_CHARS,
    MAX_SECRET_OCTETS,
    api_key_login,
    hash_api_key,
)
from sternpost_mail.identity import Identity, Verdict, VerifyReply, VerifyRequest

DENIED = VerifyReply(Verdict.DENIED)
"""One answer for every failure."""
UNAVAILABLE = VerifyReply(Verdict.UNAVAILABLE)

_DUMMY_DIGEST = "0" * 64
"""Compared for an unknown API key: no SHA-256 that anybody knows a preimage of."""


@dataclass(frozen=True, slots=True)
class Check:
    """What has to be compared before the question can be answered."""

    kind: CredentialKind
    login: str
    """The login as it is counted: for an API key its public part, or all malformed keys as one."""
    credential: Credential | None
    """None for a login that nobody has: the answer is DENIED whatever the comparison says."""
    secret: str

    def __repr__(self) -> str:
        return f"Check(kind={self.kind!r}, login={self.login!r}, known={self.credential is not None})"


def plan(config: Config, request: VerifyRequest) -> Check | VerifyReply:
    """What to compare for a question; a VerifyReply where there is nothing to compare.

    That is UNAVAILABLE before the configuration is complete, and DENIED for what no login or secret can be.
    """
    if not config.is_complete:
        return UNAVAILABLE
    if not request.secret or len(request.secret.encode("utf-8", "surrogatepass")) > MAX_SECRET_OCTETS:
        return DENIED
    if len(request.login) > MAX_LOGIN_CHARS:
        return DENIED
    kind = CredentialKind.SMTP_PASSWORD if request.login else CredentialKind.API_KEY
    login = request.login or api_key_login(request.secret)
    found = config.credentials.get(login)
    return Check(kind, login, found if found is not None and found.kind is kind else None, request.secret)


def stored_hash(check: Check, dummy: str) -> str:
    """The argon2id hash to verify a password against: the credential's, or the dummy of the same cost."""
    return check.credential.secret_hash if check.credential is not None else dummy


def api_key_fits(check: Check) -> bool:
    """Compare an API key in constant time, with a dummy where its public part is unknown."""
    expected = check.credential.secret_hash if check.credential is not None else _DUMMY_DIGEST
    return hmac.compare_digest(hash_api_key(check.secret), expected)


def conclude(check: Check, fits: bool) -> VerifyReply:
    """The answer once the secret was compared."""
    found = check.credential
    if found is None or not fits:
        return DENIED
    return VerifyReply(Verdict.GRANTED, Identity(found.tenant, found.name, found.allowed_senders, found.lane))
