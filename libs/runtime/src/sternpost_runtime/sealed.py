"""Secrets on their way through CONFIG: sealed to the public key of the one service that uses them.

A libsodium sealed box (X25519, XSalsa20-Poly1305, a fresh sender key each time) hides the data and shows tampering, but
it does not say what the data is *for*: whoever may write CONFIG could move one value to another place. So the plaintext
begins with a context (`tls/<tenant>/<name>`, `smarthost/...`), and it opens only where the reader expects that context.
A sealed box does not prove who sealed it either; that only the compiler may write CONFIG is the broker's business.

Layout: 8 octets key id | box( 2 octets length of context, big endian | context, UTF-8 | data ). The key id says which
key opens it, so that a rotated key gives a clear error instead of a failed decryption.
"""

import hashlib

from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox

KEY_OCTETS = 32
"""Length of a public and of a private key (X25519)."""
KEY_ID_OCTETS = 8
_LENGTH_OCTETS = 2


class SealError(Exception):
    """A value that cannot be sealed or opened. The text names the context and the key id, never data."""


def generate_keypair() -> tuple[bytes, bytes]:
    """A new (private, public) pair of 32 octets each."""
    private = PrivateKey.generate()
    return bytes(private), bytes(private.public_key)


def public_key_of(private_key: bytes) -> bytes:
    """The public key that belongs to a private key. Raises SealError when it is not 32 octets."""
    return bytes(_private(private_key).public_key)


def key_id(public_key: bytes) -> bytes:
    """The short name of a public key, as it stands before everything sealed to it."""
    return hashlib.blake2b(public_key, digest_size=KEY_ID_OCTETS, person=b"sternpost-seal").digest()


def seal(public_key: bytes, data: bytes, context: str) -> bytes:
    """Seal data for the holder of the private key, for this context only. Raises SealError for a bad key or context."""
    bound = context.encode()
    if len(public_key) != KEY_OCTETS:
        raise SealError(f"a public key has {KEY_OCTETS} octets, not {len(public_key)}")
    if len(bound) >= 1 << (8 * _LENGTH_OCTETS):
        raise SealError("context is too long to bind")
    plain = len(bound).to_bytes(_LENGTH_OCTETS, "big") + bound + data
    return key_id(public_key) + bytes(SealedBox(PublicKey(public_key)).encrypt(plain))


def open_sealed(private_key: bytes, data: bytes, context: str) -> bytes:
    """Open what was sealed for this key and context.

    Raises SealError when it was sealed to another key, for another context, or was changed on the way.
    """
    private = _private(private_key)
    mine, theirs = key_id(bytes(private.public_key)), data[:KEY_ID_OCTETS]
    if mine != theirs:
        raise SealError(f"{context} is sealed to key {theirs.hex()}, this service holds {mine.hex()}")
    try:
        plain = bytes(SealedBox(private).decrypt(data[KEY_ID_OCTETS:]))
    # PyNaCl reports a box that is too short as a TypeError or ValueError, a forged one as a CryptoError.
    except (CryptoError, TypeError, ValueError) as error:
        raise SealError(f"{context} was changed or cut short since it was sealed") from error
    end = _LENGTH_OCTETS + int.from_bytes(plain[:_LENGTH_OCTETS], "big")
    if plain[_LENGTH_OCTETS:end] != context.encode() or len(plain) < end:
        raise SealError(f"what was opened as {context} was sealed for another place")
    return plain[end:]


def _private(private_key: bytes) -> PrivateKey:
    if len(private_key) != KEY_OCTETS:
        raise SealError(f"a private key has {KEY_OCTETS} octets, not {len(private_key)}")
    return PrivateKey(private_key)
