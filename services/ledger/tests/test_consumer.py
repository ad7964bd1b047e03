"""From the bus to the books and back, over a real NATS."""

from __future__ import annotations

import asyncio
import base64
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg
from nats.aio.msg import Msg
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError, ServiceUnavailableError

from ledger import workflow
from ledger.domain import EventType, Posting
from local.testing import PostgresServer
from ospay.ledger.v1 import ledger_pb2 as pb

if TYPE_CHECKING:
    from .conftest import Running

Make = Callable[..., Posting]
ToMessage = Callable[[Posting], pb.Posting]
PAID = "ospay.orders.v1.order_paid"
REFUNDED = "ospay.orders.v1.order_refunded"
MOVED = "ospay.orders.v1.money_moved"
DURABLES = {"ledger_order_paid": PAID, "ledger_order_refunded": REFUNDED, "ledger_money_moved": MOVED}
POSTED, ALREADY, INVALID = pb.POST_OUTCOME_POSTED, pb.POST_OUTCOME_ALREADY_POSTED, pb.POST_OUTCOME_INVALID


class Bell:
    """What orders would do: publish, and listen for answers."""

    def __init__(self, running: Running, jetstream: JetStreamContext, answers: asyncio.Queue[Msg]) -> None:
        self.jetstream = jetstream
        self._running = running
        self._answers = answers

    async def ring(self, subject: str, messages: Iterable[pb.Posting]) -> None:
        """Publishes one message of these postings."""
        await self.jetstream.publish(subject, pb.BatchPostRequest(postings=messages).SerializeToString())

    async def answered(self, until: Callable[[Counter], bool]) -> Counter:
        """How often each (event id, outcome) was published, once `until` holds; at most 30 seconds."""
        counts: Counter = Counter()
        async with asyncio.timeout(30):
            while not until(counts):
                response = pb.BatchPostResponse.FromString((await self._answers.get()).data)
                counts.update((result.event_id, result.outcome) for result in response.results)
        return counts

    async def allow_answers_of(self, size: int) -> None:
        """From now on the stream of the answers takes none of more bytes; -1: of any number."""
        config = (await self.jetstream.stream_info("OSPAY_LEDGER")).config
        await self.jetstream.update_stream(config.evolve(max_msg_size=size))

    async def quiet(self) -> None:
        """Waits until every message is acknowledged."""

        async def acknowledged() -> bool:
            infos = [await self.jetstream.consumer_info("OSPAY_ORDERS", durable) for durable in DURABLES]
            return not any(info.num_pending or info.num_ack_pending for info in infos)

        await self._running.until(acknowledged)


async def consumers_are_there(running: Running, jetstream: JetStreamContext) -> None:
    """A message that nobody is waiting for is not kept: the doorbell rings for those at home."""

    async def there() -> bool:
        try:
            return all([await jetstream.consumer_info("OSPAY_ORDERS", durable) for durable in DURABLES])
        except (NotFoundError, ServiceUnavailableError, NoRespondersError, NatsTimeoutError):
            return False

    await running.until(there)


@asynccontextmanager
async def bell(running: Running) -> AsyncIterator[Bell]:
    """Rings and listens, once the ledger waits for messages."""
    jetstream = running.nats.jetstream(timeout=2)
    await consumers_are_there(running, jetstream)
    answers: asyncio.Queue[Msg] = asyncio.Queue()
    subscription = await running.nats.subscribe("ospay.ledger.v1.posted", cb=answers.put)
    await running.nats.flush()
    yield Bell(running, jetstream, answers)
    await subscription.unsubscribe()


async def test_from_bus_to_books_and_back(running: Running, posting: Make, message: ToMessage) -> None:
    """What each subject carries is booked, and the outcomes are published with their trace to go on with."""
    trace = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
    paid, refunded = posting(500, traceparent=trace), posting(200, event_type=EventType.ORDER_REFUNDED)
    received = posting(70, event_type=EventType.SUSPENSE_RECEIVED, order="")
    async with bell(running) as ringer:
        await ringer.ring(PAID, [message(paid)])
        await ringer.ring(REFUNDED, [message(refunded)])
        await ringer.ring(MOVED, [message(received)])
        counts = await ringer.answered(lambda found: len(found) == 3)
        await ringer.quiet()
    assert {(each.event_id_text, POSTED): 1 for each in (paid, refunded, received)} == counts
    found = await workflow.read_balances(running.books.service, "m1", "USDT", None)
    assert (found.merchant, found.clearing, found.suspense) == (300, -300, 70)
    assert await running.books.broken() == []


async def test_twice_and_out_of_order(running: Running, posting: Make, message: ToMessage, seed: int) -> None:
    """Every message twice, in any order and over all subjects: each event is booked once and answered every time."""
    rng = random.Random(seed)
    events = [posting(rng.randint(1, 99), event_type=rng.choice(list(EventType))) for _ in range(600)]
    packs = [events[start : start + 20] for start in range(0, 600, 20)] * 2
    rng.shuffle(packs)
    async with bell(running) as ringer:
        for pack in packs:
            await ringer.ring(rng.choice([PAID, REFUNDED, MOVED]), [message(each) for each in pack])
        counts = await ringer.answered(lambda found: found.total() >= 1200)
        await ringer.quiet()
    assert {each.event_id_text: 1 for each in events} == {
        event_id: count for (event_id, outcome), count in counts.items() if outcome == POSTED
    }
    assert {each.event_id_text: 1 for each in events} == {
        event_id: count for (event_id, outcome), count in counts.items() if outcome == ALREADY
    }
    found = await workflow.read_balances(running.books.service, "m1", "USDT", None)
    signed = dict.fromkeys(EventType, 0)
    for each in events:
        signed[each.event_type] += each.amount_minor
    merchant = signed[EventType.ORDER_PAID] - signed[EventType.ORDER_REFUNDED] - signed[EventType.PAYMENT_REVERSED]
    suspense = signed[EventType.SUSPENSE_RECEIVED] - signed[EventType.SUSPENSE_RELEASED]
    assert (merchant, -merchant, suspense) == (found.merchant, found.clearing, found.suspense)
    assert await running.books.broken() == []


