"""From a mail to what must be done for each of its recipients: the rule that matches and the route that it gives. Pure.

Knows rules and addresses; knows neither DNS (a direct recipient's site is asked for by domain) nor time.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from sternpost_mail.address import AddressError, parse_domain
from sternpost_mail.config import Config
from sternpost_mail.dispatch import Route
from sternpost_mail.envelope import Mail
from sternpost_mail.retry import DEFAULT_RETRY, RetryPolicy
from sternpost_mail.route import Action, MailTraits, RelayRule, find_rule


class Fate(StrEnum):
    """What becomes of a recipient before any attempt."""

    SEND = "send"
    REJECT = "reject"
    HOLD = "hold"
    DISCARD = "discard"


@dataclass(frozen=True, slots=True)
class Step:
    """Recipients of one mail that share a fate, and for those to be sent a way."""

    fate: Fate
    recipients: tuple[int, ...]
    addresses: tuple[str, ...]
    """The address of each as it goes on the wire (a domain's postmaster may live elsewhere)."""
    domain: str = ""
    """The recipient domain whose MX is the site; empty where smart hosts are."""
    rule: RelayRule | None = None

    @property
    def retry(self) -> RetryPolicy:
        """The policy by which this step's failures are tried again."""
        return self.rule.retry if self.rule is not None else DEFAULT_RETRY

    @property
    def reject_text(self) -> str:
        """The reply for a rejected recipient."""
        text = self.rule.reject_text if self.rule is not None else ""
        return f"550 5.7.1 {text or 'refused by a relay rule'}"


def expand(mail: Mail, recipients: Iterable[int], config: Config, client: str = "") -> list[Step]:
    """The steps of a mail for the given indexes of its recipients, in the order of their first recipient.

    Recipients of one rule with smart hosts share a step whatever their domains are; direct ones are grouped by domain.
    """
    rules = config.rules_of(mail.tenant)
    sender = _as_compared(mail.envelope.sender)
    found: dict[tuple[str, str, Fate], tuple[RelayRule | None, list[int], list[str]]] = {}
    for index in recipients:
        address = wire_address(mail.envelope.recipients[index].address, config)
        compared = _as_compared(address)
        rule = find_rule(rules, MailTraits(sender, compared, mail.identity, mail.tags, client)) if rules else None
        fate = _FATES[rule.action] if rule is not None else Fate.SEND
        smart = rule is not None and rule.action is Action.SMART_HOST
        domain = "" if smart or fate is not Fate.SEND else compared.rpartition("@")[2].lower()
        key = (rule.name if rule is not None else "", domain, fate)
        group = found.get(key)
        if group is None:
            found[key] = (rule, [index], [address])
        else:
            group[1].append(index)
            group[2].append(address)
    return [
        Step(fate, tuple(indexes), tuple(addresses), domain, rule)
        for (_, domain, fate), (rule, indexes, addresses) in found.items()
    ]


_FATES = {
    Action.DIRECT: Fate.SEND,
    Action.SMART_HOST: Fate.SEND,
    Action.REJECT: Fate.REJECT,
    Action.HOLD: Fate.HOLD,
    Action.DISCARD: Fate.DISCARD,
}


def _as_compared(address: str) -> str:
    """The address with its domain in A-labels, as rules are written: no rule is evaded by another spelling."""
    local, at, domain = address.rpartition("@")
    if domain.isascii():
        return address
    try:
        return f"{local}{at}{parse_domain(domain)}"
    except AddressError:
        return address  # the door let it in; its attempt will tell what is wrong with it


def wire_address(address: str, config: Config) -> str:
    """The address to which mail for a recipient really goes: a declared domain may say where its postmaster lives."""
    local, _, domain = address.rpartition("@")
    if local.lower() == "postmaster":
        declared = config.domains.get(domain.lower())
        if declared is not None and declared.postmaster:
            return declared.postmaster
    return address


def route_of(step: Step) -> Route:
    """How delivery reaches the step's site."""
    rule = step.rule
    if rule is None:
        return Route(domain=step.domain)
    return Route(
        domain=step.domain,
        smart_hosts=rule.smart_hosts,
        tls=rule.tls,
        allow_forbidden_addresses=rule.allow_forbidden_addresses,
    )


def smart_site(rule: RelayRule) -> str:
    """The site name of a rule's smart hosts: their names and ports, sorted, as an MX set would be."""
    return ",".join(sorted(f"{host.host}:{host.port}" for host in rule.smart_hosts))
