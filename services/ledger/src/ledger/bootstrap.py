"""The composition root: the only place that constructs things."""

from __future__ import annotations

from kit.bus import Bus
from kit.database import Database
from kit.process import Process
from kit.server import Server, Service
from ledger.audit import Auditor
from ledger.consumer import Consumer
from ledger.rpc import LedgerServicer
from ledger.settings import Settings
from ospay.ledger.v1 import ledger_pb2_grpc

# More writers on one hot row are slower than one; a second one books while the first waits for its disk. Those that
# find no free connection queue here, for a bounded time, and not inside PostgreSQL.
WRITERS = 2
READERS = 8
AUDIT_SECONDS = 180.0
# Messages of up to 1000 postings each: together well within the time until a message is delivered again.
FETCH = 64

ORDERS_STREAM = "OSPAY_ORDERS"
STREAMS = {ORDERS_STREAM: "ospay.orders.v1.>", "OSPAY_LEDGER": "ospay.ledger.v1.>"}
CONSUMED = ("order_paid", "order_refunded", "money_moved")


async def start(process: Process, settings: Settings) -> Server:
    """Opens everything; returns when the ledger serves. Errors: OSError when PostgreSQL cannot be reached."""
    url = settings.database_url.get_secret_value()
    writing = await Database.open(url, application="ledger-writer", size=WRITERS)
    process.resources.push_async_callback(writing.close)
    reading = await Database.open(url, application="ledger-reader", size=READERS)
    process.resources.push_async_callback(reading.close)

    bus = Bus(settings.nats_url, name="ledger", streams=STREAMS)
    bus.start(process)

    service = Service(
        "ospay.ledger.v1.LedgerService",
        ledger_pb2_grpc.add_LedgerServiceServicer_to_server,
        LedgerServicer(writing, reading),
    )
    server = Server(settings.grpc_listen, callers=settings.grpc_callers, services=[service], tls=settings.tls)
    server.watch(process, "database", reading.ping)
    server.watch(process, "nats", bus.ping)

    consumer = Consumer(writing, bus.publish)
    for event in CONSUMED:
        subject, durable = f"ospay.orders.v1.{event}", f"ledger_{event}"
        work = bus.consume(stream=ORDERS_STREAM, subject=subject, durable=durable, handle=consumer.handle, batch=FETCH)
        process.start(f"consume {event}", work)
    process.every(AUDIT_SECONDS, "audit", Auditor(reading).look)

    process.resources.push_async_callback(server.stop)
    await server.start()
    return server
