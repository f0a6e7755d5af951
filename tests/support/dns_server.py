"""A small DNS server for tests: zones are data, failures come on demand. UDP and TCP on one loopback port."""

import asyncio
import struct
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

TTL = 60
SERVFAIL = "SERVFAIL"
REFUSED = "REFUSED"
SILENT = "SILENT"
"""Never answer: the resolver times out."""
TRUNCATED = "TRUNCATED"
"""As the record text of a name's type: over UDP the answer is cut, so the resolver asks by TCP."""

Zone = Mapping[str, Mapping[str, Sequence[str]] | str]
"""Name -> type -> texts of its records (`{"example.com": {"MX": ["10 mx.example.com."]}}`), or a failure for the name.

A name that is not there gets NXDOMAIN, a type that is not there an empty answer.
"""


@dataclass(slots=True)
class DnsServer:
    """The running server. Change `zone` at any time; `asked` counts questions by (name, type)."""

    zone: dict[str, Mapping[str, Sequence[str]] | str]
    host: str = "127.0.0.1"
    port: int = 0
    ttl: int = TTL
    asked: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def address(self) -> str:
        """`host:port`, as the setting `nameservers` takes it."""
        return f"{self.host}:{self.port}"

    def answer(self, wire: bytes, *, udp: bool) -> bytes | None:
        """The answer to a question, None for silence."""
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked[name, kind] += 1
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        found = self.zone.get(name)
        if found == SILENT:
            return None
        if isinstance(found, str):
            response.set_rcode(dns.rcode.from_text(found))
        elif found is None:
            response.set_rcode(dns.rcode.NXDOMAIN)
        else:
            self._fill(response, question.name, kind, found, udp=udp)
        return response.to_wire()

    def _fill(
        self,
        response: dns.message.Message,
        name: dns.name.Name,
        kind: str,
        found: Mapping[str, Sequence[str]],
        *,
        udp: bool,
    ) -> None:
        if "CNAME" in found and kind != "CNAME":
            response.answer.append(dns.rrset.from_text(name, self.ttl, "IN", "CNAME", *found["CNAME"]))
            target = dns.name.from_text(found["CNAME"][0])
            further = self.zone.get(target.to_text(omit_final_dot=True).lower(), {})
            if not isinstance(further, str):
                self._fill(response, target, kind, further, udp=udp)
            return
        records = [text for text in found.get(kind, ()) if text != TRUNCATED]
        if udp and len(records) < len(found.get(kind, ())):
            response.flags |= dns.flags.TC
        elif records:
            response.answer.append(dns.rrset.from_text(name, self.ttl, "IN", kind, *records))


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # uvloop's is none by inheritance

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self._server.answer(data, udp=True)
        if answer is not None and self._transport is not None:
            self._transport.sendto(answer, addr)


@asynccontextmanager
async def running_dns(zone: Zone) -> AsyncIterator[DnsServer]:
    """A server on a free port that is the same for UDP and TCP."""
    server = DnsServer(dict(zone))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            answer = server.answer(await reader.readexactly(length), udp=False)
            if answer is not None:
                writer.write(struct.pack("!H", len(answer)) + answer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    loop = asyncio.get_running_loop()
    for _ in range(20):  # the TCP port may be taken by another for UDP
        tcp = await asyncio.start_server(serve, server.host, 0)
        server.port = tcp.sockets[0].getsockname()[1]
        try:
            udp, _protocol = await loop.create_datagram_endpoint(
                lambda: _Udp(server), local_addr=(server.host, server.port)
            )
            break
        except OSError:
            tcp.close()
    else:
        raise RuntimeError("no port is free for both UDP and TCP")
    try:
        yield server
    finally:
        udp.close()
        tcp.close()
