"""From manifests to configuration: `compile_manifests` decides, object by object, what every service will see.

Pure but for the functions in `Crypto`, which are passed in. It reads no file, no clock and no broker. What cannot be
used is left out with a Problem of its own; the rest is compiled all the same. No secret leaves in clear: passwords as
argon2id hashes, API keys as SHA-256, private keys and smart hosts' passwords sealed to the one service that needs them.
"""

import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TypeVar

from sternpost_mail.config import (
    Certificate,
    Credential,
    CredentialKind,
    Domain,
    Resource,
    seal_context_certificate,
)
from sternpost_mail.credentials import hash_api_key
from sternpost_mail.envelope import Lane
from sternpost_mail.retry import RetryPolicy
from sternpost_mail.route import Match, RelayRule, SmartHost, seal_context_smart_host
from sternpost_operator.certificates import CertificateError, KeyPair, is_current, make_self_signed, read_pair
from sternpost_operator.hashing import hash_password, still_fits
from sternpost_operator.manifests import (
    CredentialManifest,
    CredentialType,
    DomainManifest,
    LaneName,
    Manifest,
    RelayRuleManifest,
    SecretManifest,
    SecretUse,
    SmartHostSpec,
    TLSCertificateManifest,
)
from sternpost_operator.problems import FieldError, Origin, Problem, Reason
from sternpost_operator.secrets import (
    KEY_CHAIN,
    KEY_PASSWORD,
    KEY_PRIVATE,
    KEY_USERNAME,
    ObjectKey,
    Secrets,
    SecretValues,
    generate_missing,
    text_of,
)
from sternpost_operator.state import Sealed, State
from sternpost_runtime.sealed import key_id, seal

RELEASE_NAMESPACE = "sternpost"
"""The administrator's namespace, unless the installation says otherwise."""

_LANES = {LaneName.EXPRESS: Lane.EXPRESS, LaneName.NORMAL: Lane.NORMAL, LaneName.BULK: Lane.BULK}
_UNDATED = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Declared:
    """One manifest and where it came from."""

    origin: Origin
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class PublicKeys:
    """The services' public keys, 32 octets each, to which secrets are sealed."""

    ingress: bytes
    delivery: bytes


@dataclass(frozen=True, slots=True)
class Crypto:
    """What the compiler needs that is random or slow."""

    hash_password: Callable[[str], str] = hash_password
    still_fits: Callable[[str, str], bool] = still_fits
    """(hash, password) -> whether the hash may stay."""
    seal: Callable[[bytes, bytes, str], bytes] = seal
    """(public key, data, context) -> sealed."""
    make_self_signed: Callable[[tuple[str, ...], datetime], KeyPair] = make_self_signed


@dataclass(frozen=True, slots=True, repr=False)
class Compiled:
    """What came of a set of manifests."""

    resources: tuple[Resource, ...]
    """In the order of kind, tenant, name; the same manifests and state give the same resources."""
    generated: Mapping[ObjectKey, SecretValues]
    """Generated Secrets in clear, by (namespace, Secret name): `username` and `password`, or `apiKey`."""
    errors: tuple[Problem, ...]
    """One or more for each object that was left out."""
    state: State
    """To be kept for the next compilation, whether there were errors or not."""


@dataclass(slots=True)
class _Work:
    """One compilation under way."""

    secrets: Secrets
    state: State
    keys: PublicKeys
    release_namespace: str
    crypto: Crypto
    now: datetime
    hashes: dict[ObjectKey, str] = field(default_factory=dict)
    certificates: dict[ObjectKey, KeyPair] = field(default_factory=dict)
    sealed: dict[str, Sealed] = field(default_factory=dict)

    def seal(self, public_key: bytes, data: bytes, context: str, place: str) -> bytes:
        """Seal, or keep what was sealed at this place when nothing about it changed."""
        slot = f"{key_id(public_key).hex()} {place}"
        fingerprint = self.state.fingerprint(public_key, data, context)
        kept = self.state.sealed.get(slot)
        if kept is None or kept.fingerprint != fingerprint:
            kept = Sealed(fingerprint, self.crypto.seal(public_key, data, context))
        self.sealed[slot] = kept
        return kept.value


