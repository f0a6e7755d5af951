"""Real clients send through the real platform; what arrives in the sink is what they sent, octet for octet."""

import asyncio
import json
import os
import shutil
import smtplib
import ssl
import textwrap
import uuid
from email import message_from_bytes
from email.policy import default
from pathlib import Path

import httpx
import pytest

from tests.support.platform import Platform
from tools.fetch import nodemailer_folder

pytestmark = pytest.mark.e2e


def unique() -> str:
    return uuid.uuid4().hex[:12]


def compose(token: str) -> bytes:
    lines = [
        "From: Sender <hello@example.test>",
        f"To: <{token}@example.org>",
        f"Subject: =?utf-8?q?gr=C3=BC=C3=9Fe?= {token}",
        "Date: Mon, 23 Nov 2026 10:00:00 +0000",
        f"Message-ID: <{token}@example.test>",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
        "X-Odd:   spaces and\ttabs\t ",
        "",
        "grüße",
        ".a line that begins with a dot",
        "..two dots",
        ".",
        "trailing spaces   ",
        "x" * 998,
        "",
        "",
    ]
    return "\r\n".join(lines).encode()


async def arrived(platform: Platform, token: str) -> bytes:
    [message] = await platform.wait_sink(1, recipient=f"{token}@example.org")
    return await platform.sink_raw(message["id"])


def body_of(raw: bytes, first: bytes) -> bytes:
    """What was submitted: everything from its first header on; what stands above is ours."""
    at = raw.index(first)
    assert raw[:at].startswith(b"Received: ")
    return raw[at:]


@pytest.mark.parametrize("door", ["submission", "submissions"])
async def test_smtplib_octets_arrive_unchanged(platform: Platform, door: str) -> None:
    token = unique()
    content = compose(token)
    context = ssl.create_default_context(cafile=str(platform.ca_file))

    def send() -> None:
        if door == "submission":
            client: smtplib.SMTP = smtplib.SMTP("localhost", platform.ports.submission_port, timeout=20)
            client.starttls(context=context)
        else:
            client = smtplib.SMTP_SSL("localhost", platform.ports.submissions_port, timeout=20, context=context)
        with client:
            client.login(platform.values["SMTP_USER"], platform.values["SMTP_PASSWORD"])
            client.sendmail("hello@example.test", [f"{token}@example.org"], content, mail_options=["BODY=8BITMIME"])

    await asyncio.to_thread(send)
    assert body_of(await arrived(platform, token), b"From: Sender") == content


def peer(name: str) -> str:
    """The path of a third-party client; where it is missing CI fails and a developer's machine skips, both in words."""
    found = shutil.which(name)
    if found is None:
        text = f"{name} is not installed: `make tools` as root installs it"
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)
    return found


async def run(*command: str, data: bytes = b"", cwd: Path | None = None) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=cwd,
    )
    output, _ = await asyncio.wait_for(process.communicate(data), 60)
    assert process.returncode == 0, output.decode(errors="replace")
    return output.decode(errors="replace")


