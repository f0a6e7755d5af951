"""What becomes of manifests: hashes and sealed values, who was first, who may what; nothing changes by itself."""

from datetime import timedelta

import pytest
import trustme
from cryptography import x509

from sternpost_mail.config import (
    Certificate,
    Credential,
    CredentialKind,
    Domain,
    seal_context_certificate,
)
from sternpost_mail.credentials import api_key_login, hash_api_key
from sternpost_mail.envelope import Lane
from sternpost_mail.route import RelayRule, SmartHost, TlsDemand, seal_context_smart_host
from sternpost_operator.compile import Crypto
from sternpost_operator.problems import Reason
from sternpost_runtime.sealed import SealError, open_sealed
from tests.unit.operator.samples import (
    API_KEY,
    DELIVERY_PRIVATE,
    INGRESS_PRIVATE,
    NOW,
    compiled,
    obj,
    secret,
)

SELF_SIGNED = obj("TLSCertificate", "{dnsNames: [localhost, '*.example.com'], selfSigned: {}}")
AUTH_HOST = "{action: SmartHost, smartHosts: [{host: relay.example, port: 587, auth: {secretRef: {name: the-secret}}}]}"
SMTP = "{type: SMTPPassword, username: alice, secretRef: {name: the-secret}, lane: Bulk, allowedSenders: [Example.com]}"
GIVEN = secret("{username: alice, password: hunter2}")


def only(kind: type, *texts: str) -> object:
    result = compiled(*texts)
    assert not result.errors
    (found,) = (resource for resource in result.resources if isinstance(resource, kind))
    return found


def test_a_smart_hosts_password_opens_for_delivery_and_nobody_else() -> None:
    rule = only(RelayRule, obj("RelayRule", AUTH_HOST), secret("{username: bob, password: hunter2}"))
    assert isinstance(rule, RelayRule)
    (host,) = rule.smart_hosts
    assert (host.username, host.tls) == ("bob", TlsDemand.VERIFIED)
    assert open_sealed(DELIVERY_PRIVATE, host.sealed_password, seal_context_smart_host(host)) == b"hunter2"
    with pytest.raises(SealError):
        open_sealed(INGRESS_PRIVATE, host.sealed_password, seal_context_smart_host(host))
    elsewhere = SmartHost("evil.example", 587, username="bob")
    with pytest.raises(SealError):
        open_sealed(DELIVERY_PRIVATE, host.sealed_password, seal_context_smart_host(elsewhere))


def test_a_self_signed_certificate_covers_its_names_and_its_key_opens_for_ingress() -> None:
    found = only(Certificate, SELF_SIGNED)
    assert isinstance(found, Certificate)
    leaf = x509.load_pem_x509_certificate(found.chain_pem)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "*.example.com"]
    key = open_sealed(INGRESS_PRIVATE, found.sealed_key_pem, seal_context_certificate(found.tenant, found.name))
    assert key.startswith(b"-----BEGIN PRIVATE KEY-----")


@pytest.mark.parametrize(("days", "renewed"), [(0, False), (59, False), (61, True), (400, True)])
def test_a_self_signed_certificate_is_kept_until_a_third_of_its_life_is_left(days: int, renewed: bool) -> None:
    first = compiled(SELF_SIGNED)
    later = compiled(SELF_SIGNED, state=first.state, now=NOW + timedelta(days=days))
    assert (later.resources != first.resources) is renewed


def test_a_given_certificate_must_fit_its_key_and_names() -> None:
    authority = trustme.CA()
    issued, other = authority.issue_cert("mail.example.com"), authority.issue_cert("mail.example.com")
    chain = issued.cert_chain_pems[0].bytes().decode()

    def given(key: str, name: str = "mail.example.com") -> tuple[str, str]:
        values = f"{{tls.crt: {chain + key!r}, tls.key: {key!r}}}".replace("'", '"')
        return (
            secret(values, use="tls"),
            obj("TLSCertificate", f"{{dnsNames: [{name}], secretRef: {{name: the-secret}}}}"),
        )

    own_key, other_key = (pair.private_key_pem.bytes().decode() for pair in (issued, other))
    found = only(Certificate, *given(own_key))
    assert isinstance(found, Certificate)
    assert b"PRIVATE" not in found.chain_pem  # a key left in tls.crt does not travel
    for texts, says in (
        (given(other_key), "tls.key does not belong"),
        (given(own_key, "other.example.com"), "does not cover other.example.com"),
        (given("junk"), "no PEM private key"),
    ):
        (error,) = compiled(*texts).errors
        assert says in error.text
        assert error.reason is Reason.SECRET_UNUSABLE


