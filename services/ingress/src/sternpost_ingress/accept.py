"""Who may send what to whom: the one accept decision of the SMTP and HTTP doors, and the mail that an acceptance makes.

Pure: no clock, no await, no broker. It knows envelopes, headers and configuration; it must not know SMTP verbs or HTTP
statuses beyond the code that a refusal carries. The codes follow RFC 5321 §4.2, RFC 3463 and RFC 6409.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from sternpost_mail.address import Address, parse_address
from sternpost_mail.config import Config, Domain
from sternpost_mail.envelope import Door, Envelope, Facts, Lane, Mail, Recipient
from sternpost_mail.headers import HeaderError, HeaderFacts
from sternpost_mail.identity import Identity
from sternpost_mail.retry import DEFAULT_RETRY
from sternpost_mail.route import Action, MailTraits, RelayRule, address_matches, find_rule
from sternpost_runtime.codec import encode_facts

MAX_HOPS = 100
"""Received fields past which a mail is taken for looping (RFC 5321 §6.3 asks for at least 100)."""
MAX_REJECT_TEXT = 400
"""Characters of a rule's own text in a reply: with code and enhanced code it stays within one line of 512 octets."""
LIFETIME_MS = int(DEFAULT_RETRY.lifetime * 1000)


@dataclass(frozen=True, slots=True)
class Client:
    """Who is at the door. `address` is its IP address (after PROXY), `identity` is set once it has proved who it is."""

    door: Door
    address: str
    identity: Identity | None
    tls: bool
    helo: str
    """What it called itself, for the trace field; empty over HTTP."""
    esmtp: bool = True
    """It said EHLO rather than HELO."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why not. `text` is public; `problem` is the slug of the HTTP problem and the reason in metrics; `field` is the
    member of the HTTP request that is to blame."""

    code: int
    enhanced: str
    text: str
    problem: str
    field: str = ""

    @property
    def is_temporary(self) -> bool:
        """The same question may be answered otherwise later."""
        return self.code < 500


NOT_READY = Refusal(451, "4.3.0", "Configuration is not complete yet, try again", "not-ready")
"""Until a complete generation of the configuration was seen, nobody is let in and nobody is sent away for good."""
AUTH_REQUIRED = Refusal(530, "5.7.0", "Authentication required", "unauthenticated")
NO_POSTMASTER = Refusal(550, "5.1.1", "No domain is declared here, so nobody is postmaster", "recipient-refused", "to")
NO_LITERALS = Refusal(550, "5.1.2", "Address literals are not relayed", "recipient-refused", "to")
RELAYING_DENIED = Refusal(550, "5.7.1", "Relaying denied", "relaying-denied", "to")
TOO_MANY_HOPS = Refusal(554, "5.4.6", f"Mail loop: more than {MAX_HOPS} Received fields", "mail-loop")
FROM_MISSING = Refusal(550, "5.6.0", "The mail has no From field, RFC 5322 asks for one", "from-missing", "from")
FROM_MULTIPLE = Refusal(
    550, "5.6.0", "The mail has several From fields, RFC 5322 asks for one", "from-multiple", "from"
)


def check_sender(client: Client, sender: Address | None, config: Config) -> Refusal | None:
    """Whether the client may use a MAIL FROM; None for the address is the null reverse-path.

    A submitter may use the null path (RFC 6409 lets it, automatic replies need it): the mail is then bound by its From
    alone, which `check_content` demands in any case. At the MX door everybody may speak up to here, because the
    recipient may be postmaster.
    """
    if not config.is_complete:
        return NOT_READY
    if client.identity is None:
        return None if client.door is Door.MX else AUTH_REQUIRED
    if sender is None or _may_send(client.identity, sender, config):
        return None
    return Refusal(553, "5.7.1", f"{_subject(client, sender, config)} as MAIL FROM", "sender-not-allowed", "from")