@pytest.mark.parametrize("door", ["submission", "submissions"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
async def test_swaks_sends_by_both_doors(platform: Platform, door: str, mechanism: str, tmp_path: Path) -> None:
    token = unique()
    tls = ["--tls"] if door == "submission" else ["--tls-on-connect"]
    port = platform.ports.submission_port if door == "submission" else platform.ports.submissions_port
    content = compose(token)
    source = tmp_path / "mail.eml"
    source.write_bytes(content.replace(b"\r\n", b"\n"))
    output = await run(
        peer("swaks"),
        *("--server", "localhost", "--port", str(port), *tls, "--tls-verify"),
        *("--tls-ca-path", str(platform.ca_file)),
        *("--auth", mechanism, "--auth-user", platform.values["SMTP_USER"]),
        *("--auth-password", platform.values["SMTP_PASSWORD"], "--hide-all"),
        *("--from", "hello@example.test", "--to", f"{token}@example.org", "--data", f"@{source}"),
    )
    assert "rejected" not in output
    assert body_of(await arrived(platform, token), b"From: Sender").rstrip() == content.rstrip()


@pytest.mark.parametrize("door", ["submission", "submissions"])
async def test_msmtp_sends_by_both_doors(platform: Platform, door: str, tmp_path: Path) -> None:
    token = unique()
    port = platform.ports.submission_port if door == "submission" else platform.ports.submissions_port
    config = tmp_path / "msmtprc"
    config.write_text(
        textwrap.dedent(f"""\
        account default
        host localhost
        port {port}
        tls on
        tls_starttls {"on" if door == "submission" else "off"}
        tls_trust_file {platform.ca_file}
        auth plain
        user {platform.values["SMTP_USER"]}
        password {platform.values["SMTP_PASSWORD"]}
        from hello@example.test
        """)
    )
    config.chmod(0o600)
    content = compose(token)
    await run(peer("msmtp"), "-C", str(config), f"{token}@example.org", data=content.replace(b"\r\n", b"\n"))
    assert body_of(await arrived(platform, token), b"From: Sender") == content


@pytest.mark.parametrize("door", ["submission", "submissions"])
async def test_nodemailer_sends_by_both_doors(platform: Platform, door: str, tmp_path: Path) -> None:
    node = peer("node")
    modules = nodemailer_folder() / "node_modules"
    if not (modules / "nodemailer").is_dir():
        text = "nodemailer is not installed: `make tools` installs it where npm is"
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)
    token = unique()
    port = platform.ports.submission_port if door == "submission" else platform.ports.submissions_port
    options = {
        "host": "localhost",
        "port": port,
        "secure": door == "submissions",
        "requireTLS": True,
        "auth": {"user": platform.values["SMTP_USER"], "pass": platform.values["SMTP_PASSWORD"]},
    }
    script = tmp_path / "send.cjs"
    script.write_text(
        f"const nodemailer = require({json.dumps(str(modules / 'nodemailer'))});\n"
        f"const ca = require('fs').readFileSync({json.dumps(str(platform.ca_file))});\n"
        f"const transport = nodemailer.createTransport({{...{json.dumps(options)}, tls: {{ca}}}});\n"
        "transport.sendMail({from: 'hello@example.test', to: '" + token + "@example.org', subject: 'n " + token + "',"
        " text: 'grüße', html: '<b>grüße</b>', attachments: [{filename: 'ä.bin', content: Buffer.alloc(70000, 7)}]})"
        ".then(i => console.log(i.response)).catch(e => { console.error(e); process.exit(1); });\n"
    )
    output = await run(node, str(script))
    assert output.startswith("250 2.")
    message = message_from_bytes(await arrived(platform, token), policy=default)
    assert message["Subject"] == f"n {token}"
    [attachment] = message.iter_attachments()
    assert (attachment.get_filename(), attachment.get_content()) == ("ä.bin", b"\x07" * 70000)


async def test_http_mail_is_well_formed_and_its_timeline_ends_in_delivered(platform: Platform) -> None:
    token = unique()
    body = {
        "from": "Grüße <hello@example.test>",
        "to": [f"{token}@example.org"],
        "subject": f"Grüße {token}",
        "text": "grüße\n.\nend",
        "html": "<p>grüße</p>",
        "attachments": [{"filename": "a.txt", "content": "aGVsbG8=", "content_type": "text/plain"}],
        "tags": ["first"],
        "metadata": {"order": "17"},
    }
    async with httpx.AsyncClient(base_url=platform.url, headers=platform.headers, timeout=20) as client:
        answer = await client.post("/v1/messages", json=body)
    assert answer.status_code == 202, answer.text
    raw = await arrived(platform, token)
    assert raw.replace(b"\r\n", b"").count(b"\n") == raw.replace(b"\r\n", b"").count(b"\r") == 0
    message = message_from_bytes(raw, policy=default)
    assert message["Subject"] == f"Grüße {token}"
    text = message.get_body(("plain",))
    assert text is not None
    assert text.get_content().splitlines() == ["grüße", ".", "end"]
    assert [part.get_filename() for part in message.iter_attachments()] == ["a.txt"]
    found = await platform.wait_state(answer.json()["id"], "delivered")
    assert found["tags"] == ["first"]
    assert found["metadata"] == {"order": "17"}
    [recipient] = found["recipients"]
    assert recipient["last_reply"].startswith("250")
    assert [entry["kind"] for entry in found["timeline"]] == ["accepted", "attempt"]


async def test_raw_http_octets_arrive_unchanged(platform: Platform) -> None:
    token = unique()
    content = compose(token)
    async with httpx.AsyncClient(base_url=platform.url, headers=platform.headers, timeout=20) as client:
        answer = await client.post(
            "/v1/messages/raw",
            params={"from": "hello@example.test", "to": f"{token}@example.org"},
            content=content,
            headers={"Content-Type": "message/rfc822"},
        )
    assert answer.status_code == 202, answer.text
    assert body_of(await arrived(platform, token), b"From: Sender") == content


async def test_a_large_mail_goes_by_the_object_store_and_arrives_whole(platform: Platform) -> None:
    token = unique()
    content = compose(token) + b"".join(b"%075d\r\n" % number for number in range(40_000))
    context = ssl.create_default_context(cafile=str(platform.ca_file))

    def send() -> None:
        with smtplib.SMTP_SSL("localhost", platform.ports.submissions_port, timeout=60, context=context) as client:
            client.login(platform.values["SMTP_USER"], platform.values["SMTP_PASSWORD"])
            client.sendmail("hello@example.test", [f"{token}@example.org"], content, mail_options=["BODY=8BITMIME"])

    await asyncio.to_thread(send)
    assert body_of(await arrived(platform, token), b"From: Sender") == content