def test_a_password_is_hashed_and_an_api_key_kept_by_its_digest() -> None:
    assert only(Credential, obj("Credential", SMTP), GIVEN) == Credential(
        "sternpost", "it", CredentialKind.SMTP_PASSWORD, "alice", "H(hunter2)", ("example.com",), Lane.BULK
    )
    api = only(
        Credential,
        obj("Credential", "{type: APIKey, secretRef: {name: the-secret}}"),
        secret(f"{{apiKey: {API_KEY}}}", use="api-key"),
    )
    assert isinstance(api, Credential)
    assert (api.login, api.secret_hash) == ("sp_abcdEFGH", hash_api_key(API_KEY))


def test_generated_secrets_are_made_once() -> None:
    texts = (
        obj("Credential", "{type: SMTPPassword, username: alice, writeSecretTo: {name: out}}", "smtp"),
        obj("Credential", "{type: APIKey, writeSecretTo: {name: key}}", "api"),
    )
    first = compiled(*texts)
    password = first.generated["sternpost", "out"]
    key = first.generated["sternpost", "key"]["apiKey"]
    assert password["username"] == "alice"
    assert len(password["password"]) == 48
    logins = {resource.login for resource in first.resources if isinstance(resource, Credential)}
    assert logins == {"alice", api_key_login(key)}
    again = compiled(*texts, state=first.state)
    assert (again.generated, again.resources) == (first.generated, first.resources)
    assert compiled(texts[0], state=first.state).generated == {("sternpost", "out"): password}


def test_the_same_manifests_change_nothing_with_real_hashes_and_seals() -> None:
    texts = (
        obj("Credential", SMTP),
        GIVEN,
        SELF_SIGNED,
        obj("RelayRule", AUTH_HOST.replace("the-secret", "relay")),
        secret("{username: bob, password: x}", name="relay"),
        obj("Domain", "{name: example.com}"),
    )
    first = compiled(*texts, crypto=Crypto())
    assert not first.errors
    assert compiled(*texts, state=first.state, crypto=Crypto()).resources == first.resources
    assert compiled(*reversed(texts), state=first.state, crypto=Crypto()).resources == first.resources
    changed = compiled(*texts[:4], texts[4].replace("x}", "y}"), texts[5], state=first.state, crypto=Crypto())
    assert len(set(changed.resources) ^ set(first.resources)) == 2  # the rule, before and after
    other = compiled(obj("Credential", SMTP), secret("{password: new}"), state=first.state, crypto=Crypto())
    assert set(other.resources).isdisjoint(first.resources)


UNUSABLE = [
    ((), "there is no Secret the-secret in namespace sternpost"),
    ((secret("{password: p}", namespace="elsewhere"),), "there is no Secret the-secret in namespace sternpost"),
    ((secret("{password: p}", use=""),), "needs the label sternpost.dev/use: smtp-auth"),
    ((secret("{password: p}", use="tls"),), "needs the label sternpost.dev/use: smtp-auth"),
    ((secret("{username: alice}"),), "has no password"),
    ((secret("{username: bob, password: p}"),), "another username"),
    ((secret('{password: "p\\n"}'),), "line end"),
]


@pytest.mark.parametrize(("secrets", "says"), UNUSABLE)
def test_a_secret_is_used_only_where_it_is_meant_to_be(secrets: tuple[str, ...], says: str) -> None:
    result = compiled(obj("Credential", SMTP), *secrets)
    (error,) = result.errors
    assert says in error.text
    assert (error.field, error.reason) == ("spec.secretRef.name", Reason.SECRET_UNUSABLE)
    assert result.resources == ()


def test_a_given_api_key_must_be_random() -> None:
    (error,) = compiled(
        obj("Credential", "{type: APIKey, secretRef: {name: the-secret}}"), secret("{apiKey: hunter2}", use="api-key")
    ).errors
    assert "must be random and look like sp_" in error.text
    assert "hunter2" not in str(error)


