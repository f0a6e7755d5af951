"""The SMTP server without its socket: octets in, replies and actions out (RFC 5321, 2920, 3030, 3207, 4954).

The engine owns the order of commands and the envelope of a session. It never waits: what takes time (making a mail
durable, TLS, verifying a login) goes out as an action, and input stays buffered until its result comes back. It knows
no socket, no clock, no broker and no policy; `Host` answers who is welcome.

    engine.receive(octets)            # then, always:
    write(engine.take_output())       # replies of everything that was understood, together
    action = engine.take_action()     # at most one
    if engine.state is State.CLOSED:  # hang up after writing
"""

from collections.abc import Callable
from functools import lru_cache

from sternpost_ingress.engine_syntax import (
    MailCommand,
    SyntaxRefused,
    parse_bdat,
    parse_helo,
    parse_mail,
    parse_rcpt,
)
from sternpost_ingress.engine_text import STORAGE_BUSY, Text, too_big
from sternpost_ingress.engine_types import (
    Action,
    Authenticate,
    AuthLine,
    Budget,
    EngineLimits,
    Host,
    Settle,
    StartTls,
    State,
    Traits,
)
from sternpost_mail.envelope import Envelope, Recipient
from sternpost_mail.identity import Identity
from sternpost_mail.reply import Reply

_ANYWHERE = (b"NOOP", b"VRFY", b"EXPN", b"HELP")


def _from(state: State, **after: State) -> dict[bytes, State]:
    table = {verb.encode(): target for verb, target in after.items()}
    table |= dict.fromkeys(_ANYWHERE, state)
    return table | {b"QUIT": State.CLOSED}


_HELLO = {"EHLO": State.READY, "HELO": State.READY}

TRANSITIONS: dict[State, dict[bytes, State]] = {
    State.START: _from(State.START, **_HELLO, RSET=State.START),
    State.READY: _from(
        State.READY, **_HELLO, RSET=State.READY, MAIL=State.MAIL, STARTTLS=State.HANDSHAKE, AUTH=State.AUTH
    ),
    State.MAIL: _from(State.MAIL, **_HELLO, RSET=State.READY, RCPT=State.RCPT),
    State.RCPT: _from(State.RCPT, **_HELLO, RSET=State.READY, RCPT=State.RCPT, DATA=State.DATA, BDAT=State.CHUNK),
    State.CHUNKED: _from(State.CHUNKED, **_HELLO, RSET=State.READY, BDAT=State.CHUNK),
}
"""Where a command leads when it is carried out. A command that is not in its state's row is out of order (503)."""

OUT_OF_ORDER = {
    State.START: "Say EHLO first",
    State.READY: "MAIL comes first",
    State.MAIL: "A transaction is open and has no valid recipient",
    State.RCPT: "A transaction is open",
    State.CHUNKED: "The mail is sent in chunks: only BDAT or RSET may follow",
}
NOT_SMTP = frozenset(b"GET POST PUT HEAD CONNECT OPTIONS DELETE PATCH TRACE PROXY".split())
"""First words of other protocols. They end the session: what follows was made by a browser or by a proxy that we do not
trust, not by a mail client."""
MECHANISMS = ("PLAIN", "LOGIN")

_OK = b"250 2.0.0 OK\r\n"
_SENDER_OK = b"250 2.1.0 Sender OK\r\n"
_RECIPIENT_OK = b"250 2.1.5 Recipient OK\r\n"
_GO_AHEAD = b"354 End the text with a line that has only a dot\r\n"
_INTERACTIVE = frozenset({State.GREETING, *TRANSITIONS, State.AUTH_LINE})