def check_recipient(
    client: Client, sender: Address | None, recipient: Address, config: Config, *, tags: Sequence[str] = ()
) -> Refusal | None:
    """Whether the client's mail from `sender` may go to a recipient."""
    if not config.is_complete:
        return NOT_READY
    if not recipient.domain:  # a bare postmaster
        return None if config.domains else NO_POSTMASTER
    identity = client.identity
    if identity is not None:
        tenant = identity.tenant
    elif client.door is not Door.MX:
        return AUTH_REQUIRED
    elif _is_postmaster(recipient, config):
        return None
    else:
        opening = _opening_rule(client, sender, recipient, config)
        if opening is None:
            return RELAYING_DENIED
        if opening.action is Action.REJECT:
            return _rejected(opening)
        tenant = config.tenant_of(sender.domain) if sender else opening.tenant
        if not tenant and sender:
            text = f"Relaying denied: {sender.domain} is not declared here"
            return Refusal(550, "5.7.1", text, "relaying-denied", "from")
    if recipient.is_literal:
        return NO_LITERALS
    rules = config.rules_of(tenant)
    if rules:
        rule = find_rule(rules, _traits(client, sender, recipient, tuple(tags)))
        if rule is not None and rule.action is Action.REJECT:
            return _rejected(rule)
    return None


def check_content(
    client: Client, sender: Address | None, header: HeaderFacts, config: Config, envelope: Envelope | None = None
) -> Refusal | None:
    """Whether the mail's header is one that the client may send: exactly one From, every address in it theirs.

    Mail for postmaster alone is taken whatever its From says, and for that the MX door passes the envelope; without one
    the mail is taken for relayed.
    """
    if not config.is_complete:
        return NOT_READY
    if header.received_count > MAX_HOPS:
        return TOO_MANY_HOPS
    if client.identity is None:
        if client.door is not Door.MX:
            return AUTH_REQUIRED
        if envelope is not None and not _is_relayed(envelope, config):
            return None
    if header.from_fields != 1:
        return FROM_MULTIPLE if header.from_fields else FROM_MISSING
    if header.from_error:
        return Refusal(550, "5.6.0", header.from_error, "from-unreadable", "from")
    tenant = config.tenant_of(sender.domain) if sender else ""
    for text in header.from_addresses:
        author = parse_address(text)
        if client.identity is not None:
            allowed = _may_send(client.identity, author, config)
        else:
            # A trusted network speaks for one tenant at a time: the one whose domain stands in MAIL FROM.
            owner = config.tenant_of(author.domain)
            allowed = bool(owner) and owner == (tenant or owner)
            tenant = tenant or owner
        if not allowed:
            return Refusal(550, "5.7.1", f"{_subject(client, author, config)} in From", "from-not-allowed", "from")
    return None


def refuse_header(error: HeaderError) -> Refusal:
    """A header that cannot be taken from anybody, as a refusal."""
    text = str(error)
    return Refusal(550, "5.6.0", text[:1].upper() + text[1:], "header-invalid")


