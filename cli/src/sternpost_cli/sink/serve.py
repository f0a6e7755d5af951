"""Runs the sink's two sides in one process until it is told to stop."""

import asyncio
import contextlib
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from sternpost_cli.sink.faults import Faults
from sternpost_cli.sink.http import make_app
from sternpost_cli.sink.smtp import serve_smtp
from sternpost_cli.sink.store import Store

CLOSE_SECONDS = 2
"""How long open HTTP requests may take when the sink stops."""


class _Server(uvicorn.Server):
    """Signals are the sink's own business: both sides stop together."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    host: str, smtp_port: int, http_port: int, *, certificate: Path | None = None, key: Path | None = None
) -> None:
    """Serve until SIGTERM or SIGINT. Raises OSError when the SMTP port cannot be had, SystemExit for the HTTP port."""
    store, faults = Store(), Faults()
    context: ssl.SSLContext | None = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
    listener = await serve_smtp(store, faults, host, smtp_port, hostname="sink.invalid", tls_context=context)
    config = uvicorn.Config(
        make_app(store, faults),
        host=host,
        port=http_port,
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=CLOSE_SECONDS,
    )
    server = _Server(config)

    def stop() -> None:
        server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    print(f"sink: SMTP on {host}:{smtp_port}, HTTP on http://{host}:{http_port}", flush=True)
    try:
        await server.serve()
    finally:
        listener.close()
