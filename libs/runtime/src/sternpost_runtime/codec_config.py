"""Compiled configuration (proto/sternpost_wire/v1/config.proto), between octets and values.

Import it through `sternpost_runtime.codec`. Read once per change, so clarity goes before speed.
"""

from sternpost_mail.config import Certificate, Credential, CredentialKind, Domain, Generation, Resource
from sternpost_mail.retry import DEFAULT_RETRY, RetryPolicy
from sternpost_mail.route import Action, Match, RelayRule, SmartHost, TlsDemand, TlsMode
from sternpost_runtime.codec_base import CodecError, Words, decoding, encoding
from sternpost_runtime.codec_mail import LANES
from sternpost_wire.v1 import config_pb2

ACTIONS = Words("action", Action)
TLS_DEMANDS = Words("TLS demand", TlsDemand)
TLS_MODES = Words("TLS mode", TlsMode)
CREDENTIAL_KINDS = Words("kind of credential", CredentialKind)


def fill_smart_host(wire: config_pb2.SmartHost, host: SmartHost) -> None:
    """Write a smart host into its message."""
    wire.host = host.host
    wire.port = host.port
    wire.tls = host.tls
    wire.tls_mode = host.tls_mode
    wire.username = host.username
    wire.sealed_password = host.sealed_password


def read_smart_host(wire: config_pb2.SmartHost) -> SmartHost:
    """The smart host of a message."""
    return SmartHost(
        host=wire.host,
        port=wire.port,
        tls=TLS_DEMANDS[wire.tls],
        tls_mode=TLS_MODES[wire.tls_mode],
        username=wire.username,
        sealed_password=wire.sealed_password,
    )


def encode_config_entry(entry: Resource | Generation) -> bytes:
    """A value of the CONFIG bucket. Raises CodecError."""
    with encoding(f"configuration entry {type(entry).__name__}"):
        wire = config_pb2.ConfigEntry()
        match entry:
            case Domain():
                wire.domain.SetInParent()
                _fill_domain(wire.domain, entry)
            case RelayRule():
                wire.relay_rule.SetInParent()
                _fill_rule(wire.relay_rule, entry)
            case Credential():
                wire.credential.SetInParent()
                _fill_credential(wire.credential, entry)
            case Certificate():
                wire.certificate.SetInParent()
                _fill_certificate(wire.certificate, entry)
            case Generation():
                wire.generation.SetInParent()
                wire.generation.number = entry.number
                wire.generation.resources = entry.resources
        return wire.SerializeToString()


def decode_config_entry(data: bytes) -> Resource | Generation:
    """The resource, or the end of a generation, of a value of the CONFIG bucket. Raises CodecError."""
    with decoding("configuration entry"):
        wire = config_pb2.ConfigEntry.FromString(data)
    match wire.WhichOneof("resource"):
        case "domain":
            domain = wire.domain
            return Domain(domain.tenant, domain.name, domain.domain, domain.postmaster)
        case "relay_rule":
            return _read_rule(wire.relay_rule)
        case "credential":
            return _read_credential(wire.credential)
        case "certificate":
            certificate = wire.certificate
            return Certificate(
                tenant=certificate.tenant,
                name=certificate.name,
                names=tuple(certificate.names),
                chain_pem=certificate.chain_pem,
                sealed_key_pem=certificate.sealed_key_pem,
            )
        case "generation":
            return Generation(wire.generation.number, wire.generation.resources)
    raise CodecError("a configuration entry of a kind that this version does not know, or an empty one")


def _fill_domain(wire: config_pb2.Domain, domain: Domain) -> None:
    wire.tenant = domain.tenant
    wire.name = domain.name
    wire.domain = domain.domain
    wire.postmaster = domain.postmaster


def _fill_rule(wire: config_pb2.RelayRule, rule: RelayRule) -> None:
    wire.tenant = rule.tenant
    wire.name = rule.name
    wire.priority = rule.priority
    wire.match.senders.extend(rule.match.senders)
    wire.match.recipients.extend(rule.match.recipients)
    wire.match.identities.extend(rule.match.identities)
    wire.match.tags.extend(rule.match.tags)
    wire.match.networks.extend(rule.match.networks)
    wire.action = rule.action
    for host in rule.smart_hosts:
        fill_smart_host(wire.smart_hosts.add(), host)
    wire.tls = rule.tls
    wire.max_sessions = rule.max_sessions
    retry = wire.retry
    retry.SetInParent()
    retry.first = rule.retry.first
    retry.factor = rule.retry.factor
    retry.longest = rule.retry.longest
    retry.jitter = rule.retry.jitter
    retry.lifetime = rule.retry.lifetime
    retry.delay_notice = rule.retry.delay_notice
    wire.reject_text = rule.reject_text
    wire.allow_forbidden_addresses = rule.allow_forbidden_addresses


def _read_rule(wire: config_pb2.RelayRule) -> RelayRule:
    match = wire.match
    return RelayRule(
        tenant=wire.tenant,
        name=wire.name,
        priority=wire.priority,
        match=Match(
            senders=tuple(match.senders),
            recipients=tuple(match.recipients),
            identities=tuple(match.identities),
            tags=tuple(match.tags),
            networks=tuple(match.networks),
        ),
        action=ACTIONS[wire.action],
        smart_hosts=tuple([read_smart_host(host) for host in wire.smart_hosts]),
        tls=TLS_DEMANDS[wire.tls],
        max_sessions=wire.max_sessions,
        retry=_read_retry(wire.retry) if wire.HasField("retry") else DEFAULT_RETRY,
        reject_text=wire.reject_text,
        allow_forbidden_addresses=wire.allow_forbidden_addresses,
    )


def _read_retry(wire: config_pb2.RetryPolicy) -> RetryPolicy:
    return RetryPolicy(
        first=wire.first,
        factor=wire.factor,
        longest=wire.longest,
        jitter=wire.jitter,
        lifetime=wire.lifetime,
        delay_notice=wire.delay_notice,
    )


def _fill_credential(wire: config_pb2.Credential, credential: Credential) -> None:
    wire.tenant = credential.tenant
    wire.name = credential.name
    wire.kind = credential.kind
    wire.login = credential.login
    wire.secret_hash = credential.secret_hash
    wire.allowed_senders.extend(credential.allowed_senders)
    wire.lane = credential.lane


def _read_credential(wire: config_pb2.Credential) -> Credential:
    return Credential(
        tenant=wire.tenant,
        name=wire.name,
        kind=CREDENTIAL_KINDS[wire.kind],
        login=wire.login,
        secret_hash=wire.secret_hash,
        allowed_senders=tuple(wire.allowed_senders),
        lane=LANES[wire.lane],
    )


def _fill_certificate(wire: config_pb2.Certificate, certificate: Certificate) -> None:
    wire.tenant = certificate.tenant
    wire.name = certificate.name
    wire.names.extend(certificate.names)
    wire.chain_pem = certificate.chain_pem
    wire.sealed_key_pem = certificate.sealed_key_pem
