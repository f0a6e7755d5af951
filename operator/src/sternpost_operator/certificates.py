"""X.509 for the doors: reads a given pair and says what is wrong with it, makes self-signed ones and times them.

It never shows a private key; the compiler seals it.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SELF_SIGNED_LIFETIME = timedelta(days=90)
"""What public authorities give too: renewal happens often enough to be known to work."""
RENEW_BEFORE = timedelta(days=30)
"""A third of the lifetime is left when a new one is made, so a month of standstill does no harm."""
CLOCK_SKEW = timedelta(hours=1)
"""Valid from a little before now: clients' clocks differ."""
MAX_COMMON_NAME = 64
"""X.520's limit; a longer name stands in the SAN alone, which is where clients look."""


class CertificateError(Exception):
    """A pair that the doors could not use; the text says why and is fit for a status."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate chain, leaf first, and its private key (PKCS #8, not encrypted), both PEM."""

    chain_pem: bytes
    key_pem: bytes

    def __repr__(self) -> str:
        return "KeyPair(...)"


def read_pair(chain: bytes, key: bytes, names: tuple[str, ...]) -> KeyPair:
    """A given pair, written anew so that nothing else in the files travels on. Raises CertificateError.

    The key must belong to the first certificate, and that must cover every one of `names`. Expiry is not looked at: a
    door with an expired certificate still encrypts, one without any does not.
    """
    try:
        certificates = x509.load_pem_x509_certificates(chain)
    except ValueError as error:
        raise CertificateError("tls.crt holds no PEM certificate") from error
    try:
        private = load_pem_private_key(key, password=None)
    except TypeError as error:
        raise CertificateError("tls.key is encrypted; give it without a passphrase") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError("tls.key holds no PEM private key") from error
    leaf = certificates[0]
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if leaf.public_key().public_bytes(*spki) != private.public_key().public_bytes(*spki):
        raise CertificateError("tls.key does not belong to the first certificate of tls.crt")
    covered = _names_of(leaf)
    for name in names:
        if name not in covered and "*." + name.partition(".")[2] not in covered:
            raise CertificateError(
                f"the certificate does not cover {name}; it names {', '.join(sorted(covered)) or 'nobody'}"
            )
    return KeyPair(
        b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates),
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


def is_current(pair: KeyPair, names: tuple[str, ...], now: datetime) -> bool:
    """Whether a self-signed pair made earlier still serves: exactly these names, and not yet due for renewal."""
    try:
        leaf = x509.load_pem_x509_certificate(pair.chain_pem)
    except ValueError:
        return False
    return _names_of(leaf) == set(names) and now < leaf.not_valid_after_utc - RENEW_BEFORE


def make_self_signed(names: tuple[str, ...], now: datetime) -> KeyPair:
    """A new ECDSA P-256 key with a certificate for these DNS names."""
    private = ec.generate_private_key(ec.SECP256R1())
    public = private.public_key()
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, names[0])] if len(names[0]) <= MAX_COMMON_NAME else []
    subject = x509.Name(attributes)
    start = now.astimezone(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - CLOCK_SKEW)
        .not_valid_after(start + SELF_SIGNED_LIFETIME)
        # RFC 5280 §4.2.1.6: with an empty subject the alternative names are critical.
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=not attributes)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(private, hashes.SHA256())
    )
    return KeyPair(
        certificate.public_bytes(Encoding.PEM),
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


def _names_of(certificate: x509.Certificate) -> set[str]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return set()
    return {name.lower() for name in extension.value.get_values_for_type(x509.DNSName)}
