"""Puts a compiled configuration into the CONFIG bucket, so that a reader never takes half of it for the whole.

Changed values first, then what is no longer declared, and the generation last. Only the compiler's own user may write
there. This file decides nothing about what a resource means.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sternpost_mail.config import Certificate, Credential, Domain, Generation, Resource
from sternpost_mail.route import RelayRule
from sternpost_runtime.bus import Bus, Conflict
from sternpost_runtime.codec import CodecError, decode_config_entry, encode_config_entry
from sternpost_runtime.config import GENERATION_KEY
from sternpost_runtime.subjects import BUCKET_CONFIG

MAX_REMOVED_SHARE = 0.2
"""More than a fifth at once is rather a wrong directory or an incomplete list than a wish."""

_KINDS: dict[type[Resource], str] = {
    Domain: "domain",
    RelayRule: "relayrule",
    Credential: "credential",
    Certificate: "certificate",
}
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


class PublishError(Exception):
    """The configuration was not published; the text says why and what to do. The bus's own errors pass unchanged."""


class MassRemovalError(PublishError):
    """Too much would be removed at once, and nobody said that it is meant."""


@dataclass(frozen=True, slots=True)
class Published:
    """What a publish did."""

    generation: int
    """The number that is valid now."""
    written: tuple[str, ...]
    """Keys whose value is new or changed."""
    removed: tuple[str, ...]

    @property
    def changed(self) -> bool:
        """Whether anything was different."""
        return bool(self.written or self.removed)


def config_key(resource: Resource) -> str:
    """The resource's key: `<kind>.<tenant>.<name>`, each part one token; other characters (dots too) as `=XX`."""
    return ".".join((_KINDS[type(resource)], _token(resource.tenant), _token(resource.name)))


def _token(text: str) -> str:
    return "".join(c if c in _PLAIN else "".join(f"={octet:02X}" for octet in c.encode()) for c in text)


async def publish(bus: Bus, resources: Sequence[Resource], *, allow_mass_removal: bool = False) -> Published:
    """Make CONFIG hold exactly these resources, and return what was done; nothing is written when nothing differs.

    Call it only with the resources of a compilation without errors. Raises MassRemovalError before anything was written
    when more than a fifth would go, PublishError when another publisher was at work, and BusError. After an error
    halfway readers keep what they have or see some of the new values; the next publish completes it.
    """
    bucket = bus.bucket(BUCKET_CONFIG)
    wanted = {config_key(resource): encode_config_entry(resource) for resource in resources}
    if len(wanted) != len(resources):
        raise PublishError("two resources have the same kind, namespace and name")
    before = await bucket.get(GENERATION_KEY)
    current = await bucket.items()
    last = _generation(current.pop(GENERATION_KEY, None))
    changed = sorted(key for key, value in wanted.items() if current.get(key) != value)
    removed = sorted(key for key in current if key not in wanted)
    if not allow_mass_removal and len(removed) > MAX_REMOVED_SHARE * len(current):
        some = ", ".join(removed[:5]) + (", ..." if len(removed) > 5 else "")
        raise MassRemovalError(
            f"{len(removed)} of {len(current)} resources would be removed ({some}), more than a fifth: "
            "nothing was changed; say that it is meant, or check which manifests were read"
        )
    if not changed and not removed and last.number > 0 and last.resources == len(wanted):
        return Published(last.number, (), ())
    for key in changed:
        await bucket.put(key, wanted[key])
    for key in removed:
        await bucket.delete(key)
    number = last.number + 1
    value = encode_config_entry(Generation(number, len(wanted)))
    try:
        if before is None:
            await bucket.create(GENERATION_KEY, value)
        else:
            await bucket.update(GENERATION_KEY, value, before.revision)
    except Conflict as conflict:
        raise PublishError("another publish was under way; run it again") from conflict
    return Published(number, tuple(changed), tuple(removed))


def _generation(value: bytes | None) -> Generation:
    if value is None:
        return Generation(0, 0)
    try:
        entry = decode_config_entry(value)
    except CodecError as error:
        raise PublishError(f"the key {GENERATION_KEY} in CONFIG is not readable: {error}") from error
    if not isinstance(entry, Generation):
        raise PublishError(f"the key {GENERATION_KEY} in CONFIG holds something else")
    return entry
