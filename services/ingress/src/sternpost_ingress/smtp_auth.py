"""One AUTH exchange (RFC 4954, 4616), led by aiosmtpd's coroutines and fed by the engine.

This file knows how a login travels, not who may log in: what comes out is a user name and a password.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword, Session

from sternpost_mail.reply import Reply

BROKEN_OFF = Reply(501, "5.7.0", "AUTH was broken off")


@dataclass(frozen=True, slots=True)
class Login:
    """What a client claims."""

    name: str
    secret: str = field(repr=False)


class AuthExchange(SMTP):
    """aiosmtpd's AUTH machinery without its connection.

    Its constructor is left out on purpose: it makes a stream, a timer and, by reflection, tables of verbs that the
    engine has already.
    """

    def __init__(self, ask: Callable[[str], None]) -> None:
        self._ask = ask
        self._reader = asyncio.StreamReader()
        self.session = Session(asyncio.get_running_loop())
        self._refusal: Reply | None = None

    def __del__(self) -> None:  # the base class closes a stream that was never made
        pass

    async def run(self, mechanism: str, arguments: tuple[str, ...]) -> Login | Reply:
        """Lead the exchange; `arguments` are the mechanism and an initial response, if there was one."""
        words = list(arguments)
        if words[1:] == ["="]:  # RFC 4954 §4: an initial response of no octets
            words[1] = ""
        result = await (self.auth_PLAIN(None, words) if mechanism == "PLAIN" else self.auth_LOGIN(None, words))
        if self._refusal is not None:
            return self._refusal
        found = result.auth_data
        if not isinstance(found, LoginPassword):
            return BROKEN_OFF
        try:
            return Login(found.login.decode("utf-8"), found.password.decode("utf-8"))
        except UnicodeDecodeError:
            return Reply(501, "5.5.2", "The login is not UTF-8")

    def feed(self, line: bytes) -> None:
        """The client's answer to the last challenge."""
        self._reader.feed_data(line + b"\r\n")

    # --- what the coroutines of the base class call -------------------------------------------------------------------

    async def push(self, status: str | bytes) -> None:
        """A challenge, or the reply that ends the exchange."""
        text = status.decode("ascii") if isinstance(status, bytes) else status
        if text.startswith("334"):
            self._ask(text[4:])
        else:
            code, enhanced, rest = text.split(" ", 2)
            self._refusal = Reply(int(code), enhanced, rest)

    def _authenticate(self, mechanism: str, auth_data: object) -> AuthResult:
        return AuthResult(success=True, auth_data=auth_data)  # the door asks the auth service
