"""Renders nats-server's configuration: durability, limits, and what each service may touch."""

import json
from collections.abc import Mapping
from pathlib import Path

from sternpost_runtime.subjects import PERMISSIONS, inbox_prefix

MAX_PAYLOAD = 8 * 1024 * 1024
"""Octets of one message: above the largest record of any stream and the largest site session."""
MAX_PENDING = 64 * 1024 * 1024
"""Octets that may wait for one client before the broker drops it as too slow; a worker is given less than half."""


def render(data_dir: Path, port: int, credentials: Mapping[str, str], *, storage_mib: int = 8192) -> str:
    """The configuration file for a single broker on loopback.

    `credentials` maps a service's name to its password. `sync_interval: always` is what makes a PubAck mean durable; the
    broker's own default acknowledges two minutes before it writes.
    """
    lines = [
        'server_name: "sternpost"',
        'host: "127.0.0.1"',
        f"port: {port}",
        f"max_payload: {MAX_PAYLOAD}",
        f"max_pending: {MAX_PENDING}",
        'write_deadline: "10s"',
        "jetstream {",
        f"  store_dir: {json.dumps(str(data_dir))}",
        f"  max_file_store: {storage_mib}M",
        "  sync_interval: always",
        "}",
        "authorization {",
        "  users: [",
    ]
    for service, allowed in PERMISSIONS.items():
        publish = json.dumps(list(allowed.publish))
        subscribe = json.dumps([*allowed.subscribe, f"{inbox_prefix(service)}.>"])
        lines += [
            f"    {{ user: {json.dumps(str(service))}, password: {json.dumps(credentials[service])}, permissions: {{",
            f"        publish: {{ allow: {publish} }}",
            f"        subscribe: {{ allow: {subscribe} }}",
            '        allow_responses: { max: 1, expires: "1m" }',
            "    } }",
        ]
    return "\n".join([*lines, "  ]", "}", ""])