async def test_poison_is_kept_and_passed_by(running: Running, posting: Make, message: ToMessage) -> None:
    """Messages that are none, and postings that cannot be booked, are recorded; what is behind them is booked."""
    good = posting(5)
    huge, silent = message(posting(1)), message(posting(1))
    huge.event_id = "é" * 300_000  # an answer that repeats it all would not fit in a message
    silent.merchant_id = "a\0b"
    async with bell(running) as ringer:
        for junk in (b"\xff\xff not protobuf \0", b"", b"\x0a"):
            await ringer.jetstream.publish(PAID, junk)
        await ringer.ring(PAID, [message(posting(1))] * 1001)
        await ringer.ring(PAID, [huge, silent, pb.Posting(), message(good)])
        counts = await ringer.answered(lambda found: found.total() >= 4)
        await ringer.quiet()
    assert {
        ("é" * 64, INVALID): 1,
        (silent.event_id, INVALID): 1,
        ("", INVALID): 1,
        (good.event_id_text, POSTED): 1,
    } == counts
    reasons = Counter(row["reason"] for row in await running.books.rejected())
    assert reasons == {"UNPARSEABLE": 4, "INVALID": 3}
    assert await running.books.owner.fetchval("SELECT count(*) FROM events") == 1


async def test_same_poison_again_is_one_row(running: Running, posting: Make, message: ToMessage) -> None:
    """What is refused again and again is counted, not collected."""
    bad = message(posting(1))
    bad.asset = "no"

    async def all_counted() -> bool:
        return sorted(row["seen_count"] for row in await running.books.rejected()) == [20, 40]

    async with bell(running) as ringer:
        for n in range(20):
            bad.traceparent = f"00-{n:032x}-{n:016x}-00"
            await ringer.ring(PAID, [bad, bad])
            await ringer.jetstream.publish(PAID, b"junk")
        await running.until(all_counted)


async def test_other_subjects_are_not_ours(running: Running) -> None:
    """Claims travel on the same stream: the ledger neither takes nor refuses them."""

    async def some_rejected() -> bool:
        return bool(await running.books.rejected())

    async with bell(running) as ringer:
        await ringer.jetstream.publish("ospay.orders.v1.payment_claimed", b"for the verifier")
        await ringer.jetstream.publish(PAID, b"junk")
        await running.until(some_rejected)
        await ringer.quiet()
        infos = await ringer.jetstream.consumers_info("OSPAY_ORDERS")
    assert {info.name: info.config.filter_subject for info in infos} == DURABLES
    [(reason, payload)] = [(row["reason"], row["payload"]) for row in await running.books.rejected()]
    assert ("UNPARSEABLE", base64.b64encode(b"junk").decode()) == (reason, payload)


async def test_outcome_that_could_not_be_published(running: Running, posting: Make, message: ToMessage) -> None:
    """With the answers refused the event is booked once; the outcome follows when the message comes again."""
    paid = posting(5)
    async with bell(running) as ringer:
        await ringer.allow_answers_of(1)
        await ringer.ring(PAID, [message(paid)])
        await ringer.answered(lambda found: (paid.event_id_text, ALREADY) in found)
        await ringer.allow_answers_of(-1)
        await ringer.quiet()
    found = await workflow.read_balances(running.books.service, "m1", "USDT", None)
    assert (found.merchant, found.clearing) == (5, -5)
    assert await running.books.broken() == []


async def test_lost_streams_are_made_again(running: Running, posting: Make, message: ToMessage) -> None:
    """A wiped bus: the ledger finds its streams and consumers gone, makes them again and goes on."""
    first, second = posting(5), posting(7)
    async with bell(running) as ringer:
        await ringer.ring(PAID, [message(first)])
        await ringer.answered(lambda found: len(found) == 1)
        for stream in ("OSPAY_ORDERS", "OSPAY_LEDGER"):
            await ringer.jetstream.delete_stream(stream)
        await consumers_are_there(running, ringer.jetstream)
        await ringer.ring(PAID, [message(second)])
        await ringer.answered(lambda found: {event_id for event_id, _ in found} == {second.event_id_text})
    found = await workflow.read_balances(running.books.service, "m1", "USDT", None)
    assert (found.merchant, found.clearing) == (12, -12)


async def test_connections_cut_under_load(
    running: Running, postgres_server: PostgresServer, posting: Make, message: ToMessage
) -> None:
    """A message that meets broken connections comes again until it is booked."""
    paid = [posting(n + 1) for n in range(50)]
    kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'ledger' AND datname = $1"
    name = await running.books.owner.fetchval("SELECT current_database()")
    admin = await asyncpg.connect(postgres_server.admin_url)
    async with bell(running) as ringer:
        for each in paid:
            await ringer.ring(PAID, [message(each)])
            if each.amount_minor % 10 == 0:
                await admin.fetchval(kill, name)
        await admin.close()
        await ringer.answered(lambda found: len({event_id for event_id, _ in found}) == 50)
        await ringer.quiet()
    assert await running.books.owner.fetchval("SELECT count(*) FROM events") == 50
    assert await running.books.broken() == []
