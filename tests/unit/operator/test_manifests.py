"""A manifest that is wrong is refused with its place, its field and what to do."""

import pytest

from sternpost_operator.fields import parse_duration
from sternpost_operator.load import load_text
from sternpost_operator.manifests import (
    CredentialManifest,
    DomainManifest,
    RelayRuleManifest,
    SecretManifest,
    parse_manifest,
)
from sternpost_operator.problems import ManifestError, Origin
from tests.unit.operator.samples import declare, obj, secret

WRONG = [
    ("Domain", "{name: example.com, dkim: {}}", "spec.dkim", "there is no such field"),
    ("Domain", "{}", "spec.name", "is required"),
    ("Domain", "{name: 'exa mple'}", "spec.name", "must be a domain name"),
    ("Domain", "{name: '[192.0.2.1]'}", "spec.name", "not an address literal"),
    ("Domain", "{name: 5}", "spec.name", "valid string"),
    ("Domain", "{name: example.com, postmaster: nobody}", "spec.postmaster", "must be a mailbox"),
    ("RelayRule", "{}", "spec.action", "is required"),
    ("RelayRule", "{action: Bounce}", "spec.action", "'Direct', 'SmartHost'"),
    ("RelayRule", "{action: SmartHost}", "spec", "smartHosts and action: SmartHost belong together"),
    ("RelayRule", "{action: Direct, smartHosts: [{host: a.example}]}", "spec", "belong together"),
    ("RelayRule", "{action: Hold, rejectText: no}", "spec.rejectText", "valid string"),
    ("RelayRule", "{action: Hold, rejectText: 'no'}", "spec", "rejectText is obeyed only with action: Reject"),
    (
        "RelayRule",
        "{action: Hold, maxSessions: 2}",
        "spec",
        "maxSessions is obeyed only with action: Direct or SmartHost",
    ),
    ("RelayRule", "{action: Direct, allowPrivateAddresses: true}", "spec", "only with action: SmartHost"),
    ("RelayRule", '{action: Reject, rejectText: "a\\r\\nb"}', "spec.rejectText", "printable ASCII on one line"),
    ("RelayRule", "{action: Direct, retry: {first: 5}}", "spec.retry.first", "30s, 5m or 1h30m"),
    ("RelayRule", "{action: Direct, retry: {first: 2h, longest: 1h}}", "spec.retry", "longest must not be shorter"),
    ("RelayRule", "{action: Direct, match: {networks: [10.0.0.1/8]}}", "spec.match.networks[0]", "without host bits"),
    ("RelayRule", "{action: Direct, match: {senders: [a.example, '@b']}}", "spec.match.senders[1]", "or .example.com"),
    (
        "RelayRule",
        "{action: SmartHost, smartHosts: [{host: a.example, port: '25'}]}",
        "spec.smartHosts[0].port",
        "valid integer",
    ),
    (
        "RelayRule",
        "{action: SmartHost, smartHosts: [{host: a.example, tls: Required, auth: {secretRef: {name: s}}}]}",
        "spec.smartHosts[0]",
        "a login is only sent over verified TLS",
    ),
    ("TLSCertificate", "{dnsNames: [a.example]}", "spec", "exactly one of secretRef and selfSigned"),
    ("TLSCertificate", "{dnsNames: [], selfSigned: {}}", "spec.dnsNames", "at least 1"),
    ("TLSCertificate", "{dnsNames: ['a.*.example'], selfSigned: {}}", "spec.dnsNames[0]", "must be a domain name"),
    ("Credential", "{type: SMTPPassword, secretRef: {name: s}}", "spec", "username is required"),
    ("Credential", "{type: APIKey, username: u, secretRef: {name: s}}", "spec", "has no meaning with type: APIKey"),
    ("Credential", "{type: APIKey}", "spec", "exactly one of secretRef (given) and writeSecretTo (generated)"),
    ("Credential", "{type: SMTPPassword, username: sp_x, secretRef: {name: s}}", "spec", "must not begin with sp_"),
    ("Credential", "{type: APIKey, secretRef: {name: Not_A_Name}}", "spec.secretRef.name", "pattern"),
]


@pytest.mark.parametrize(("kind", "spec", "field", "says"), WRONG)
def test_a_mistake_is_named_with_its_place_and_field(kind: str, spec: str, field: str, says: str) -> None:
    with pytest.raises(ManifestError) as caught:
        declare(obj(kind, spec))
    (problem,) = caught.value.problems
    assert problem.field == field
    assert says in problem.text
    assert str(problem).startswith(f"test.yaml, document 1, {kind} sternpost/it, {field}: ")


