"""The composition root: the only place that constructs things."""

from __future__ import annotations

from datetime import timedelta

from chains import Registry
from kit.bus import Bus
from kit.channel import Peer
from kit.database import Database
from kit.process import Process
from kit.server import Server, Service
from orders.consumer import STREAMS, Consumer
from orders.doorbell import Doorbell
from orders.expiry import Expiry
from orders.heights import Heights
from orders.keys import KeyHasher
from orders.messages import Reader
from orders.peers import Ledger, Verifier
from orders.reports import Reports
from orders.rpc.merchants import MerchantService
from orders.rpc.orders import OrderService
from orders.rpc.suspense import SuspenseService
from orders.settings import Settings
from orders.sweeper import Sweeper
from orders.verification import Verification
from orders.watching import Watching
from orders.workflow import settlement
from orders.workflow.watches import watch_missing
from ospay.orders.v1 import orders_pb2_grpc as grpc

# How long the doorbell's way may take before the sweeper goes.
FIRST_LOOK = timedelta(seconds=5)
SCHEDULE_SECONDS = 1.0
COUNT_SECONDS = 0.5
WATCH_SECONDS = 60.0
MEASURE_SECONDS = 10.0
BATCH = 1000


async def start(process: Process, settings: Settings) -> Server:
    """Opens everything and returns the server, serving."""
    registry = Registry.load(settings.chains_file)
    database = await Database.open(
        settings.database_url.get_secret_value(), application="orders", size=settings.database_pool
    )
    process.resources.push_async_callback(database.close)
    bus = Bus(settings.nats_url, name="orders", streams=STREAMS)
    bus.start(process)
    doorbell = Doorbell(bus, process)
    doorbell.start()
    to_verifier = Peer(settings.verifier_target, token=settings.grpc_token, tls=settings.tls)
    to_ledger = Peer(settings.ledger_target, token=settings.grpc_token, tls=settings.tls)
    process.resources.push_async_callback(to_verifier.close)
    process.resources.push_async_callback(to_ledger.close)
    reader = Reader(registry)
    verifier = Verifier(to_verifier, reader)
    watching = Watching(database, verifier, process)
    watching.start()
    verification = Verification(
        database,
        doorbell,
        verifier,
        max_queued=settings.claim_queue_max,
        give_up_after=settings.claim_ttl,
        first_look=FIRST_LOOK,
    )
    sweeper = Sweeper(database, doorbell, watching, verifier, Ledger(to_ledger), FIRST_LOOK)
    reports = Reports(database, doorbell, verifier, FIRST_LOOK)
    expiry = Expiry(database, registry, verifier, settings.watch_period)
    _schedule(settings, process, database, verification, sweeper, expiry)
    _find(process, database, registry, watching, reports)
    Consumer(bus, database, doorbell, reports, reader, FIRST_LOOK).start(process)
    orders = OrderService(
        database,
        registry,
        Heights(to_verifier),
        doorbell,
        verification,
        watching,
        default_ttl=settings.order_ttl,
        watch_period=settings.watch_period,
        first_look=FIRST_LOOK,
    )
    hasher = KeyHasher(settings.api_key_pepper.get_secret_value())
    merchants = MerchantService(database, registry, hasher, watching, first_look=FIRST_LOOK)
    suspense = SuspenseService(database, doorbell, first_look=FIRST_LOOK)
    server = Server(
        settings.grpc_listen,
        callers=settings.grpc_callers,
        services=[
            Service("ospay.orders.v1.OrderService", grpc.add_OrderServiceServicer_to_server, orders),
            Service("ospay.orders.v1.MerchantService", grpc.add_MerchantServiceServicer_to_server, merchants),
            Service("ospay.orders.v1.SuspenseService", grpc.add_SuspenseServiceServicer_to_server, suspense),
        ],
        tls=settings.tls,
    )
    server.watch(process, "database", database.ping)
    server.watch(process, "nats", bus.ping)
    await server.start()
    process.drains.push_async_callback(server.stop)
    return server


def _schedule(
    settings: Settings,
    process: Process,
    database: Database,
    verification: Verification,
    sweeper: Sweeper,
    expiry: Expiry,
) -> None:
    async def settle() -> None:
        while await settlement.settle(database, settings.settlement_delay, BATCH) == BATCH:
            pass

    process.every(SCHEDULE_SECONDS, "settle", settle)
    process.every(SCHEDULE_SECONDS, "expire", expiry.expire)
    sweeper.start(process, SCHEDULE_SECONDS)
    process.every(COUNT_SECONDS, "count claims", verification.count)
    process.every(MEASURE_SECONDS, "measure outbox", sweeper.measure)


def _find(process: Process, database: Database, registry: Registry, watching: Watching, reports: Reports) -> None:
    chains = sorted(registry.chains)

    async def watch() -> None:
        while debts := await watch_missing(database, chains, FIRST_LOOK):
            watching.ring(debts)

    process.every(WATCH_SECONDS, "watch wallets", watch)
    process.every(SCHEDULE_SECONDS, "take reports", reports.pull)
