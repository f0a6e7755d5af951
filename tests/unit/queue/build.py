"""Mails and jobs for the tests of the queue, with only what a test cares for spelt out."""

from sternpost_mail.config import Config, Domain, build_config
from sternpost_mail.dispatch import Route
from sternpost_mail.envelope import Envelope, Lane, Mail, Recipient, Ret
from sternpost_mail.retry import DEFAULT_RETRY
from sternpost_mail.route import RelayRule
from sternpost_queue.active import ActiveJob, ActiveMail, Site

NOW = 1_760_000_000_000
"""A moment in 2025, milliseconds since the epoch."""
CONTENT = b"From: a@sender.example\r\nSubject: hello\r\n\r\nbody\r\n"


def make_mail(
    *recipients: str | Recipient,
    identifier: str = "m1",
    tenant: str = "team-a",
    sender: str = "a@sender.example",
    lane: Lane = Lane.NORMAL,
    content: bytes = CONTENT,
    ret: Ret = Ret.DEFAULT,
    envid: str = "",
    tags: tuple[str, ...] = (),
    identity: str = "",
    smtputf8: bool = False,
) -> Mail:
    """A mail to these recipients."""
    known = tuple(r if isinstance(r, Recipient) else Recipient(r) for r in recipients or ("b@there.example",))
    return Mail(
        id=identifier,
        tenant=tenant,
        lane=lane,
        envelope=Envelope(sender, known, ret, envid, smtputf8=smtputf8),
        size=len(content),
        content=content,
        accepted_ms=NOW,
        expires_ms=NOW + 5 * 86_400_000,
        identity=identity,
        tags=tags,
    )


def make_site(key: str = "/mx.there.example", max_sessions: int = 20) -> Site:
    """A site of this key."""
    return Site(key, key.rpartition("/")[2], Route(domain="there.example"), max_sessions)


def make_job(
    site: Site, identifier: str = "m1", *, tenant: str = "team-a", lane: Lane = Lane.NORMAL, size: int = 100
) -> ActiveJob:
    """A job for a site with one recipient."""
    mail = make_mail(identifier=identifier, tenant=tenant, lane=lane, content=b"x" * size)
    return ActiveJob(ActiveMail(mail, "r1", None), site, (0,), ("b@there.example",), DEFAULT_RETRY)


def make_config(*resources: RelayRule | Domain) -> Config:
    """The configuration of these resources."""
    return build_config(resources, 1, "sternpost")