def test_all_mistakes_of_an_object_are_told_at_once() -> None:
    with pytest.raises(ManifestError) as caught:
        declare(obj("Domain", "{name: 'no domain', postmaster: x, extra: 1}"))
    assert {problem.field for problem in caught.value.problems} >= {"spec.name", "spec.extra"}


@pytest.mark.parametrize(
    ("text", "field", "says"),
    [
        ("apiVersion: sternpost.dev/v1\nkind: Domain", "kind", "sternpost.dev/v1alpha1 Domain"),
        ("- a\n- b", "", "must be a mapping"),
        ("{apiVersion: sternpost.dev/v1alpha1, kind: Domain, spec: {name: a.b}}", "metadata", "is required"),
        (
            "{apiVersion: sternpost.dev/v1alpha1, kind: Domain, metadata: {name: a, namspace: b}, spec: {name: a.b}}",
            "metadata.namspace",
            "no such field",
        ),
    ],
)
def test_what_is_no_resource_of_ours_is_refused(text: str, field: str, says: str) -> None:
    (document,) = load_text(text, "f.yaml", {})
    with pytest.raises(ManifestError) as caught:
        parse_manifest(document.content, document.origin)
    assert caught.value.problems[0].field == field
    assert says in caught.value.problems[0].text


def test_an_object_as_the_api_server_returns_it_is_read() -> None:
    live = {
        "apiVersion": "sternpost.dev/v1alpha1",
        "kind": "Domain",
        "metadata": {
            "name": "d",
            "uid": "x",
            "resourceVersion": "1",
            "generation": 2,
            "managedFields": [{}],
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {"name": "Bücher.Example"},
        "status": {"conditions": []},
    }
    manifest = parse_manifest(live, Origin())
    assert isinstance(manifest, DomainManifest)
    assert manifest.metadata.namespace == "default"
    assert manifest.metadata.creation_timestamp is not None
    assert manifest.spec.name == "xn--bcher-kva.example"


def test_patterns_and_numbers_come_out_as_decisions_compare_them() -> None:
    match = "{recipients: [Bob@EXAMPLE.com, .Sub.Example], networks: ['10.0.0.0/8']}"
    spec = f"{{action: Direct, match: {match}, retry: {{factor: 2}}}}"
    (item,) = declare(obj("RelayRule", spec))
    assert isinstance(item.manifest, RelayRuleManifest)
    assert item.manifest.spec.match.recipients == ["bob@example.com", ".sub.example"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30.0), ("5m", 300.0), ("1h30m", 5400.0), ("1.5h", 5400.0), ("250ms", 0.25), ("0s", 0.0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("value", ["", "5", 5, "5 m", "-5m", "5d", "m", None, "1h-3m", "1e3s"])
def test_what_is_no_duration(value: object) -> None:
    with pytest.raises(ValueError, match="30s, 5m or 1h30m"):
        parse_duration(value)


def test_a_secrets_values_never_show() -> None:
    (item,) = declare(secret("{password: hunter2}"))
    assert isinstance(item.manifest, SecretManifest)
    assert "hunter2" not in repr(item.manifest)
    assert item.manifest.values() == {"password": b"hunter2"}
    for broken in ("{password: 12345678}", "{password: {hunter2: hunter2}}"):
        with pytest.raises(ManifestError) as caught:
            declare(secret(broken))
        assert "12345678" not in str(caught.value)
    bad = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {password: hunter2!}\n"
    with pytest.raises(ManifestError, match="password is not base64") as caught:
        declare(bad)
    assert "hunter2" not in str(caught.value)


def test_string_data_wins_over_data_as_in_kubernetes() -> None:
    text = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: YQ==, b: Yg==}\nstringData: {b: B}\n"
    (item,) = declare(text)
    assert isinstance(item.manifest, SecretManifest)
    assert item.manifest.values() == {"a": b"a", "b": b"B"}


def test_a_credential_names_the_secret_that_holds_it() -> None:
    (item,) = declare(obj("Credential", "{type: APIKey, writeSecretTo: {name: out}}"))
    assert isinstance(item.manifest, CredentialManifest)
    assert item.manifest.spec.secret_name == "out"
