"""Health, totals, metrics, the document and its page."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import signal

import pytest

from gateway.readiness import COMPONENTS
from gateway.routes import OPERATIONS
from local.process import until


async def test_live(client) -> None:
    """200 while the process serves."""
    answer = await client.get("/health")
    assert (answer.status, answer.body) == (200, {"status": "ok"})


async def test_ready_names_every_part(client) -> None:
    """All parts of all services, each up."""
    answer = await client.get("/dbhealth")
    parts = {f"{service}.{part}".rstrip(".") for service, parts in COMPONENTS.items() for part in parts}
    assert (answer.status, answer.body["status"]) == (200, "ok")
    assert dict.fromkeys(parts | {"gateway", "chain.BSC"}, "up") == answer.body["parts"]


async def test_not_ready_names_what_is_down(suite, client, merchant) -> None:
    """503 while the ledger hangs, within the bound; what does not need it goes on; ready again by itself."""
    process = suite.processes["ledger"]
    process._popen.send_signal(signal.SIGSTOP)
    try:

        async def down() -> bool:
            return bool((await client.get("/dbhealth")).status == 503)

        await until(down, "the ledger to be seen as down", bound=5)
        answer = await client.get("/dbhealth")
        assert (answer.status, answer.code, answer.headers["Retry-After"]) == (503, "not_ready", "1")
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert {"ledger", "ledger.database", "ledger.nats"} == {
            name for name, state in answer.body["parts"].items() if state == "down"
        }
        assert (await client.get("/health")).status == 200
        assert (await merchant.client.post("/orders", merchant.order())).status == 201
        refused = await merchant.client.get(f"/reconciliation?merchant_id={merchant.id}&asset=USDT")
        assert (refused.status, refused.code, refused.headers["Retry-After"]) == (503, "unavailable", "1")
        assert "127.0.0.1" not in refused.body["detail"]
    finally:
        process._popen.send_signal(signal.SIGCONT)

    async def up() -> bool:
        return bool((await client.get("/dbhealth")).status == 200)

    await until(up, "the ledger to be seen as up", bound=15)


async def test_chains(client, merchant, chain) -> None:
    """Those that have an endpoint, with the heights that were read a moment ago."""
    head, final = await chain.head(), await chain.finalized()
    answer = await merchant.client.get("/chains")
    [found] = answer.body["data"]
    assert (200, "BSC", 56, "ok") == (answer.status, *(found[name] for name in ("chain", "chain_id", "status")))

    async def seen() -> bool:
        [found] = (await merchant.client.get("/chains")).body["data"]
        return bool(found["head_number"] >= head and found["finalized_number"] >= final)

    await until(seen, "the heights to be seen", bound=5)


async def test_many_looks_are_one(client) -> None:
    """/dbhealth cannot be used to hammer the services."""
    answers = await asyncio.gather(*(client.get("/dbhealth") for _ in range(100)))
    assert {200} == {answer.status for answer in answers}


async def test_totals_count(client, merchant) -> None:
    """They grow with what is done, within a second or so."""
    before = (await client.get("/debug/metrics")).body
    assert {"orders_created_total", "refunds_processed_total", "payments_detected_total"} == set(before)
    await merchant.create()

    async def grown() -> bool:
        return bool((await client.get("/debug/metrics")).body["orders_created_total"] > before["orders_created_total"])

    await until(grown, "the count to grow", bound=5)


async def test_metrics_have_a_port_of_their_own(suite, client) -> None:
    """Prometheus text with the requests by route."""
    await client.get("/health")
    url = f"http://127.0.0.1:{suite.wiring.metrics_ports['gateway'][0]}/metrics"
    async with client._session.get(url) as answer:
        assert 'http_server_request_seconds_count{method="GET",route="/health",status="200"}' in await answer.text()


async def test_document(client) -> None:
    """Every operation is in it, with its examples and its errors."""
    document = (await client.get("/openapi.json")).body
    assert document["openapi"].startswith("3.1")
    documented = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert {(operation.method, operation.path) for operation in OPERATIONS} == documented
    order = document["components"]["schemas"]["CreateOrder"]
    assert order["additionalProperties"] is False
    assert tuple(order["properties"]["amount_minor"][name] for name in ("minimum", "maximum")) == (1, 2**53 - 1)
    status, limit, _cursor = (each["schema"] for each in document["paths"]["/orders"]["get"]["parameters"])
    assert ("PAID" in status["enum"], None in status["enum"], "integer") == (True, False, limit["type"])
    responses = document["paths"]["/orders"]["post"]["responses"]
    assert {"200", "201", "400", "401", "403", "404", "405", "413", "415", "422", "500", "503"} == set(responses)
    assert "idempotency_mismatch" in responses["422"]["description"]


async def test_page_needs_nothing_from_elsewhere(client) -> None:
    """No other host is named, and the policy lets only what is in the page run."""
    answer = await client.get("/docs")
    page = answer.body.decode()
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert re.findall(r"(?:src|href)=|https?://", page) == []
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    for tag in ("script", "style"):
        text = re.search(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL).group(1)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


@pytest.mark.parametrize("path", ["/health", "/dbhealth", "/debug/metrics", "/openapi.json", "/docs"])
async def test_take_no_parameters(client, path) -> None:
    """400 for what they do not know."""
    answer = await client.get(f"{path}?a=1")
    assert (answer.status, answer.body["errors"]) == (400, [{"field": "a", "message": "is not a known field"}])
