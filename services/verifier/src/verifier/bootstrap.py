"""Puts the service together."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog

from chains import Registry
from kit.bus import Bus
from kit.database import Database
from kit.process import Process
from kit.server import Server, Service
from ospay.verifier.v1 import verifier_pb2, verifier_pb2_grpc
from verifier import consumer as bus_consumer
from verifier import workers
from verifier.agreement import Unsettled
from verifier.consumer import Consumer
from verifier.desk import Desk
from verifier.jsonrpc import JsonRpc, WrongChain, open_session
from verifier.messages import Messages
from verifier.metrics import LOOKED_THROUGH, REPORTS_OPEN
from verifier.node import Node
from verifier.panel import Health, Panel
from verifier.publisher import Publisher
from verifier.rpc import VerifierRpc
from verifier.settings import Endpoints, Settings, endpoints
from verifier.store import ProofStore
from verifier.watch import leader
from verifier.watch.bell import Bell
from verifier.watch.register import Register
from verifier.watch.scanner import Scanner
from verifier.workers import SHORTEST_TICK_SECONDS, Line

log = structlog.get_logger()

COUNT_SECONDS = 10.0
SERVICE = verifier_pb2.DESCRIPTOR.services_by_name["VerifierService"].full_name


async def start(process: Process, settings: Settings) -> None:
    """Opens everything and begins to serve. Errors: WrongChain when all endpoints of a chain answer for another."""
    registry = Registry.load(settings.chains_file)
    served = endpoints(registry)
    database = await Database.open(settings.database_url.get_secret_value(), application="verifier")
    process.resources.push_async_callback(database.close)
    store = ProofStore(database)
    lines = await _lines(process, settings, registry, served, await store.marks())
    await asyncio.gather(*(_check(line.panel) for line in lines.values()))

    messages = Messages(registry)
    bus = Bus(
        settings.nats_url,
        name="verifier",
        streams={"OSPAY_ORDERS": "ospay.orders.v1.>", "OSPAY_VERIFIER": "ospay.verifier.v1.>"},
    )
    bus.start(process)
    publisher = Publisher(bus, messages, process)
    _start_work(process, settings, lines, store, publisher)
    process.start("consume claims", _consume(bus, Consumer(lines, messages)))
    register = Register(database)
    _start_watching(process, settings, lines, database, Bell(register, publisher.publish_reports))
    process.every(COUNT_SECONDS, "count reports", lambda: _count(register, lines))

    servicer = VerifierRpc(registry, lines, messages, register)
    server = Server(
        settings.grpc_listen,
        callers=settings.grpc_callers,
        services=[Service(SERVICE, verifier_pb2_grpc.add_VerifierServiceServicer_to_server, servicer)],
        tls=settings.tls,
    )
    await server.start()
    process.resources.push_async_callback(server.stop)
    server.watch(process, "database", database.ping)
    server.watch(process, "nats", bus.ping)
    server.watch(process, "rpc", lambda: _probe(lines))


async def _lines(
    process: Process,
    settings: Settings,
    registry: Registry,
    served: Mapping[str, Endpoints],
    marks: Mapping[int, int],
) -> dict[str, Line]:
    lines = {}
    for name, given in served.items():
        chain = registry.chains[name]
        mark = marks.get(chain.chain_id, 0)
        nodes = []
        for endpoint in given.endpoints:
            session = open_session()
            process.resources.push_async_callback(session.close)
            rpc = JsonRpc(
                endpoint.url.get_secret_value(),
                chain=name,
                chain_id=chain.chain_id,
                session=session,
                concurrency=settings.rpc_concurrency,
            )
            nodes.append(Node(chain, rpc, endpoint.operator, mark))
        panel = Panel(chain, nodes, quorum=given.quorum, mark=mark)
        lines[name] = Line(panel, Desk(name, settings.queue_max, asyncio.get_running_loop().time))
    return lines


async def _check(panel: Panel) -> None:
    """Refuses a chain of which no endpoint can be right; one that does not answer is asked again before its use."""
    await panel.look()
    wrong = [node for node in panel.nodes if isinstance(node.failure, WrongChain)]
    for node in panel.nodes:
        if node.failure is not None:
            say = log.error if node in wrong else log.warning
            event = "wrong_chain" if node in wrong else "endpoint_unavailable_at_start"
            say(event, chain=panel.chain.name, operator=node.operator, error=str(node.failure))
    if len(wrong) == len(panel.nodes) and wrong[0].failure is not None:
        raise wrong[0].failure


def _start_work(
    process: Process, settings: Settings, lines: Mapping[str, Line], store: ProofStore, publisher: Publisher
) -> None:
    for name, line in lines.items():
        process.start(f"watch {name}", workers.watch(line, process, publisher.publish))
        process.start(f"close {name}", _close_at_stop(process, line))
        # A worker has more claims than are looked at once: the scanner and GetHead must not wait behind all of them.
        looks = asyncio.Semaphore(settings.workers)
        for number in range(settings.workers):
            process.start(f"worker {name} {number}", workers.work(line, store, publisher.publish, looks))


def _start_watching(
    process: Process, settings: Settings, lines: Mapping[str, Line], database: Database, bell: Bell
) -> None:
    url = settings.database_url.get_secret_value()
    store = ProofStore(database)
    for name, line in lines.items():
        chain = line.panel.chain
        scanner = Scanner(line.panel, database, store, line.desk.awaited, bell.ring)
        lock = leader.Lock(url, chain.chain_id)
        tick = max(chain.block_seconds, SHORTEST_TICK_SECONDS)
        process.start(f"scan {name}", leader.follow(scanner, lock, name, tick, process))
    process.start("publish reports", bell.run(process))


async def _count(register: Register, lines: Mapping[str, Line]) -> None:
    REPORTS_OPEN.set(await register.open_reports())
    for name, line in lines.items():
        if noted := await register.looked_through(line.panel.chain.chain_id):
            LOOKED_THROUGH.labels(name).set(noted.timestamp())


async def _close_at_stop(process: Process, line: Line) -> None:
    await process.wait()
    line.desk.close()


async def _consume(bus: Bus, consumer: Consumer) -> None:
    await bus.consume(
        stream=bus_consumer.STREAM,
        subject=bus_consumer.SUBJECT,
        durable=bus_consumer.DURABLE,
        handle=consumer.handle,
        batch=bus_consumer.MESSAGES,
    )


async def _probe(lines: Mapping[str, Line]) -> None:
    """Raises when too few operators of a chain answer for anything to be paid on it."""
    panels = [line.panel for line in lines.values()]
    for panel, health in zip(panels, await asyncio.gather(*(panel.look() for panel in panels)), strict=True):
        if health is Health.UNAVAILABLE:
            raise Unsettled(f"{panel.chain.name}: {panel.error}")
