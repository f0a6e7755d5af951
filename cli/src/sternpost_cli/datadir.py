"""The data directory of a platform on one machine: where things are, who holds it, secrets generated once into it."""

import fcntl
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

SECRET_OCTETS = 24
"""Random octets of a broker password: far beyond guessing."""


class DataError(Exception):
    """The data directory cannot be used."""


@dataclass(frozen=True, slots=True)
class DataDir:
    """Paths below one directory, which only its owner may enter."""

    root: Path

    @property
    def broker_config(self) -> Path:
        """nats-server's configuration, with the services' passwords."""
        return self.root / "nats.conf"

    @property
    def broker_data(self) -> Path:
        """JetStream's files: the mail."""
        return self.root / "jetstream"

    @property
    def database(self) -> Path:
        """Activity's SQLite file."""
        return self.root / "activity.db"

    @property
    def logs(self) -> Path:
        """One log file per program."""
        return self.root / "logs"

    @property
    def state(self) -> Path:
        """Process ids and restarts, see Supervisor."""
        return self.root / "state.json"

    @property
    def compiler_state(self) -> Path:
        """What the compiler of manifests remembers: generated secrets, certificates, hashes."""
        return self.root / "manifests.json"

    @property
    def quickstart(self) -> Path:
        """Addresses and credentials for a shell to source."""
        return self.root / "quickstart.env"

    @property
    def ca_file(self) -> Path:
        """Certificates that a client must trust to speak TLS with the doors."""
        return self.root / "ca.pem"

    @property
    def ports(self) -> Path:
        """The ports of the platform that ran here last, by their variables."""
        return self.root / "ports.env"

    def create(self) -> None:
        """Make the directory. Raises DataError."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self.root.chmod(0o700)
            self.logs.mkdir(exist_ok=True)
        except OSError as error:
            raise DataError(f"{self.root} cannot be used: {error.strerror}") from error

    def lock(self) -> IO[str]:
        """Hold the directory until the file is closed. Raises DataError where another platform runs on it."""
        file = (self.root / "lock").open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            raise DataError(
                f"another platform (process {holder}) runs on {self.root}: stop it, or choose another --data"
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        return file

    def broker_passwords(self, users: Iterable[str]) -> dict[str, str]:
        """A password for each user of the broker, the same on every start."""
        return {user: self._secret(f"broker-{user}", secrets.token_urlsafe(SECRET_OCTETS)) for user in users}

    def key_file(self, service: str, new: bytes) -> Path:
        """The file with a service's private key in hexadecimal; `new` is written where there is none yet."""
        name = f"{service}.key"
        self._secret(name, new.hex())
        return self._secret_path(name)

    def _secret(self, name: str, new: str) -> str:
        path = self._secret_path(name)
        if not path.exists():
            write_private(path, new)
        return path.read_text(encoding="ascii").strip()

    def _secret_path(self, name: str) -> Path:
        return self.root / "secrets" / name


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all. Raises DataError."""
    beside = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside.unlink(missing_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}") from error
