"""For operators and tools: health, totals, the contract itself."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources

from gateway import problem
from gateway.downstream import Services
from gateway.exchange import Answer, Call, json_answer
from gateway.operation import Operation, Success
from gateway.schemas.answers import Live, Ready, Totals
from gateway.schemas.given import Nothing

_PAGE = resources.files("gateway").joinpath("docs.html").read_bytes()


async def get_totals(services: Services, _call: Call, _given: Nothing) -> Answer:
    """Counts of the whole system, at most a second old."""
    totals = await services.totals.get()
    body = Totals(totals.orders_created_total, totals.refunds_processed_total, totals.payments_detected_total)
    return json_answer(200, body)


async def get_live(_services: Services, _call: Call, _given: Nothing) -> Answer:
    """This process serves."""
    return json_answer(200, Live())


async def get_ready(services: Services, call: Call, _given: Nothing) -> Answer:
    """Every part of the system, at most a second old."""
    parts = await services.readiness.get()
    if "down" not in parts.values():
        return json_answer(200, Ready("ok", parts))
    body = problem.not_ready(parts, instance=call.instance, request_id=call.request_id)
    return Answer(503, body, problem.headers_of(503), problem.CONTENT_TYPE)


async def get_openapi(services: Services, _call: Call, _given: Nothing) -> Answer:
    """The contract."""
    return Answer(200, services.openapi)


async def get_docs(_services: Services, _call: Call, _given: Nothing) -> Answer:
    """A page for people that shows the contract."""
    return Answer(200, _PAGE, ((b"content-security-policy", _POLICY),), b"text/html; charset=utf-8")


def _policy(page: bytes) -> bytes:
    """Only what is in the page itself may run, and it may ask only this server."""
    sources = []
    for kind, tag in ((b"script-src", b"script"), (b"style-src", b"style")):
        found = re.search(b"<" + tag + b">(.*?)</" + tag + b">", page, re.DOTALL)
        text = found.group(1) if found else b""
        sources.append(kind + b" 'sha256-" + base64.b64encode(hashlib.sha256(text).digest()) + b"'")
    return b"default-src 'none'; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'; " + b"; ".join(sources)


_POLICY = _policy(_PAGE)

OPERATIONS = (
    Operation(
        method="GET",
        path="/health",
        name="getLive",
        summary="Whether this process serves",
        handler=get_live,
        success=(Success(200, "It does.", Live, {"status": "ok"}),),
    ),
    Operation(
        method="GET",
        path="/dbhealth",
        name="getReady",
        summary="Whether no part of the system is down",
        handler=get_ready,
        success=(
            Success(200, "None is down.", Ready, {"status": "ok", "parts": {"orders": "up", "chain.BSC": "degraded"}}),
        ),
        errors=((503, "not_ready"),),
    ),
    Operation(
        method="GET",
        path="/debug/metrics",
        name="getTotals",
        summary="Counts of the whole system since its first start",
        handler=get_totals,
        success=(
            Success(
                200,
                "The counts.",
                Totals,
                {"orders_created_total": 3, "refunds_processed_total": 1, "payments_detected_total": 2},
            ),
        ),
    ),
    Operation(
        method="GET",
        path="/openapi.json",
        name="getOpenApi",
        summary="This document",
        handler=get_openapi,
        success=(Success(200, "OpenAPI 3.1.", None),),
    ),
    Operation(
        method="GET",
        path="/docs",
        name="getDocs",
        summary="This document for people",
        handler=get_docs,
        success=(Success(200, "A page.", None, media_type="text/html"),),
    ),
)
