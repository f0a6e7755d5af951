"""The HTTP API as the commands use it: where it is, the key, and answers mapped to exit codes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from sternpost_cli.output import EXIT_FAILURE, EXIT_NOT_FOUND, EXIT_UNREACHABLE, EXIT_USAGE, describe_problem, fail
from sternpost_cli.quickstart import parse_environment

REQUEST_SECONDS = 30.0
"""Longer than the API's own limit of 15 s for an acceptance whose outcome is unknown."""


@dataclass(frozen=True, slots=True)
class Target:
    """Which API, and the key for it."""

    url: str
    api_key: str


def find_target(url: str, api_key: str, data: Path) -> Target:
    """What was given, else what quickstart.env of the data directory says. Ends with exit code 2 where nothing does."""
    known: dict[str, str] = {}
    if not (url and api_key):
        quickstart = data / "quickstart.env"
        try:
            known = parse_environment(quickstart.read_text(encoding="utf-8"))
        except FileNotFoundError:
            fail(
                f"no API is known: give --url and --api-key, or STERNPOST_URL and STERNPOST_API_KEY, or --data of a "
                f"platform that `sternpost up` started ({quickstart} does not exist)",
                EXIT_USAGE,
            )
        except (OSError, ValueError) as error:
            fail(f"{quickstart} cannot be read: {error}", EXIT_USAGE)
    target = Target((url or known.get("STERNPOST_URL", "")).rstrip("/"), api_key or known.get("STERNPOST_API_KEY", ""))
    if not target.url.startswith(("http://", "https://")):
        fail(f"{target.url!r} is not the URL of an HTTP API", EXIT_USAGE)
    if not target.api_key:
        fail("no API key: give --api-key or STERNPOST_API_KEY", EXIT_USAGE)
    return target


def call(
    target: Target,
    method: str,
    path: str,
    *,
    json: object | None = None,
    headers: Mapping[str, str] | None = None,
    params: Sequence[tuple[str, str]] = (),
) -> Any:
    """One request; the decoded JSON of its answer, None where it has no body. Ends the program on every failure."""
    import httpx

    try:
        answer = httpx.request(
            method,
            target.url + path,
            json=json,
            params=list(params),
            headers={"Authorization": f"Bearer {target.api_key}", **(headers or {})},
            timeout=REQUEST_SECONDS,
        )
    except httpx.InvalidURL as error:
        fail(f"{target.url} is not a usable URL: {error}", EXIT_USAGE)
    except httpx.TransportError as error:
        fail(f"{target.url} cannot be reached: {error or type(error).__name__}", EXIT_UNREACHABLE)
    try:
        body = answer.json() if answer.content else None
    except ValueError:
        body = None
    if not answer.is_success:
        _refused(answer.status_code, body, answer.headers.get("Retry-After", ""))
    return body


def _refused(status: int, body: object, wait: str) -> NoReturn:
    text = describe_problem(status, body if isinstance(body, dict) else {})
    if status in (429, 503):
        fail(text + (f"; try again in {wait} s" if wait else ""), EXIT_UNREACHABLE)
    fail(text, EXIT_NOT_FOUND if status == 404 else EXIT_FAILURE)
