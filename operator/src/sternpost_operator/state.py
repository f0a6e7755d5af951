"""What the compiler remembers from one run to the next, so that the same manifests give the same configuration.

Hashes have salts and sealed values a fresh key each time: without a memory every run would change everything. The state
holds generated secrets and private keys in clear: the file is for its owner alone (0600).
"""

import base64
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sternpost_operator.certificates import KeyPair
from sternpost_operator.secrets import ObjectKey, SecretValues

FORMAT = 1
FINGERPRINT_KEY_OCTETS = 32


class StateError(Exception):
    """The state file cannot be read or written. It is never replaced silently: generated secrets would be lost."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed value and a keyed fingerprint of what it holds, for whom and for which place."""

    fingerprint: str
    value: bytes


def _new_key() -> bytes:
    return secrets.token_bytes(FINGERPRINT_KEY_OCTETS)


@dataclass(frozen=True, slots=True, repr=False)
class State:
    """An immutable memory; a compilation returns the next one. `State()` is a new, empty one."""

    fingerprint_key: bytes = field(default_factory=_new_key)
    generated: Mapping[ObjectKey, SecretValues] = field(default_factory=dict)
    """Generated Secrets by namespace and Secret name."""
    hashes: Mapping[ObjectKey, str] = field(default_factory=dict)
    """Password hashes by namespace and Credential name."""
    certificates: Mapping[ObjectKey, KeyPair] = field(default_factory=dict)
    """Self-signed pairs by namespace and TLSCertificate name."""
    sealed: Mapping[str, Sealed] = field(default_factory=dict)
    """Sealed values by the place where they are used."""

    def fingerprint(self, public_key: bytes, data: bytes, context: str) -> str:
        """Tells whether the same data would be sealed again; useless without this state's key."""
        bound = context.encode()
        message = public_key + len(bound).to_bytes(4, "big") + bound + data
        return hmac.new(self.fingerprint_key, message, hashlib.sha256).hexdigest()


def load_state(path: Path) -> State:
    """The state kept in a file; a new one where there is none. Raises StateError."""
    try:
        body = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return State()
    except (OSError, ValueError) as error:
        raise StateError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is not JSON'}") from error
    try:
        if body["format"] != FORMAT:
            raise StateError(f"{path} has format {body['format']!r}, this release knows {FORMAT}")
        return State(
            _octets(body["fingerprintKey"]),
            {_key(key): {str(k): str(v) for k, v in values.items()} for key, values in body["generated"].items()},
            {_key(key): str(value) for key, value in body["hashes"].items()},
            {
                _key(key): KeyPair(chain.encode(), private.encode())
                for key, (chain, private) in body["certificates"].items()
            },
            {place: Sealed(mark, _octets(value)) for place, (mark, value) in body["sealed"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StateError(f"{path} is not a state file of this program; move it away to begin anew") from error


def save_state(path: Path, state: State) -> None:
    """Write the state whole or not at all, readable by its owner only. Raises StateError."""
    body: dict[str, Any] = {
        "format": FORMAT,
        "fingerprintKey": _text(state.fingerprint_key),
        "generated": {"/".join(key): dict(values) for key, values in state.generated.items()},
        "hashes": {"/".join(key): value for key, value in state.hashes.items()},
        "certificates": {
            "/".join(key): [pair.chain_pem.decode(), pair.key_pem.decode()] for key, pair in state.certificates.items()
        },
        "sealed": {place: [sealed.fingerprint, _text(sealed.value)] for place, sealed in state.sealed.items()},
    }
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(body, file, indent=1, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise StateError(f"{path} cannot be written: {error.strerror}") from error


def _key(text: str) -> ObjectKey:
    namespace, _, name = text.partition("/")
    return namespace, name


def _octets(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _text(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")
