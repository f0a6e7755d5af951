"""An engine with a host that says yes, and a client that feeds it: no socket, no clock."""

from sternpost_ingress.engine import Engine
from sternpost_ingress.engine_types import Action, Budget, EngineLimits, Settle, State, Traits
from sternpost_mail.address import Address
from sternpost_mail.envelope import Envelope
from sternpost_mail.headers import HeaderError, HeaderFacts, read_header
from sternpost_mail.reply import Reply

ACCEPTED = Reply(250, "2.0.0", "Accepted")


class YesHost:
    """Lets everybody in, unless `refusals` has a reply for the sender, a recipient or `content`."""

    def __init__(self) -> None:
        self.refusals: dict[str, Reply] = {}
        self.heard: list[Reply] = []

    def check_sender(self, sender: Address | None) -> Reply | None:
        """See `Host`."""
        return self.refusals.get(sender.text if sender else "<>")

    def check_recipient(self, sender: Address | None, recipient: Address) -> Reply | None:
        """See `Host`."""
        return self.refusals.get(recipient.text)

    def check_content(self, sender: Address | None, envelope: Envelope, content: bytes) -> Reply | HeaderFacts:
        """See `Host`."""
        try:
            return self.refusals.get("content") or read_header(content)
        except HeaderError as error:
            return Reply(550, "5.6.0", str(error))

    def refused(self, reply: Reply) -> None:
        """See `Host`."""
        self.heard.append(reply)


class EngineClient:
    """Feeds an engine and settles mails at once, unless `hold` is set."""

    def __init__(
        self, *, limits: EngineLimits | None = None, traits: Traits | None = None, budget: int = 1 << 30
    ) -> None:
        self.host = YesHost()
        self.budget = Budget(budget)
        self.engine = Engine(traits or Traits("mx.test"), limits or EngineLimits(), self.budget, self.host)
        self.mails: list[Settle] = []
        self.held: list[Action] = []
        self.hold = False
        self.answer = ACCEPTED

    def start(self) -> "EngineClient":
        """Greet and say EHLO."""
        self.engine.greet()
        self.say(b"EHLO client.test\r\n")
        return self

    def say(self, data: bytes) -> list[str]:
        """Send octets; the replies as `code enhanced` (code alone for those without), one per reply."""
        return replies(self.octets(data))

    def octets(self, data: bytes) -> bytes:
        """Send octets; the octets that come back."""
        self.engine.receive(data)
        out = [self.engine.take_output()]
        while (action := self.engine.take_action()) is not None:
            if isinstance(action, Settle) and not self.hold:
                self.mails.append(action)
                self.engine.settled(self.answer)
                out.append(self.engine.take_output())
            else:
                self.held.append(action)
        return b"".join(out)

    def send(self, content: bytes) -> list[str]:
        """A whole mail by DATA, the envelope in one packet."""
        before = self.say(b"MAIL FROM:<a@example.test>\r\nRCPT TO:<b@far.test>\r\nDATA\r\n")
        assert before == ["250 2.1.0", "250 2.1.5", "354"]
        return self.say(content)

    @property
    def is_closed(self) -> bool:
        """The engine has hung up."""
        return self.engine.state is State.CLOSED


def replies(octets: bytes) -> list[str]:
    """The replies in a stream of them, each as its code and enhanced code."""
    found = []
    for line in octets.decode().split("\r\n")[:-1]:
        if line[3:4] == " " or len(line) == 3:
            words = line.split(" ")
            enhanced = len(words) > 1 and words[1].count(".") == 2 and words[1].replace(".", "").isdigit()
            found.append(f"{words[0]} {words[1]}" if enhanced else words[0])
    return found