class Engine:
    """One SMTP session."""

    def __init__(self, traits: Traits, limits: EngineLimits, budget: Budget, host: Host) -> None:
        self.state = State.GREETING
        self.helo = ""
        self.esmtp = False
        """The client said EHLO."""
        self.ended_well = False
        """The client said QUIT: nothing of its input is left unread."""
        self.identity: Identity | None = None
        self.tls = False
        self.tls_offered = False
        """STARTTLS can be served now; the door sets it."""
        self.progress = 0
        """Grows with every command and with every octet of content: a clock outside sees by it who is slow."""
        self._traits = traits
        self._limits = limits
        self._budget = budget
        self._host = host
        self._out: list[bytes] = []
        self._action: Action | None = None
        self._buffer = b""
        self._overlong = False
        self._errors = 0
        self._auth_failures = 0
        self._leaving = False
        self._gone = False
        self._command: MailCommand | None = None
        self._recipients: dict[Recipient, None] = {}
        self._recipients_seen = 0
        self._text = Text(limits, budget)
        self._chunk_left = 0
        self._chunk_size = 0
        self._chunk_last = False
        self._stray_in: State | None = None

    # --- in and out ---------------------------------------------------------------------------------------------------

    def greet(self) -> None:
        """Say the banner."""
        if self.state is State.GREETING:
            self.state = State.START
            self._out.append(f"220 {self._traits.hostname} ESMTP Sternpost\r\n".encode())

    def receive(self, data: bytes) -> None:
        """Take octets from the client; any split of the same octets has the same effect."""
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        self._run(data)

    def take_output(self) -> bytes:
        """The replies since the last call."""
        out = self._out
        if not out:
            return b""
        octets = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return octets

    def take_action(self) -> Action | None:
        """What the door must do now, once."""
        action, self._action = self._action, None
        return action

    @property
    def is_full(self) -> bool:
        """More input waits than may: the door stops reading until the action is done."""
        return len(self._buffer) > self._limits.backlog

    def settled(self, reply: Reply) -> None:
        """The answer to a `Settle` action: 250 when the mail is durable."""
        self._end_transaction()
        if self._gone:
            self._close()
            return
        if reply.code < 300:
            self._errors = 0
        self._answer(reply)
        self._go_on()

    def abandon(self) -> None:
        """The other answer to a `Settle` action: none. Nobody can tell whether the mail is stored (promise P3)."""
        self._end_transaction()
        self._close()

    def lost(self) -> None:
        """The connection is gone. A mail that is being settled stays charged until it is."""
        self._gone = True
        self._buffer = b""
        if self.state is not State.SETTLING:
            self._close()

    def tls_started(self) -> None:
        """TLS protects the connection: everything said before is forgotten (RFC 3207 §4.2)."""
        self.tls, self.tls_offered = True, False
        self.helo, self.identity = "", None
        if self.state is State.HANDSHAKE:
            self.state = State.START

    def challenge(self, text: str) -> None:
        """Go on with an AUTH exchange: say this (in base64) and await a line."""
        self._out.append(f"334 {text}\r\n".encode())
        self.state = State.AUTH_LINE
        self._go_on()

    def authenticated(self, identity: Identity, reply: Reply) -> None:
        """The login was granted."""
        self.identity = identity
        self.state = State.READY
        self._answer(reply)
        self._go_on()

    def auth_failed(self, reply: Reply) -> None:
        """The login was denied, broken off or could not be verified."""
        self.state = State.READY
        self._answer(reply)
        if reply.code >= 500:
            self._auth_failures += 1
            if self._auth_failures >= self._limits.auth_failures:
                self._hang_up(421, "4.7.0", "Too many failed logins")
        self._go_on()

    def leave(self) -> None:
        """The process shuts down: an idle session ends now, a mail on its way is brought to its answer first."""
        self._leaving = True
        if self.state in _INTERACTIVE:
            self._hang_up(421, "4.3.2", "Shutting down, try again")

    def cut(self, code: int, enhanced: str, text: str) -> None:
        """End the session from outside, for time or a fault; not while a mail is settled, whose answer must be true."""
        if self.state is State.HANDSHAKE:
            self._close()
        elif self.state is not State.SETTLING:
            self._hang_up(code, enhanced, text)

    # --- the stream ---------------------------------------------------------------------------------------------------

    def _run(self, data: bytes) -> None:
        at, size = 0, len(data)
        while True:
            state = self.state
            if state is State.DATA:
                if at == size:
                    return
                taken, text = self._text.take_lines(data, at)
                self.progress += taken
                at += taken
                if text is not None:
                    self._finish(text)
            elif state is State.CHUNK:
                if at == size and self._chunk_left:
                    return
                at = self._take_chunk(data, at)
            elif state is State.CLOSED:
                return
            elif state is State.SETTLING or state is State.AUTH:
                break
            elif at == size:
                return
            elif state is State.HANDSHAKE:
                self._close()  # octets that came before TLS were put there by somebody else
            elif state is State.GREETING:
                self._hang_up(554, "5.5.0", "You talk before the greeting")
            else:
                end = data.find(b"\n", at)
                if end < 0:
                    if self._overlong or size - at > self._line_limit(data[at : at + 5]):
                        self._overlong, at = True, size
                    break
                self._take_line(data, at, end)
                at = end + 1
        self._buffer = data[at:]

    def _go_on(self) -> None:
        data, self._buffer = self._buffer, b""
        self._run(data)

    def _line_limit(self, start: bytes) -> int:
        verb = start.upper()
        if self.state is State.AUTH_LINE or verb == b"AUTH ":
            return self._limits.auth_line
        return self._limits.extended_command if verb in (b"MAIL ", b"RCPT ") else self._limits.command

    def _take_line(self, data: bytes, at: int, end: int) -> None:
        self.progress += 1
        if self._overlong or end + 1 - at > self._line_limit(data[at : at + 5]):
            self._overlong = False
            if self.state is State.AUTH_LINE:
                self.state = State.AUTH
                self._action = AuthLine(b"*")  # the exchange is over; "*" is how a client says so
                return
            self._refuse(500, "5.5.2", "The line is too long")
        elif end == at or data[end - 1] != 0x0D:
            self._refuse(500, "5.5.2", "The line ends in a bare LF; lines end in CR LF")
            self._close()
        elif self.state is State.AUTH_LINE:
            self.state = State.AUTH
            self._action = AuthLine(data[at : end - 1])
        else:
            self._take_command(data[at : end - 1], end + 1 < len(data))

    def _take_command(self, line: bytes, more: bool) -> None:
        verb, _, argument = line.partition(b" ")
        verb = verb.upper()
        handler = _HANDLERS.get(verb)
        if handler is None:
            self._unknown(verb)
            return
        target = TRANSITIONS[self.state].get(verb)
        if target is None:
            if verb == b"BDAT":
                self._stray_in = self.state
                if self._bdat(argument, more):
                    self.state = State.CHUNK
                return
            self._refuse(503, "5.5.1", OUT_OF_ORDER[self.state])
        elif handler(self, argument, more):
            self.state = target

    def _take_chunk(self, data: bytes, at: int) -> int:
        piece = data[at : at + self._chunk_left]
        self._chunk_left -= len(piece)
        self.progress += len(piece)
        if self._stray_in is None:
            self._text.take_octets(piece)
        if self._chunk_left:
            return at + len(piece)
        if self._stray_in is not None:
            self.state, self._stray_in = self._stray_in, None
            self._refuse(503, "5.5.1", OUT_OF_ORDER[self.state])
        elif self._chunk_last:
            self._finish(self._text.take_all())
        else:
            self.state = State.CHUNKED
            self._answer(self._text.failure or Reply(250, "2.0.0", f"{self._chunk_size} octets received"))
        return at + len(piece)

    def _finish(self, content: bytes) -> None:
        command = self._command
        assert command is not None  # noqa: S101 - the table lets no text in without MAIL
        envelope = Envelope(
            command.sender.text if command.sender else "",
            tuple(self._recipients),
            command.ret,
            command.envid,
            command.eight_bit or not content.isascii(),
            command.smtputf8,
        )
        verdict = self._text.judge(content) or self._host.check_content(command.sender, envelope, content)
        if isinstance(verdict, Reply):
            self._end_transaction()
            self._answer(verdict)
            return
        self.state = State.SETTLING
        self._action = Settle(envelope, content, verdict)

    def _end_transaction(self) -> None:
        self._text.reset()
        self._command = None
        self._recipients = {}
        self._recipients_seen = 0
        self._chunk_left = 0
        if self.state > State.READY:
            self.state = State.READY

    # --- replies ------------------------------------------------------------------------------------------------------

    def _say(self, reply: Reply) -> None:
        self._out.append(f"{reply}\r\n".encode())

    def _answer(self, reply: Reply) -> None:
        """Say it; count it where it is a refusal; end the session after too many."""
        self._say(reply)
        if reply.code >= 400:
            self._host.refused(reply)
            if reply.code >= 500:
                self._errors += 1
                if self._errors >= self._limits.errors:
                    self._hang_up(421, "4.7.0", "Too many errors")
                    return
        if self._leaving and self.state in _INTERACTIVE:
            self._hang_up(421, "4.3.2", "Shutting down, try again")

    def _refuse(self, code: int, enhanced: str, text: str) -> bool:
        self._answer(Reply(code, enhanced, text))
        return False

    def _hang_up(self, code: int, enhanced: str, text: str) -> None:
        if self.state is not State.CLOSED:
            reply = Reply(code, enhanced, text)
            self._say(reply)
            self._host.refused(reply)
            self._close()

    def _close(self) -> None:
        self._text.reset()
        self.state = State.CLOSED
        self._buffer = b""
        self._action = None

    def _unknown(self, verb: bytes) -> None:
        if verb in NOT_SMTP or (verb and not verb[:1].isalpha()):
            self._hang_up(554, "5.5.1", "This is an SMTP server")
        elif verb in (b"ETRN", b"TURN", b"ATRN", b"SEND", b"SOML", b"SAML"):
            self._refuse(502, "5.5.1", "Not implemented")
        else:
            self._refuse(500, "5.5.1", "Command not recognized")

    def _is_out_of_step(self, more: bool) -> bool:
        """Whether the client went on talking where it had to await our answer; it is told and hung up on."""
        if more and self._limits.forbid_unauthorized_pipelining:
            self._hang_up(554, "5.5.0", "You did not await the answer (RFC 2920)")
            return True
        return False

    # --- commands: each returns whether it was carried out ------------------------------------------------------------

    def _ehlo(self, argument: bytes, more: bool) -> bool:
        if not self._hello(argument, more):
            return False
        self.esmtp = True
        traits, limits = self._traits, self._limits
        auth = traits.auth and self.tls
        self._out.append(_capabilities(traits.hostname, limits.message, limits.recipients, self.tls_offered, auth))
        return True

    def _helo(self, argument: bytes, more: bool) -> bool:
        if self._hello(argument, more):
            self.esmtp = False
            self._out.append(f"250 {self._traits.hostname}\r\n".encode())
            return True
        return False

    def _hello(self, argument: bytes, more: bool) -> bool:
        if self._is_out_of_step(more):
            return False
        try:
            helo = parse_helo(argument)
        except SyntaxRefused as refused:
            return self._refuse(refused.code, refused.enhanced, refused.text)
        self._end_transaction()
        self.helo = helo
        return True

    def _mail(self, argument: bytes, more: bool) -> bool:
        if self._traits.auth_required and self.identity is None:
            text = "Authentication required" if self.tls else "Authentication required; use STARTTLS first"
            return self._refuse(530, "5.7.0", text)
        try:
            command = parse_mail(argument, auth=self._traits.auth)
        except SyntaxRefused as refused:
            return self._refuse(refused.code, refused.enhanced, refused.text)
        refusal: Reply | None = None
        if command.size > self._limits.message:
            refusal = too_big(self._limits)
        elif self._budget.is_spent:
            refusal = STORAGE_BUSY
        else:
            refusal = self._host.check_sender(command.sender)
        if refusal is not None:
            self._answer(refusal)
            return False
        self._command = command
        self._out.append(_SENDER_OK)
        return True

    def _rcpt(self, argument: bytes, more: bool) -> bool:
        command = self._command
        assert command is not None  # noqa: S101 - the table lets no RCPT in without MAIL
        if self._recipients_seen >= self._limits.recipients:
            return self._refuse(452, "4.5.3", f"More than {self._limits.recipients} recipients")
        try:
            address, recipient = parse_rcpt(argument, smtputf8=command.smtputf8)
        except SyntaxRefused as refused:
            return self._refuse(refused.code, refused.enhanced, refused.text)
        refusal = self._host.check_recipient(command.sender, address)
        if refusal is not None:
            self._answer(refusal)
            return False
        self._recipients_seen += 1
        self._recipients[recipient] = None  # said twice, it is delivered once
        self._out.append(_RECIPIENT_OK)
        return True

    def _data(self, argument: bytes, more: bool) -> bool:
        if argument:
            return self._refuse(501, "5.5.4", "DATA takes no argument")
        if self._is_out_of_step(more):
            return False
        if self._budget.is_spent:
            self._answer(STORAGE_BUSY)
            return False
        self._text.begin()
        self._out.append(_GO_AHEAD)
        return True

    def _bdat(self, argument: bytes, more: bool) -> bool:
        try:
            self._chunk_size, self._chunk_last = parse_bdat(argument)
        except SyntaxRefused as refused:
            self._hang_up(refused.code, refused.enhanced, refused.text)  # where the chunk ends, nobody can tell
            return False
        self._chunk_left = self._chunk_size
        return True

    def _rset(self, argument: bytes, more: bool) -> bool:
        self._end_transaction()
        self._out.append(_OK)
        return True

    def _noop(self, argument: bytes, more: bool) -> bool:
        self._out.append(_OK)
        return True

    def _vrfy(self, argument: bytes, more: bool) -> bool:
        self._out.append(b"252 2.0.0 Nothing is verified; send the mail and see\r\n")
        return True

    def _expn(self, argument: bytes, more: bool) -> bool:
        return self._refuse(502, "5.5.1", "Lists are not expanded")

    def _help(self, argument: bytes, more: bool) -> bool:
        self._out.append(b"214 2.0.0 See RFC 5321\r\n")
        return True

    def _quit(self, argument: bytes, more: bool) -> bool:
        self._out.append(b"221 2.0.0 Goodbye\r\n")
        self.ended_well = True
        self._close()
        return True

    def _starttls(self, argument: bytes, more: bool) -> bool:
        if argument:
            return self._refuse(501, "5.5.4", "STARTTLS takes no argument")
        if self.tls:
            return self._refuse(503, "5.5.1", "TLS is already in use")
        if not self.tls_offered:
            return self._refuse(454, "4.7.0", "TLS is not available now")
        if more:
            self._hang_up(554, "5.5.0", "Octets behind STARTTLS: command injection is refused")
            return False
        self._out.append(b"220 2.0.0 Ready to start TLS\r\n")
        self._action = StartTls()
        return True

    def _auth(self, argument: bytes, more: bool) -> bool:
        if not self._traits.auth:
            return self._refuse(502, "5.5.1", "AUTH is not offered here")
        if not self.tls:
            return self._refuse(538, "5.7.11", "Encryption is required for AUTH; use STARTTLS first")
        if self.identity is not None:
            return self._refuse(503, "5.5.1", "Already authenticated")
        words = argument.split()
        if not words or len(words) > 2 or not argument.isascii():
            return self._refuse(501, "5.5.4", "Syntax: AUTH mechanism [initial response]")
        mechanism = words[0].decode("ascii").upper()
        if mechanism not in MECHANISMS:
            return self._refuse(504, "5.5.4", "The mechanism is not offered; use PLAIN or LOGIN")
        self._action = Authenticate((mechanism, *(word.decode("ascii") for word in words[1:])))
        return True


_HANDLERS: dict[bytes, Callable[[Engine, bytes, bool], bool]] = {
    b"EHLO": Engine._ehlo,
    b"HELO": Engine._helo,
    b"MAIL": Engine._mail,
    b"RCPT": Engine._rcpt,
    b"DATA": Engine._data,
    b"BDAT": Engine._bdat,
    b"RSET": Engine._rset,
    b"NOOP": Engine._noop,
    b"VRFY": Engine._vrfy,
    b"EXPN": Engine._expn,
    b"HELP": Engine._help,
    b"QUIT": Engine._quit,
    b"STARTTLS": Engine._starttls,
    b"AUTH": Engine._auth,
}


@lru_cache(maxsize=64)
def _capabilities(hostname: str, message: int, recipients: int, starttls: bool, auth: bool) -> bytes:
    lines = [hostname, "PIPELINING", f"SIZE {message}", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "CHUNKING"]
    lines += ["DSN", f"LIMITS RCPTMAX={recipients}"]
    if starttls:
        lines.append("STARTTLS")
    if auth:
        lines.append("AUTH " + " ".join(MECHANISMS))
    reply = [f"250-{line}\r\n" for line in lines[:-1]]
    return "".join([*reply, f"250 {lines[-1]}\r\n"]).encode()
