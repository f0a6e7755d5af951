"""The forms of secrets that clients prove themselves with: what an API key looks like, how each kind is hashed.

The compiler of manifests writes the hashes and the auth service checks them; both read the numbers here, so a login
that nobody has costs exactly what a wrong password costs. This file generates nothing and holds no secret.
"""

import hashlib
import re

ARGON2_MEMORY_KIB = 19 * 1024
"""Memory of one argon2id hash: 19 MiB with two passes and one lane is the OWASP minimum. One check takes 15 to 30 ms
of one core, so a door's cache of verified logins matters and the auth service bounds how many run at once."""
ARGON2_PASSES = 2
ARGON2_LANES = 1
"""One lane: the service checks many logins side by side, so parallelism inside one check would win nothing."""
ARGON2_SALT_OCTETS = 16
ARGON2_HASH_OCTETS = 32

MAX_SECRET_OCTETS = 1024
"""No password or API key is longer; a longer one is refused unread."""
MAX_LOGIN_CHARS = 128
"""No SMTP user name is longer."""

API_KEY_MARK = "sp_"
"""What every API key begins with, so that secret scanners find a leaked one. No SMTP user name may begin with it."""
API_KEY_ID_CHARS = 8
"""Random characters of the public part: they identify the key in lists and logs and guard nothing."""
API_KEY_SECRET_OCTETS = 32
"""Random octets of the secret part, 43 characters of base64url. 256 random bits cannot be guessed, so one SHA-256 is
enough where a password needs argon2id."""

_API_KEY = re.compile(r"(sp_[A-Za-z0-9]{8})_[A-Za-z0-9_-]{43}")


def api_key_login(key: str) -> str:
    """The public part of an API key (`sp_` and eight characters), by which it is looked up; empty when it is none."""
    found = _API_KEY.fullmatch(key)
    return found.group(1) if found else ""


def hash_api_key(key: str) -> str:
    """What CONFIG keeps of an API key: SHA-256 of the whole key, lower-case hexadecimal."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
