"""Answers AUTH_VERIFY: has a login compared and counts failures. Thin: what is right is decided in `verify`."""

import time
from collections.abc import Callable

from sternpost_auth import telemetry
from sternpost_auth.limits import FailureCounts
from sternpost_auth.passwords import HashError, OverloadedError, PasswordPool
from sternpost_auth.verify import UNAVAILABLE, Check, api_key_fits, conclude, plan, stored_hash
from sternpost_mail.config import Config, CredentialKind
from sternpost_mail.identity import Verdict, VerifyReply, VerifyRequest
from sternpost_runtime.codec import decode_verify_request, encode_verify_reply


class Responder:
    """One per process. `config` gives the present configuration, `clock` steady seconds."""

    def __init__(
        self,
        config: Callable[[], Config],
        passwords: PasswordPool,
        failures: FailureCounts,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._passwords = passwords
        self._failures = failures
        self._clock = clock

    async def handle(self, payload: bytes) -> bytes:
        """Octets in, octets out, for `Bus.serve`. CodecError leaves the question unanswered: the door then says 454."""
        return encode_verify_reply(await self.answer(decode_verify_request(payload)))

    async def answer(self, request: VerifyRequest) -> VerifyReply:
        """Verify a login. Never raises for what a client sent."""
        check = plan(self._config(), request)
        if isinstance(check, VerifyReply):
            telemetry.not_ready() if check is UNAVAILABLE else telemetry.malformed()
            return check
        guessable = check.kind is CredentialKind.SMTP_PASSWORD
        if not self._failures.may_try(request.client, check.login, self._clock(), guessable=guessable):
            telemetry.limited(check.kind)
            # The right password may be among the tries: 454 and 503 are true, 535 and 401 would not be.
            return UNAVAILABLE
        started = time.perf_counter()
        try:
            fits = await self._compare(check)
        except OverloadedError:
            telemetry.overloaded(check.kind)
            return UNAVAILABLE
        except HashError:
            if check.credential is not None:
                telemetry.hash_unreadable(check.credential.tenant, check.credential.name)
            return UNAVAILABLE
        seconds = time.perf_counter() - started
        reply = conclude(check, fits)
        if reply.verdict is Verdict.GRANTED:
            self._failures.succeeded(request.client, check.login)
            telemetry.verified(check.kind, seconds)
        else:
            self._failures.failed(request.client, check.login, self._clock(), guessable=guessable)
            telemetry.denied(check.kind, seconds)
        return reply

    async def _compare(self, check: Check) -> bool:
        if check.kind is CredentialKind.API_KEY:
            return api_key_fits(check)
        return await self._passwords.fits(stored_hash(check, self._passwords.dummy), check.secret)
