"""Password hashes for CONFIG: argon2id with the parameters of `sternpost_mail.credentials`."""

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from sternpost_mail.credentials import (
    ARGON2_HASH_OCTETS,
    ARGON2_LANES,
    ARGON2_MEMORY_KIB,
    ARGON2_PASSES,
    ARGON2_SALT_OCTETS,
)

_HASHER = PasswordHasher(
    time_cost=ARGON2_PASSES,
    memory_cost=ARGON2_MEMORY_KIB,
    parallelism=ARGON2_LANES,
    hash_len=ARGON2_HASH_OCTETS,
    salt_len=ARGON2_SALT_OCTETS,
    type=Type.ID,
)


def hash_password(password: str) -> str:
    """A new hash with a new salt; takes 15 to 30 ms of CPU."""
    return _HASHER.hash(password)


def still_fits(secret_hash: str, password: str) -> bool:
    """Whether a hash made earlier is of this password and of today's parameters: then it may stay."""
    try:
        return not _HASHER.check_needs_rehash(secret_hash) and _HASHER.verify(secret_hash, password)
    except (VerificationError, InvalidHashError):
        return False
