"""Manifests for tests, as YAML, and a compiler that needs no real argon2."""

from datetime import UTC, datetime

from sternpost_operator.compile import Compiled, Crypto, Declared, PublicKeys, compile_manifests
from sternpost_operator.load import load_text
from sternpost_operator.manifests import parse_manifest
from sternpost_operator.state import State
from sternpost_runtime.sealed import generate_keypair

NOW = datetime(2026, 1, 1, tzinfo=UTC)
INGRESS_PRIVATE, INGRESS_PUBLIC = generate_keypair()
DELIVERY_PRIVATE, DELIVERY_PUBLIC = generate_keypair()
KEYS = PublicKeys(INGRESS_PUBLIC, DELIVERY_PUBLIC)
API_KEY = "sp_abcdEFGH_" + "k" * 43


def obj(kind: str, spec: str, name: str = "it", namespace: str = "sternpost", created: str = "") -> str:
    """One resource of our group; `spec` is YAML in flow style."""
    version = "v1" if kind == "Secret" else "sternpost.dev/v1alpha1"
    stamp = f", creationTimestamp: '{created}'" if created else ""
    metadata = f"{{name: {name}, namespace: {namespace}{stamp}}}"
    return f"apiVersion: {version}\nkind: {kind}\nmetadata: {metadata}\nspec: {spec}\n"


def secret(values: str, use: str = "smtp-auth", name: str = "the-secret", namespace: str = "sternpost") -> str:
    """A v1 Secret; `values` is `stringData` in flow style."""
    label = f", labels: {{sternpost.dev/use: {use}}}" if use else ""
    metadata = f"{{name: {name}, namespace: {namespace}{label}}}"
    return f"apiVersion: v1\nkind: Secret\nmetadata: {metadata}\nstringData: {values}\n"


def declare(*texts: str) -> list[Declared]:
    """The manifests of one file."""
    documents = load_text("---\n".join(texts), "test.yaml", {})
    return [Declared(document.origin, parse_manifest(document.content, document.origin)) for document in documents]


def compiled(*texts: str, state: State | None = None, now: datetime = NOW, crypto: Crypto | None = None) -> Compiled:
    """Compile with a cheap stand-in for argon2."""
    cheap = Crypto(hash_password=lambda password: f"H({password})", still_fits=lambda h, p: h == f"H({p})")
    return compile_manifests(declare(*texts), state or State(), KEYS, now=now, crypto=crypto or cheap)