def compile_manifests(
    declared: Sequence[Declared],
    state: State,
    keys: PublicKeys,
    *,
    now: datetime,
    release_namespace: str = RELEASE_NAMESPACE,
    crypto: Crypto | None = None,
) -> Compiled:
    """Compile every object that can be compiled; `now` decides on renewals and has a time zone."""
    problems: list[Problem] = []
    unique = _first_of_each(declared, _object_key, _twice, problems)
    unique = _first_of_each(unique, _domain_name, _domain_taken, problems)
    unique = _first_of_each(unique, _secret_written, _secret_taken, problems)
    all_credentials = [item.manifest for item in unique if isinstance(item.manifest, CredentialManifest)]
    generated = generate_missing(all_credentials, state.generated)
    given = {item.manifest.key: item.manifest for item in unique if isinstance(item.manifest, SecretManifest)}
    work = _Work(Secrets(given, generated), state, keys, release_namespace, crypto or Crypto(), now)

    made: list[tuple[Declared, Resource]] = []
    for item in unique:
        if isinstance(item.manifest, SecretManifest):
            continue
        try:
            made.append((item, _compile(item.manifest, work)))
        except FieldError as wrong:
            problems.append(Problem(item.origin, item.manifest.subject, wrong.field, wrong.text, wrong.reason))
    made = _first_logins(made, problems)

    keys_declared = {(item.manifest.KIND, item.manifest.key) for item in declared}
    next_state = replace(
        state,
        generated=generated,
        hashes=_still("Credential", state.hashes, keys_declared) | work.hashes,
        certificates=_still("TLSCertificate", state.certificates, keys_declared) | work.certificates,
        sealed=work.sealed,
    )
    resources = sorted((resource for _, resource in made), key=lambda r: (type(r).__name__, r.tenant, r.name))
    return Compiled(tuple(resources), generated, tuple(problems), next_state)


def _compile(manifest: Manifest, work: _Work) -> Resource:
    match manifest:
        case DomainManifest():
            spec = manifest.spec
            return Domain(manifest.metadata.namespace, manifest.metadata.name, spec.name, spec.postmaster or "")
        case RelayRuleManifest():
            return _rule(manifest, work)
        case TLSCertificateManifest():
            return _certificate(manifest, work)
        case CredentialManifest():
            return _credential(manifest, work)
        case SecretManifest():
            raise AssertionError("a Secret is no configuration of its own")


def _rule(manifest: RelayRuleManifest, work: _Work) -> RelayRule:
    tenant, name, spec = manifest.metadata.namespace, manifest.metadata.name, manifest.spec
    _only_release(work, tenant, "spec.match.networks", bool(spec.match.networks))
    _only_release(work, tenant, "spec.allowPrivateAddresses", spec.allow_private_addresses)
    hosts = []
    for index, host in enumerate(spec.smart_hosts):
        try:
            hosts.append(_smart_host(host, tenant, name, work, private=spec.allow_private_addresses))
        except FieldError as wrong:
            raise wrong.within(f"spec.smartHosts[{index}]") from wrong
    match, retry = spec.match, spec.retry
    return RelayRule(
        tenant=tenant,
        name=name,
        priority=spec.priority,
        match=Match(
            tuple(match.senders),
            tuple(match.recipients),
            tuple(match.identities),
            tuple(match.tags),
            tuple(match.networks),
        ),
        action=spec.action,
        smart_hosts=tuple(hosts),
        tls=spec.tls,
        max_sessions=spec.max_sessions,
        retry=RetryPolicy(retry.first, retry.factor, retry.longest, retry.jitter, retry.lifetime, retry.delay_notice),
        reject_text=spec.reject_text,
        allow_forbidden_addresses=spec.allow_private_addresses,
    )


def _only_release(work: _Work, tenant: str, field_path: str, used: bool) -> None:
    if used and tenant != work.release_namespace:
        text = f"is the administrator's: it counts in namespace {work.release_namespace} only"
        raise FieldError(field_path, text, Reason.NOT_PERMITTED)


def _smart_host(spec: SmartHostSpec, tenant: str, rule: str, work: _Work, *, private: bool) -> SmartHost:
    if not private and _is_private(spec.host):
        text = "is not a public address; only a rule with allowPrivateAddresses: true may connect to it"
        raise FieldError("host", text, Reason.NOT_PERMITTED)
    host = SmartHost(spec.host, spec.port, spec.tls, spec.tls_mode)
    if spec.auth is None:
        return host
    path = "auth.secretRef.name"
    values = work.secrets.read(
        tenant, spec.auth.secret_ref.name, SecretUse.SMTP_AUTH, [KEY_USERNAME, KEY_PASSWORD], path
    )
    host = replace(host, username=text_of(values, KEY_USERNAME, path))
    password = text_of(values, KEY_PASSWORD, path).encode()
    context = seal_context_smart_host(host)
    return replace(host, sealed_password=work.seal(work.keys.delivery, password, context, f"{tenant}/{rule} {context}"))


