"""The gateway as a process: what it does when it or a service is stopped."""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import replace

import pytest

from local.ports import free_port
from local.process import Process, running, until


@pytest.fixture
def replica(suite):
    """A second gateway, to be run: a suite with addresses of its own in front of the same services."""
    ports = {**suite.wiring.ports, "gateway": [free_port()]}
    metrics_ports = {**suite.wiring.metrics_ports, "gateway": [free_port()]}
    wiring = replace(suite.wiring, ports=ports, metrics_ports=metrics_ports)
    return replace(suite, wiring=wiring, url=f"http://127.0.0.1:{ports['gateway'][0]}")


async def test_replicas_are_alike(replica, merchant) -> None:
    """A gateway that has just started knows every key and order: it holds no state."""
    order = await merchant.create()
    async with running(replica.service("gateway")):
        read = await merchant.client.at(replica.url).get(f"/orders/{order['id']}")
        assert (200, order) == (read.status, read.body)


async def test_stops_after_what_it_has_begun(replica, merchant) -> None:
    """SIGTERM under load: every request that was taken is answered, then the process ends well."""
    client = merchant.client.at(replica.url)
    async with running(replica.service("gateway")) as process:
        assert (await client.get("/orders")).status == 200
        requests = [asyncio.create_task(client.post("/orders", merchant.order())) for _ in range(100)]
        await asyncio.wait(requests, return_when=asyncio.FIRST_COMPLETED)
        process._popen.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 15) == 0
    outcomes = await asyncio.gather(*requests, return_exceptions=True)
    answered = [outcome for outcome in outcomes if not isinstance(outcome, OSError)]
    assert answered
    assert {201} == {answer.status for answer in answered}
    assert "batch_failed" not in replica.log("gateway")


async def test_orders_that_hang_are_waited_for_a_bounded_time(suite, merchant) -> None:
    """503 with Retry-After within seconds; the same requests later complete the work."""
    process = suite.processes["orders"]
    bodies = [merchant.order() for _ in range(20)]
    await merchant.create()
    process._popen.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        refused = await asyncio.gather(*(merchant.client.post("/orders", body) for body in bodies))
        assert time.monotonic() - began < 8
    finally:
        process._popen.send_signal(signal.SIGCONT)
    assert {(503, "1")} == {(answer.status, answer.headers["Retry-After"]) for answer in refused}
    assert {"application/problem+json"} == {answer.headers["Content-Type"] for answer in refused}

    async def complete() -> bool:
        answers = await asyncio.gather(*(merchant.client.post("/orders", body) for body in bodies))
        return {answer.status for answer in answers} <= {200, 201}

    await until(complete, "the orders to be made", bound=15)


@pytest.mark.parametrize("key", ["change-me-change-me-change-me-change-me", "short"])
async def test_refuses_to_start_on_a_weak_secret(replica, key) -> None:
    """Outside the local runner; the secret itself is not shown."""
    command = replica.service("gateway").command()
    environment = {**command.env, "OSPAY_ENVIRONMENT": "production", "GATEWAY_ADMIN_KEY": key}
    process = Process(replace(command, env=environment))
    assert await asyncio.wait_for(process.wait(), 20) != 0
    log = replica.log("gateway")
    assert "admin_key" in log
    assert key not in log
