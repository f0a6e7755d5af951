"""The HTTP door: wires its parts into a FastAPI application, with one description of all of it (OpenAPI 3.1).

What a request means is in `http_submit`, what becomes of it in `http_send` and `http_query`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from sternpost_ingress import problems
from sternpost_ingress.http_client import Bodies, Gate, Identify
from sternpost_ingress.http_models import RawRequest, SendRequest
from sternpost_ingress.http_query import Queries
from sternpost_ingress.http_send import Sending
from sternpost_ingress.http_settings import HttpSettings
from sternpost_ingress.idempotency import BucketLike, Idempotency
from sternpost_ingress.problems import MEDIA_TYPE, ProblemDetails
from sternpost_ingress.spool import Spool
from sternpost_mail.config import Config
from sternpost_runtime.subjects import BUCKET_IDEMPOTENCY

API_VERSION = "1"


class DoorBus(Protocol):
    """The part of the bus that the HTTP door needs; `sternpost_runtime.bus.Bus` has it."""

    async def request(self, subject: str, payload: bytes, *, timeout: float) -> bytes:
        """The answer to a request; raises BusError."""

    def bucket(self, name: str) -> BucketLike:
        """A key-value bucket."""


@dataclass(frozen=True, slots=True)
class HttpDeps:
    """What the HTTP door is given by the composition root."""

    spool: Spool
    identify: Identify
    config: Callable[[], Config]
    bus: DoorBus
    settings: HttpSettings
    hostname: str
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    """Milliseconds since the epoch."""


def create_app(deps: HttpDeps) -> FastAPI:
    """The application; a server such as uvicorn runs it."""
    settings = deps.settings
    app = FastAPI(
        title="Sternpost",
        version=API_VERSION,
        description="Hand in mail, and see what became of it. Errors are problem details (RFC 9457).",
        docs_url="/docs" if settings.docs else None,
        redoc_url=None,
        redirect_slashes=False,
    )
    problems.install(app)
    gate = Gate(deps.identify, settings)
    idempotency = Idempotency(deps.bus.bucket(BUCKET_IDEMPOTENCY), deps.now_ms)
    sending = Sending(
        deps.spool, gate, Bodies(settings), idempotency, deps.config, settings, deps.hostname, deps.now_ms
    )
    router = APIRouter(responses=_problem_responses())
    sending.add_to(router)
    Queries(deps.bus, gate, settings).add_to(router)
    app.include_router(router)
    app.openapi = lambda: _describe(app)  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    return app


def _problem_responses() -> dict[int | str, dict[str, Any]]:
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}}
    return {status: {"description": "problem details", "content": content} for status in ("4XX", "5XX")}


def _describe(app: FastAPI) -> dict[str, Any]:
    """The description, with the models of bodies that the routes read themselves."""
    if app.openapi_schema is None:
        described = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        _, extra = models_json_schema(
            [(model, "validation") for model in (SendRequest, RawRequest, ProblemDetails)],
            ref_template="#/components/schemas/{model}",
        )
        components = described.setdefault("components", {})
        schemas = components.setdefault("schemas", {})
        schemas.update(extra["$defs"])
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        for path in described["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)  # FastAPI's own shape, which is never sent
        components["securitySchemes"] = {"apiKey": {"type": "http", "scheme": "bearer"}}
        described["security"] = [{"apiKey": []}]
        app.openapi_schema = described
    return app.openapi_schema