def _is_private(host: str) -> bool:
    # Names are judged by delivery after resolution; an address can be judged here, where its author sees it at once.
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _certificate(manifest: TLSCertificateManifest, work: _Work) -> Certificate:
    tenant, name, spec = manifest.metadata.namespace, manifest.metadata.name, manifest.spec
    _only_release(work, tenant, "metadata.namespace", used=True)
    names = tuple(dict.fromkeys(spec.dns_names))
    if spec.secret_ref is not None:
        path = "spec.secretRef.name"
        values = work.secrets.read(tenant, spec.secret_ref.name, SecretUse.TLS, [KEY_CHAIN, KEY_PRIVATE], path)
        try:
            pair = read_pair(values[KEY_CHAIN], values[KEY_PRIVATE], names)
        except CertificateError as error:
            raise FieldError(path, str(error), Reason.SECRET_UNUSABLE) from error
    else:
        kept = work.state.certificates.get(manifest.key)
        current = kept is not None and is_current(kept, names, work.now)
        pair = kept if kept is not None and current else work.crypto.make_self_signed(names, work.now)
        work.certificates[manifest.key] = pair
    context = seal_context_certificate(tenant, name)
    return Certificate(
        tenant, name, names, pair.chain_pem, work.seal(work.keys.ingress, pair.key_pem, context, context)
    )


def _credential(manifest: CredentialManifest, work: _Work) -> Credential:
    tenant, name, spec = manifest.metadata.namespace, manifest.metadata.name, manifest.spec
    login, secret = work.secrets.credential(manifest)
    if spec.type is CredentialType.API_KEY:
        kind, secret_hash = CredentialKind.API_KEY, hash_api_key(secret)
    else:
        kind = CredentialKind.SMTP_PASSWORD
        kept = work.state.hashes.get(manifest.key, "")
        if kept and work.crypto.still_fits(kept, secret):
            secret_hash = kept
        else:
            secret_hash = work.crypto.hash_password(secret)
        work.hashes[manifest.key] = secret_hash
    return Credential(tenant, name, kind, login, secret_hash, tuple(spec.allowed_senders), _LANES[spec.lane])


# --- who was first ---------------------------------------------------------------------------------------------------


def _age(item: Declared) -> tuple[datetime, str, str]:
    """Older objects first; those without a creation time after all others, by namespace and name."""
    metadata = item.manifest.metadata
    return metadata.creation_timestamp or _UNDATED, metadata.namespace, metadata.name


def _first_of_each(
    items: Iterable[Declared],
    claim: Callable[[Manifest], object],
    explain: Callable[[Declared, Declared], tuple[str, str]],
    problems: list[Problem],
) -> list[Declared]:
    """The items without those whose claim (None: none) an older one has; each of these gets a problem."""
    holders: dict[object, Declared] = {}
    kept: list[Declared] = []
    for item in sorted(items, key=_age):
        wanted = claim(item.manifest)
        holder = holders.setdefault(wanted, item) if wanted is not None else item
        if holder is item:
            kept.append(item)
            continue
        path, text = explain(item, holder)
        problems.append(Problem(item.origin, item.manifest.subject, path, text, Reason.CONFLICTED))
    return kept


def _object_key(manifest: Manifest) -> object:
    return manifest.KIND, manifest.key


def _twice(_item: Declared, holder: Declared) -> tuple[str, str]:
    return "metadata.name", f"is declared twice; the other is in {holder.origin}"


def _domain_name(manifest: Manifest) -> object:
    return manifest.spec.name if isinstance(manifest, DomainManifest) else None


def _domain_taken(item: Declared, holder: Declared) -> tuple[str, str]:
    return "spec.name", f"the domain is already declared by {_whose(item, holder)}"


def _secret_written(manifest: Manifest) -> object:
    if isinstance(manifest, CredentialManifest) and manifest.spec.write_secret_to is not None:
        return manifest.metadata.namespace, manifest.spec.secret_name
    return None


def _secret_taken(_item: Declared, holder: Declared) -> tuple[str, str]:
    return "spec.writeSecretTo.name", f"{holder.manifest.subject} writes to that Secret; give each its own"


def _whose(item: Declared, holder: Declared) -> str:
    # The other tenant's object is none of this one's business.
    same = item.manifest.metadata.namespace == holder.manifest.metadata.namespace
    return holder.manifest.subject if same else "another namespace, which was first"


def _first_logins(made: list[tuple[Declared, Resource]], problems: list[Problem]) -> list[tuple[Declared, Resource]]:
    """A login means one credential in the whole installation; the items are in the order of their age."""
    holders: dict[str, Declared] = {}
    kept: list[tuple[Declared, Resource]] = []
    for item, resource in made:
        if isinstance(resource, Credential):
            holder = holders.setdefault(resource.login, item)
            if holder is not item:
                is_key = resource.kind is CredentialKind.API_KEY
                path = "spec.secretRef.name" if is_key else "spec.username"
                what = "an API key with the same public part" if is_key else "the same username"
                text = f"{what} is already used by {_whose(item, holder)}; choose another"
                problems.append(Problem(item.origin, item.manifest.subject, path, text, Reason.CONFLICTED))
                continue
        kept.append((item, resource))
    return kept


V = TypeVar("V")


def _still(kind: str, remembered: Mapping[ObjectKey, V], declared: set[tuple[str, ObjectKey]]) -> dict[ObjectKey, V]:
    return {key: value for key, value in remembered.items() if (kind, key) in declared}
