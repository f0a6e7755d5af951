"""The doors' certificates: from the configuration into TLS contexts, reloaded without restart, chosen by SNI.

A private key is opened only here and goes to OpenSSL through a file in memory; it never reaches a disk or a log.
"""

import os
import ssl
import tempfile
from collections.abc import Sequence

import structlog

from sternpost_mail.config import Certificate, Config
from sternpost_runtime.sealed import SealError, open_sealed

log = structlog.get_logger()


class Certificates:
    """The certificates that the doors present now."""

    def __init__(self, private_key: bytes) -> None:
        self._private_key = private_key
        self._seen: tuple[Certificate, ...] = ()
        self._by_name: dict[str, ssl.SSLContext] = {}
        self.default: ssl.SSLContext | None = None
        """The context to start TLS with; None while there is no certificate, and STARTTLS is not offered."""

    def update(self, config: Config) -> None:
        """Take the certificates of a new configuration; one that does not load is told and left out.

        Where none loads, the last good ones stay.
        """
        if config.certificates == self._seen:
            return
        self._seen = config.certificates
        by_name: dict[str, ssl.SSLContext] = {}
        default: ssl.SSLContext | None = None
        for certificate in config.certificates:
            try:
                context = self._load(certificate)
            except (SealError, ssl.SSLError, OSError, ValueError) as error:
                name = f"{certificate.tenant}/{certificate.name}"
                log.error("certificate_unusable", certificate=name, error=str(error))
                continue
            default = default or context
            for name in certificate.names:
                by_name.setdefault(name.lower(), context)
        if default is None and config.certificates:
            return
        self._by_name, self.default = by_name, default
        log.info("certificates_loaded", names=sorted(by_name))

    def _load(self, certificate: Certificate) -> ssl.SSLContext:
        if not self._private_key:
            raise SealError("this process was given no key that opens it (sealed_key_file)")
        sealed = certificate.sealed_key_pem
        key = open_sealed(self._private_key, sealed, f"tls/{certificate.tenant}/{certificate.name}")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        context.sni_callback = self._choose
        load_chain(context, certificate.chain_pem, key)
        return context

    def _choose(self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext) -> None:
        if name:
            name = name.lower().rstrip(".")
            chosen = self._by_name.get(name) or self._by_name.get("*." + name.partition(".")[2])
            if chosen is not None:
                connection.context = chosen


def load_chain(context: ssl.SSLContext, chain_pem: bytes, key_pem: bytes) -> None:
    """Load a certificate chain and its key from memory. Raises ssl.SSLError where they do not fit.

    OpenSSL's Python face takes file names only: an anonymous file in memory has one; elsewhere a file that only we may
    read is removed as soon as it was read.
    """
    pem = key_pem + b"\n" + chain_pem
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("sternpost-tls", os.MFD_CLOEXEC)
        try:
            _write(descriptor, (pem,))
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
    else:
        descriptor, path = tempfile.mkstemp(prefix="sternpost-")
        try:
            _write(descriptor, (pem,))
            context.load_cert_chain(path)
        finally:
            os.close(descriptor)
            os.unlink(path)


def _write(descriptor: int, parts: Sequence[bytes]) -> None:
    for part in parts:
        at = 0
        while at < len(part):
            at += os.write(descriptor, part[at:])
