"""What the machine can do: the figures that everything else is divided by."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import grpc.aio

from bench.echo import METHOD, PAYLOAD
from bench.load import http
from bench.stage import Stage
from bench.traffic import drive
from local.postgres import INSTALLED

PGBENCH = INSTALLED / "bin" / "pgbench"
ECHO_CALLS = 64
RECEIPT_CONNECTIONS = 64

Call = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]


async def inserts(stage: Stage) -> float:
    """One-row inserts per second by pgbench, 16 clients, into an empty table of the orders database itself."""
    await stage.execute(
        "orders",
        "CREATE TABLE IF NOT EXISTS bench_row (id uuid PRIMARY KEY, note text NOT NULL)",
        "TRUNCATE bench_row",
    )
    url = stage.run["database_owners"]["orders"]
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write("INSERT INTO bench_row VALUES (gen_random_uuid(), repeat('x', 200));\n")
        script.flush()
        command = [str(PGBENCH), "-n", "-c16", "-j2", "-M", "prepared", f"-T{stage.sizes.limit_seconds:.0f}"]
        done = await asyncio.to_thread(
            subprocess.run, [*command, "-f", script.name, url], capture_output=True, text=True, check=True
        )
    await stage.checkpoint()  # what it leaves to be written must not be written while we are measured
    line = next(line for line in done.stdout.splitlines() if line.startswith("tps"))
    return float(line.split()[2])


async def receipts(stage: Stage, hashes: Sequence[str]) -> float:
    """Receipts per second from the node itself, one call in a request, of random ones of these transactions."""
    requests = [
        http("POST", "/", None, json.dumps(_call(number, tx)).encode())
        for number, tx in enumerate(random.sample(hashes, len(hashes)))
    ]
    done = await drive(
        stage.run["rpc_url"],
        requests,
        connections=RECEIPT_CONNECTIONS,
        seconds=stage.sizes.limit_seconds,
        good=200,
        again=True,
    )
    return done.per_second


def _call(number: int, tx_hash: str) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": number, "method": "eth_getTransactionReceipt", "params": [tx_hash]}


async def echoes(seconds: float) -> float:
    """Unary calls per second of a bare grpc.aio server by a bare grpc.aio client, 64 at a time."""
    server = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.echo", stdout=asyncio.subprocess.PIPE)
    assert server.stdout is not None
    port = int(await server.stdout.readline())
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", [("grpc.enable_http_proxy", 0)]) as channel:
            call: Call = channel.unary_unary(METHOD)
            await call(PAYLOAD, wait_for_ready=True, timeout=10)
            counts = await asyncio.gather(*(_echo(call, time.perf_counter() + seconds) for _ in range(ECHO_CALLS)))
    finally:
        server.terminate()
        await server.wait()
    return sum(counts) / seconds


async def _echo(call: Call, deadline: float) -> int:
    count = 0
    while time.perf_counter() < deadline:
        assert await call(PAYLOAD, timeout=10) == PAYLOAD
        count += 1
    return count
