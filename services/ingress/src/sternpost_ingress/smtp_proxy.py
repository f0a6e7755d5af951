"""The PROXY header (v1 and v2) of trusted load balancers, read from the bare socket before a session exists.

It is read to its last octet and no further, so that what follows, a TLS handshake or a command, is the session's.
aiosmtpd parses it.
"""

import asyncio
import socket

from aiosmtpd.proxy_protocol import AF, V2_CMD, get_proxy


class ProxyRefused(Exception):
    """The header is missing, malformed or of an address family that has no client address."""


class _Exact:
    """The reader that aiosmtpd's parser wants, over a non-blocking socket, which never reads ahead."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()

    async def read(self, n: int = -1) -> bytes:
        return await self._loop.sock_recv(self._sock, n)

    async def readexactly(self, n: int = 1) -> bytes:
        data = b""
        while len(data) < n:
            piece = await self.read(n - len(data))
            if not piece:
                raise ConnectionError("connection ended inside the header")
            data += piece
        return data

    async def readuntil(self, separator: bytes = b"\n") -> bytes:
        data = b""
        while not data.endswith(separator):
            data += await self.readexactly(1)
            if len(data) > 107:
                raise ValueError("header too long")
        return data


async def read_proxy(sock: socket.socket, timeout: float) -> str:
    """The client's IP address that the header tells; empty where the balancer speaks for itself (a health check).

    Raises ProxyRefused, also after `timeout` seconds.
    """
    try:
        async with asyncio.timeout(timeout):
            found = await get_proxy(_Exact(sock))
    except TimeoutError:
        raise ProxyRefused("no PROXY header in time") from None
    except OSError as error:
        raise ProxyRefused("connection lost before the PROXY header") from error
    if found.error:
        raise ProxyRefused(found.error)
    if found.command == V2_CMD.LOCAL or found.family == AF.UNSPEC:
        return ""
    if found.family not in (AF.INET, AF.INET6) or found.src_addr is None:
        raise ProxyRefused("the PROXY header has no IP address")
    return str(found.src_addr)
