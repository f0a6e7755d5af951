"""Errors of the HTTP door as RFC 9457 problem details: one catalogue, one shape, no exception's own text.

The catalogue says for each problem its status and title; a `Problem` adds what is special to this request. It knows
refusals of the accept decision, but decides nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from sternpost_ingress import telemetry
from sternpost_ingress.accept import Refusal
from sternpost_ingress.compose import FieldError

log = structlog.get_logger()

TYPE_BASE = "https://sternpost.dev/problems/"
MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 50
"""Faults of one request that are listed: enough to mend it."""
RETRY_AFTER = 5
"""Seconds that a client is asked to wait where nothing better is known."""

CATALOGUE: dict[str, tuple[int, str]] = {
    "invalid-json": (400, "The body is not JSON"),
    "invalid-idempotency-key": (400, "The Idempotency-Key cannot be used"),
    "invalid-request": (400, "The request cannot be understood"),
    "unauthenticated": (401, "A valid API key is needed"),
    "sender-not-allowed": (403, "This sender may not be used"),
    "from-not-allowed": (403, "This author may not be used"),
    "relaying-denied": (403, "This recipient cannot be reached from here"),
    "not-found": (404, "There is nothing here"),
    "message-not-found": (404, "No such message"),
    "method-not-allowed": (405, "This method is not possible here"),
    "body-timeout": (408, "The body did not arrive in time"),
    "idempotency-in-flight": (409, "A request with this Idempotency-Key is being processed"),
    "not-cancellable": (409, "The message cannot be cancelled"),
    "too-large": (413, "The request is too large"),
    "unsupported-media-type": (415, "The body has a type that is not taken here"),
    "invalid-message": (422, "The message has faults"),
    "idempotency-mismatch": (422, "The Idempotency-Key was used for another request"),
    "recipient-refused": (422, "A recipient cannot be written to"),
    "rejected-by-rule": (422, "A rule rejects this mail"),
    "from-missing": (422, "The mail has no From field"),
    "from-multiple": (422, "The mail has several From fields"),
    "from-unreadable": (422, "The From field cannot be read"),
    "header-invalid": (422, "The header cannot be taken"),
    "mail-loop": (422, "The mail is going round in circles"),
    "rate-limited": (429, "Too many requests"),
    "internal": (503, "Something failed here"),
    "not-ready": (503, "The service is not ready yet"),
    "auth-unavailable": (503, "The API key cannot be verified now"),
    "overloaded": (503, "Too much is being sent at once"),
    "spool-unavailable": (503, "Mail cannot be stored now"),
    "spool-full": (503, "The store of mail is full"),
    "outcome-unknown": (503, "It is not known whether the message was accepted"),
    "idempotency-unavailable": (503, "The Idempotency-Key cannot be checked now"),
    "query-unavailable": (503, "Messages cannot be looked up now"),
    "cancel-unavailable": (503, "Messages cannot be cancelled now"),
}
"""Every problem: its status and its title. The type is the slug below TYPE_BASE."""


class ProblemError(BaseModel):
    """One fault of the request."""

    field: str = Field(description="path of the member that is to blame, such as `attachments.0.filename`")
    message: str


class ProblemDetails(BaseModel):
    """RFC 9457 problem details; the answer to everything that did not work."""

    type: str = Field(examples=[TYPE_BASE + "invalid-message"])
    title: str
    status: int
    detail: str = Field(description="what is wrong with this request, for a person")
    errors: list[ProblemError] = Field(default_factory=list)


class Problem(Exception):
    """Raised anywhere below a route, answered as problem details."""

    def __init__(
        self,
        slug: str,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        retry_after: int | None = None,
        headers: Mapping[str, str] | None = None,
        **more: str,
    ) -> None:
        super().__init__(f"{slug}: {detail}")
        self.slug = slug
        self.status, self.title = CATALOGUE[slug]
        self.detail = detail
        self.errors = tuple(errors)
        self.more = more
        """Further members, such as the `id` of the message concerned."""
        if retry_after is None and self.status in (429, 503):
            retry_after = RETRY_AFTER
        self.headers = {**(headers or {}), **({"Retry-After": str(retry_after)} if retry_after is not None else {})}

    def response(self) -> Response:
        """The answer."""
        body: dict[str, Any] = {
            "type": TYPE_BASE + self.slug,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            **self.more,
        }
        if self.errors:
            body["errors"] = [asdict(error) for error in self.errors[:MAX_ERRORS]]
        return Response(to_json(body), self.status, {**self.headers, "Cache-Control": "no-store"}, MEDIA_TYPE)


def problem_of(refusals: Sequence[tuple[str, Refusal]]) -> Problem:
    """The problem of refusals by the accept decision, each with the member of the request that it is about."""
    first = refusals[0][1]
    errors = [FieldError(field or refusal.field, refusal.text) for field, refusal in refusals if field or refusal.field]
    return Problem(first.problem, first.text, errors=errors)


def problem_of_validation(error: ValidationError) -> Problem:
    """The problem of a body that does not fit its model."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    if details and details[0]["type"] == "json_invalid":
        return Problem("invalid-json", details[0]["msg"])
    return Problem("invalid-message", _summary(len(details)), errors=[_field_error(detail, 0) for detail in details])


def _summary(count: int) -> str:
    return "one member is not valid" if count == 1 else f"{count} members are not valid"


def _field_error(detail: Mapping[str, Any], skip: int) -> FieldError:
    path = ".".join(str(part) for part in detail["loc"][skip:])
    return FieldError(_printable(path), _printable(str(detail["msg"]).removeprefix("Value error, ")))


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)[:300]


def install(app: FastAPI) -> None:
    """Answer every error of the application as a problem, the framework's own too."""

    async def problem(_request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)  # noqa: S101 - what the handler is registered for
        return error.response()

    async def framework(_request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - what the handler is registered for
        slug = {404: "not-found", 405: "method-not-allowed", 413: "too-large"}.get(error.status_code, "invalid-request")
        phrase = HTTPStatus(error.status_code).phrase
        return Problem(slug, f"{phrase}.", headers=error.headers).response()

    async def parameters(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101 - what the handler is registered for
        found = error.errors()
        return Problem(
            "invalid-request", _summary(len(found)), errors=[_field_error(detail, 1) for detail in found]
        ).response()

    async def fault(request: Request, error: Exception) -> Response:
        # Our own fault is never a verdict on the mail (promise P3): the client may come again.
        telemetry.fault("http")
        log.error("http_fault", path=request.url.path, error=type(error).__name__, exc_info=error)
        return Problem("internal", "An unexpected fault; the request may be repeated.").response()

    app.add_exception_handler(Problem, problem)
    app.add_exception_handler(HTTPException, framework)
    app.add_exception_handler(RequestValidationError, parameters)
    app.add_exception_handler(Exception, fault)