def make_mail(
    client: Client,
    envelope: Envelope,
    content: bytes,
    header: HeaderFacts,
    config: Config,
    *,
    mail_id: str,
    now_ms: int,
    hostname: str,
    tags: tuple[str, ...] = (),
    metadata: tuple[tuple[str, str], ...] = (),
    not_before_ms: int = 0,
    traceparent: str = "",
) -> Mail:
    """The mail of an accepted transaction: its content with our trace field, and Date and Message-ID where they are
    missing, on top. No other octet changes. Times are milliseconds since the epoch.

    Mail for postmaster that came in by the MX door goes on to where the domain wants it.
    """
    identity = client.identity
    if identity is not None:
        tenant, lane = identity.tenant, identity.lane
        if not all("@" in recipient.address for recipient in envelope.recipients):
            envelope = _redirect_postmaster(client, envelope, config, hostname)
    else:
        tenant, lane = _tenant_by_network(client, envelope, config, hostname), Lane.NORMAL
        envelope = _redirect_postmaster(client, envelope, config, hostname)
    top = _received(client, envelope, mail_id, now_ms, hostname)
    if not header.has_date:
        top += f"Date: {_date(now_ms // 1000)}\r\n"
    message_id = header.message_id
    if not header.has_message_id:
        author = header.from_addresses[0] if header.from_addresses else ""
        message_id = f"<{mail_id}@{parse_address(author).domain.strip('[]') if author else hostname}>"
        top += f"Message-ID: {message_id}\r\n"
    content = top.encode() + content
    if header.eight_bit and not envelope.eight_bit:
        envelope = replace(envelope, eight_bit=True)
    facts = Facts(
        door=client.door,
        client=client.address,
        header_from=", ".join(header.from_addresses[:4]),
        message_id=message_id,
        subject=header.subject,
        metadata=metadata,
        recipients=tuple([recipient.address for recipient in envelope.recipients]),
    )
    return Mail(
        id=mail_id,
        tenant=tenant,
        lane=lane,
        envelope=envelope,
        size=len(content),
        content=content,
        accepted_ms=now_ms,
        expires_ms=max(now_ms, not_before_ms) + LIFETIME_MS,
        not_before_ms=not_before_ms,
        identity=identity.name if identity else "",
        tags=tags,
        traceparent=traceparent,
        facts=encode_facts(facts),
    )


# --- whose address is it ----------------------------------------------------------------------------------------------


def _may_send(identity: Identity, address: Address, config: Config) -> bool:
    """The domain is declared by the identity's tenant (exactly it: a subdomain is declared on its own) and the
    credential is for it."""
    if config.tenant_of(address.domain) != identity.tenant or not identity.tenant:
        return False
    return not identity.allowed_senders or address_matches(identity.allowed_senders, _plain(address))


def _plain(address: Address | None) -> str:
    """The address as rules compare it: domain in lower-case A-labels; empty for the null reverse-path."""
    return f"{address.local}@{address.domain}" if address else ""


def _subject(client: Client, address: Address, config: Config) -> str:
    # Says which of the two is missing to who owns the domain only: whether another tenant has it is not told.
    identity = client.identity
    if identity is not None and config.tenant_of(address.domain) == identity.tenant:
        return f"This credential may not use {_line(_plain(address))}"
    return f"The domain {_line(address.domain)} is not declared for you, it cannot be used"


def _is_postmaster(recipient: Address, config: Config) -> bool:
    return recipient.local.lower() == "postmaster" and (not recipient.domain or recipient.domain in config.domains)


def _parsed(recipient: Recipient) -> Address:
    return parse_address(recipient.address, allow_bare_postmaster=True)


def _is_relayed(envelope: Envelope, config: Config) -> bool:
    return not all(_is_postmaster(_parsed(recipient), config) for recipient in envelope.recipients)


# --- rules ------------------------------------------------------------------------------------------------------------


def _traits(client: Client, sender: Address | None, recipient: Address, tags: tuple[str, ...] = ()) -> MailTraits:
    identity = client.identity.name if client.identity else ""
    return MailTraits(_plain(sender), _plain(recipient), identity, tags, client.address)


def _opening_rule(client: Client, sender: Address | None, recipient: Address, config: Config) -> RelayRule | None:
    """The rule of the release namespace that lets the client's network relay this, if one does."""
    if not config.network_rules:
        return None
    return find_rule(config.network_rules, _traits(client, sender, recipient))


def _rejected(rule: RelayRule) -> Refusal:
    text = _line(rule.reject_text) or "Rejected by the rule for this recipient"
    return Refusal(550, "5.7.1", text[:MAX_REJECT_TEXT], "rejected-by-rule", "to")


_NOT_IN_REPLY = re.compile(r"[^ -~]+")


