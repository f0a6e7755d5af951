"""Secrets: finding the one that an object refers to, checking that it may be used so, generating what is missing.

Values pass through here in clear and go no further than the compiler, which keeps hashes and sealed values only.
"""

import secrets
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sternpost_mail.credentials import (
    API_KEY_ID_CHARS,
    API_KEY_MARK,
    API_KEY_SECRET_OCTETS,
    MAX_SECRET_OCTETS,
    api_key_login,
)
from sternpost_operator.manifests import (
    USE_LABEL,
    CredentialManifest,
    CredentialType,
    SecretManifest,
    SecretUse,
)
from sternpost_operator.problems import FieldError, Reason

GENERATED_PASSWORD_OCTETS = 24
"""192 random bits, 48 hexadecimal characters: short enough to paste, far beyond guessing."""

KEY_USERNAME = "username"
KEY_PASSWORD = "password"  # noqa: S105 - the name of a key in a Secret
KEY_API_KEY = "apiKey"
KEY_CHAIN = "tls.crt"
KEY_PRIVATE = "tls.key"

ObjectKey = tuple[str, str]
"""Namespace and name."""
SecretValues = Mapping[str, str]
"""Keys and values of a generated Secret."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """What can be referred to: Secrets that were declared, and those that were generated."""

    declared: Mapping[ObjectKey, SecretManifest]
    generated: Mapping[ObjectKey, SecretValues]

    def read(self, namespace: str, name: str, use: SecretUse, keys: Sequence[str], field: str) -> dict[str, bytes]:
        """The values of `keys`, all present and not empty.

        `field` is the reference's path. Raises FieldError where the Secret is missing, of another use, or incomplete.
        """
        found = self.declared.get((namespace, name))
        if found is None:
            text = f"there is no Secret {name} in namespace {namespace}"
            raise FieldError(field, text, Reason.SECRET_UNUSABLE)
        if found.use != use:
            text = f"Secret {name} may not be used here: it needs the label {USE_LABEL}: {use}"
            raise FieldError(field, text, Reason.SECRET_UNUSABLE)
        values = found.values()
        missing = [key for key in keys if not values.get(key)]
        if missing:
            raise FieldError(field, f"Secret {name} has no {' and no '.join(missing)}", Reason.SECRET_UNUSABLE)
        return values

    def credential(self, manifest: CredentialManifest) -> tuple[str, str]:
        """The login and the secret of a Credential in clear. Raises FieldError."""
        spec, namespace = manifest.spec, manifest.metadata.namespace
        if spec.write_secret_to is not None:
            values = self.generated[namespace, spec.secret_name]
            if spec.type is CredentialType.API_KEY:
                return api_key_login(values[KEY_API_KEY]), values[KEY_API_KEY]
            return values[KEY_USERNAME], values[KEY_PASSWORD]
        field = "spec.secretRef.name"
        if spec.type is CredentialType.API_KEY:
            values_given = self.read(namespace, spec.secret_name, SecretUse.API_KEY, [KEY_API_KEY], field)
            key = text_of(values_given, KEY_API_KEY, field)
            login = api_key_login(key)
            if not login:
                form = f"{API_KEY_MARK}<{API_KEY_ID_CHARS} letters or digits>_<43 characters of base64url>"
                text = f"{KEY_API_KEY} in Secret {spec.secret_name} must be random and look like {form}"
                raise FieldError(field, text, Reason.SECRET_UNUSABLE)
            return login, key
        given = self.read(namespace, spec.secret_name, SecretUse.SMTP_AUTH, [KEY_PASSWORD], field)
        if KEY_USERNAME in given and text_of(given, KEY_USERNAME, field) != spec.username:
            text = f"Secret {spec.secret_name} has another username than spec.username"
            raise FieldError(field, text, Reason.SECRET_UNUSABLE)
        return spec.username or "", text_of(given, KEY_PASSWORD, field)


def text_of(values: Mapping[str, bytes], key: str, field: str) -> str:
    """One value as text that SMTP's AUTH can carry. Raises FieldError, also for a newline that an editor added."""
    try:
        text = values[key].decode("utf-8")
    except UnicodeDecodeError as error:
        raise FieldError(field, f"{key} in the Secret is not UTF-8", Reason.SECRET_UNUSABLE) from error
    if any(character in text for character in "\0\r\n"):
        text = f"{key} in the Secret holds a line end or NUL (a newline at its end is easily added by mistake)"
        raise FieldError(field, text, Reason.SECRET_UNUSABLE)
    if len(values[key]) > MAX_SECRET_OCTETS:
        raise FieldError(
            field, f"{key} in the Secret is longer than {MAX_SECRET_OCTETS} octets", Reason.SECRET_UNUSABLE
        )
    return text


def make_password() -> str:
    """A new random password."""
    # Hexadecimal: a password that begins with "-" is an option to swaks and its like.
    return secrets.token_hex(GENERATED_PASSWORD_OCTETS)


def make_api_key() -> str:
    """A new random API key, `sp_<8 characters>_<43 characters>`."""
    alphabet = string.ascii_letters + string.digits
    public = "".join(secrets.choice(alphabet) for _ in range(API_KEY_ID_CHARS))
    return f"{API_KEY_MARK}{public}_{secrets.token_urlsafe(API_KEY_SECRET_OCTETS)}"


def generate_missing(
    credentials: Iterable[CredentialManifest], known: Mapping[ObjectKey, SecretValues]
) -> dict[ObjectKey, SecretValues]:
    """The generated Secret of each Credential with `writeSecretTo`, by namespace and Secret name.

    What is in `known` is kept; what nobody asks for any more is left out. A changed user name keeps its password.
    """
    wanted: dict[ObjectKey, SecretValues] = {}
    for manifest in credentials:
        spec = manifest.spec
        if spec.write_secret_to is None:
            continue
        key = (manifest.metadata.namespace, spec.secret_name)
        have = known.get(key, {})
        if spec.type is CredentialType.API_KEY:
            wanted.setdefault(key, {KEY_API_KEY: have.get(KEY_API_KEY) or make_api_key()})
        else:
            password = have.get(KEY_PASSWORD) or make_password()
            wanted.setdefault(key, {KEY_USERNAME: spec.username or "", KEY_PASSWORD: password})
    return wanted