PRIVATE_HOST = "{action: SmartHost, smartHosts: [{host: %s, tls: Disabled}]%s}"
NOT_PERMITTED = [
    ("RelayRule", "{action: Direct, match: {networks: [10.0.0.0/8]}}", "acme", "spec.match.networks"),
    ("RelayRule", PRIVATE_HOST % ("127.0.0.1", ", allowPrivateAddresses: true"), "acme", "spec.allowPrivateAddresses"),
    ("RelayRule", PRIVATE_HOST % ("127.0.0.1", ""), "sternpost", "spec.smartHosts[0].host"),
    ("RelayRule", PRIVATE_HOST % ("'::1'", ""), "acme", "spec.smartHosts[0].host"),
    ("RelayRule", PRIVATE_HOST % ("localhost", ""), "acme", "spec.smartHosts[0].host"),
    ("TLSCertificate", "{dnsNames: [a.example], selfSigned: {}}", "acme", "metadata.namespace"),
]


@pytest.mark.parametrize(("kind", "spec", "namespace", "field"), NOT_PERMITTED)
def test_what_is_the_administrators(kind: str, spec: str, namespace: str, field: str) -> None:
    (error,) = compiled(obj(kind, spec, namespace=namespace)).errors
    assert (error.field, error.reason) == (field, Reason.NOT_PERMITTED)


def test_the_administrator_may() -> None:
    allowed = PRIVATE_HOST % ("127.0.0.1", ", allowPrivateAddresses: true, match: {networks: [10.0.0.0/8]}")
    rule = only(RelayRule, obj("RelayRule", allowed))
    assert isinstance(rule, RelayRule)
    assert rule.allow_forbidden_addresses


def domain(namespace: str, created: str = "", name: str = "it") -> str:
    return obj("Domain", "{name: example.com}", name, namespace, created)


@pytest.mark.parametrize(
    ("one", "two", "winner"),
    [
        (domain("aaa"), domain("bbb"), "aaa"),
        (domain("bbb"), domain("aaa"), "aaa"),
        (domain("aaa", "2026-01-02T00:00:00Z"), domain("bbb", "2026-01-01T00:00:00Z"), "bbb"),
        (domain("aaa"), domain("bbb", "2026-01-01T00:00:00Z"), "bbb"),
    ],
)
def test_of_two_tenants_with_one_domain_the_older_has_it(one: str, two: str, winner: str) -> None:
    result = compiled(one, two)
    assert [resource.tenant for resource in result.resources if isinstance(resource, Domain)] == [winner]
    (error,) = result.errors
    assert (error.field, error.reason) == ("spec.name", Reason.CONFLICTED)
    assert winner not in error.text  # whose it is, is none of the other's business


def test_a_login_means_one_credential_and_the_other_is_told() -> None:
    texts = [obj("Credential", SMTP, namespace=name) for name in ("bbb", "aaa")]
    secrets = [secret("{password: p}", namespace=name) for name in ("aaa", "bbb")]
    result = compiled(*texts, *secrets)
    assert [resource.tenant for resource in result.resources] == ["aaa"]
    (error,) = result.errors
    assert (error.subject, error.field) == ("Credential bbb/it", "spec.username")


def test_one_wrong_object_does_not_stop_the_others() -> None:
    result = compiled(obj("Credential", SMTP), obj("Domain", "{name: example.com}"))
    assert [type(resource) for resource in result.resources] == [Domain]
    assert len(result.errors) == 1


def test_an_object_declared_twice_is_reported_and_two_credentials_never_share_a_generated_secret() -> None:
    (error,) = compiled(domain("a"), domain("a")).errors
    assert "declared twice" in error.text
    spec = "{type: APIKey, writeSecretTo: {name: out}}"
    (error,) = compiled(obj("Credential", spec, "one"), obj("Credential", spec, "two")).errors
    assert (error.subject, error.field) == ("Credential sternpost/two", "spec.writeSecretTo.name")


def test_a_result_never_shows_a_secret() -> None:
    result = compiled(obj("Credential", "{type: APIKey, writeSecretTo: {name: out}}"))
    key = result.generated["sternpost", "out"]["apiKey"]
    assert key not in repr(result)
    assert key not in repr(result.state)
