"""The composition root: the only place that constructs things."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable

import uvicorn
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.access_log import AccessLog
from gateway.batches import Batches
from gateway.coalescer import Coalescer
from gateway.connection import Connection, Server
from gateway.downstream import Services, ask
from gateway.endpoint import Endpoint, Gate
from gateway.keys import KeyCache
from gateway.openapi import document
from gateway.operation import Operation
from gateway.readiness import Readiness
from gateway.remembered import Remembered
from gateway.routes import OPERATIONS
from gateway.schemas.answers import ChainStatus
from gateway.settings import Settings
from gateway.translation import chains_of
from kit.channel import Peer
from kit.process import Process
from ospay.ledger.v1 import ledger_pb2_grpc
from ospay.orders.v1 import orders_pb2, orders_pb2_grpc
from ospay.verifier.v1 import verifier_pb2, verifier_pb2_grpc

BACKLOG = 2048
STOP_SECONDS = 10
SWEEP_SECONDS = 1.0
REMEMBER_SECONDS = 1.0
# A batch costs its services about as much as 20 items do: while one is under way, another must be worth it. Ratio of
# the CPU of all services per create to that with at most 64 and no lower bound: 0.83 at 64 connections, 0.93 at 256.
MAX_BATCH = 128
MIN_AHEAD = 32
# A look at a key is on the way of every request that comes with a new one.
KEY_SECONDS = 3.0
# The verifier waits 2 s for an endpoint that hangs, and then says so.
CHAINS_SECONDS = 3.0


async def start(process: Process, settings: Settings) -> int:
    """Opens everything and serves. Returns the port. Errors: OSError when the address is taken."""
    access_log = AccessLog(settings.log_level)
    access_log.start(process)
    router = application(Gate(_services(process, settings), access_log), OPERATIONS)
    listener = _listen(settings.http_listen)
    server = Server(
        uvicorn.Config(
            router,
            loop="none",
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
    )
    serving = asyncio.create_task(_serve(process, server, listener), name="http")

    async def stop() -> None:
        server.should_exit = True
        await serving

    process.drains.push_async_callback(stop)
    process.every(SWEEP_SECONDS, "cut overdue connections", server.cut_overdue)
    return int(listener.getsockname()[1])


def application(gate: Gate, operations: Iterable[Operation]) -> ASGIApp:
    """The ASGI application."""
    by_path: dict[str, list[Operation]] = {}
    for operation in operations:
        by_path.setdefault(operation.path, []).append(operation)
    endpoints = {path: Endpoint(gate, path, found) for path, found in by_path.items()}
    routes = [Route(path, endpoint) for path, endpoint in endpoints.items()]
    plain = {path: endpoint for path, endpoint in endpoints.items() if "{" not in path}
    router = Router(routes, redirect_slashes=False, default=Endpoint(gate, "", ()))

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        # Most paths have no parameter: a look-up instead of one pattern after the other.
        await plain.get(scope["path"], router)(scope, receive, send)

    return application


def _services(process: Process, settings: Settings) -> Services:
    def peer(target: str) -> Peer:
        opened = Peer(target, token=settings.grpc_token, tls=settings.tls)
        process.resources.push_async_callback(opened.close)
        return opened

    to_orders, to_ledger = peer(settings.orders_target), peer(settings.ledger_target)
    to_verifier = peer(settings.verifier_target)
    orders = orders_pb2_grpc.OrderServiceStub(to_orders.channel)
    merchants = orders_pb2_grpc.MerchantServiceStub(to_orders.channel)
    verifier = verifier_pb2_grpc.VerifierServiceStub(to_verifier.channel)

    async def find_merchant(key: str) -> str:
        request = orders_pb2.AuthenticateApiKeyRequest(api_key=key)
        response = await ask(to_orders, merchants.AuthenticateApiKey, request, timeout=KEY_SECONDS)
        return response.merchant_id

    async def count_all() -> orders_pb2.GetTotalsResponse:
        return await ask(to_orders, orders.GetTotals, orders_pb2.GetTotalsRequest())

    async def list_chains() -> list[ChainStatus]:
        request = verifier_pb2.ListChainsRequest()
        return chains_of(await ask(to_verifier, verifier.ListChains, request, timeout=CHAINS_SECONDS))

    batches = Batches(to_orders, orders)
    chains = Remembered(list_chains, seconds=REMEMBER_SECONDS)
    readiness = Readiness({"orders": to_orders, "ledger": to_ledger, "verifier": to_verifier}, chains.get)
    return Services(
        orders_peer=to_orders,
        orders=orders,
        merchants=merchants,
        ledger_peer=to_ledger,
        ledger=ledger_pb2_grpc.LedgerServiceStub(to_ledger.channel),
        creates=Coalescer(batches.create, max_batch=MAX_BATCH, min_ahead=MIN_AHEAD),
        reads=Coalescer(batches.get, max_batch=MAX_BATCH, min_ahead=MIN_AHEAD),
        claims=Coalescer(batches.detect),
        keys=KeyCache(find_merchant),
        admin_key=settings.admin_key,
        # Shared by those who ask at the same time, and never older than the question.
        totals=Remembered(count_all, seconds=0),
        chains=chains,
        readiness=Remembered(readiness.look, seconds=REMEMBER_SECONDS),
        openapi=document(OPERATIONS),
    )


def _listen(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host.strip("[]"), int(port)), family=family, backlog=BACKLOG)


async def _serve(process: Process, server: Server, listener: socket.socket) -> None:
    try:
        await server.serve([listener])
    except Exception as error:
        process.stop(error)
    else:
        if not process.stopping:
            process.stop(RuntimeError("the HTTP server ended by itself"))