def _line(text: str) -> str:
    """Text for one line of a reply (RFC 5321 §4.2): printable ASCII, so nothing in it can end the line."""
    return _NOT_IN_REPLY.sub("?", text).strip()


# --- making the mail --------------------------------------------------------------------------------------------------


def _redirect_postmaster(client: Client, envelope: Envelope, config: Config, hostname: str) -> Envelope:
    found: list[Recipient] = []
    for recipient in envelope.recipients:
        address = _parsed(recipient)
        if _is_postmaster(address, config) and (client.door is Door.MX or not address.domain):
            domain = config.domains.get(address.domain) or _home_domain(config, hostname)
            if domain is not None:
                recipient = replace(recipient, address=domain.postmaster or f"postmaster@{domain.domain}")
        if not any(other.address == recipient.address for other in found):
            found.append(recipient)
    return replace(envelope, recipients=tuple(found))


def _home_domain(config: Config, hostname: str) -> Domain | None:
    """Whose postmaster a bare `postmaster` is: the declared domain that our own name is in, else the first by name."""
    labels = hostname.lower().split(".")
    for at in range(len(labels)):
        if domain := config.domains.get(".".join(labels[at:])):
            return domain
    return config.domains[min(config.domains)] if config.domains else None


def _tenant_by_network(client: Client, envelope: Envelope, config: Config, hostname: str) -> str:
    """The tenant that a mail without identity belongs to.

    A relayed one is the sender's, or with the null path the release namespace's, whose rule opened the door. One for
    postmasters alone is theirs: what a stranger wrote as MAIL FROM proves nothing.
    """
    recipients = [_parsed(recipient) for recipient in envelope.recipients]
    relayed = [recipient for recipient in recipients if not _is_postmaster(recipient, config)]
    if relayed and envelope.sender:
        return config.tenant_of(parse_address(envelope.sender).domain)
    if relayed:
        rule = _opening_rule(client, None, relayed[0], config)
        return rule.tenant if rule else ""
    domain = config.domains.get(recipients[0].domain) or _home_domain(config, hostname)
    return domain.tenant if domain else ""


_HELO = re.compile(r"[A-Za-z0-9.:_\[\]-]{1,255}")


def _received(client: Client, envelope: Envelope, mail_id: str, now_ms: int, hostname: str) -> str:
    """Our trace field (RFC 5321 §4.4). With several recipients it names none: each would see the others."""
    address = f"[IPv6:{client.address}]" if ":" in client.address else f"[{client.address or 'unknown'}]"
    helo = client.helo if _HELO.fullmatch(client.helo) else address
    only = envelope.recipients[0].address if len(envelope.recipients) == 1 else ""
    target = f"\r\n\tfor <{only}>" if only and (only.isascii() or envelope.smtputf8) else ""
    return (
        f"Received: from {helo} ({address})\r\n"
        f"\tby {hostname} with {_protocol(client, envelope)} id {mail_id}{target};\r\n"
        f"\t{_date(now_ms // 1000)}\r\n"
    )


def _protocol(client: Client, envelope: Envelope) -> str:
    """The name of the protocol in the IANA registry of mail transmission types (RFC 3848, RFC 6531 §4.3)."""
    if client.door is Door.HTTP:
        return "HTTPS" if client.tls else "HTTP"
    if not client.esmtp:
        return "SMTP"
    base = "UTF8SMTP" if envelope.smtputf8 else "ESMTP"
    return base + ("S" if client.tls else "") + ("A" if client.identity else "")


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@lru_cache(maxsize=8)
def _date(seconds: int) -> str:
    """RFC 5322 §3.3, in UTC; the locale has no say."""
    at = time.gmtime(seconds)
    return (
        f"{_DAYS[at.tm_wday]}, {at.tm_mday:02} {_MONTHS[at.tm_mon - 1]} {at.tm_year} "
        f"{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02} +0000"
    )
