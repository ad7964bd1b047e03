"""NATS JetStream, used as a doorbell: what is lost here is found again in PostgreSQL.

A message that cannot be published is an error to the caller, who has a row to try again from; streams and consumers
that are gone (a wiped server) are made again on the way.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError

from kit.errors import Fault, Kind
from kit.process import Process

log = structlog.get_logger()

PUBLISH_SECONDS = 2.0
FETCH_SECONDS = 5.0
ACK_WAIT_SECONDS = 15.0
RETRY_SECONDS = 1.0
# How long a refused message shows in health: longer than it takes until the next one, where there is any to publish.
REFUSED_SECONDS = 10.0
# The header of what is no message: the request has timed out, or its consumer is gone.
STATUS = "Status"
# Interest retention keeps a message only until every consumer has acknowledged it, so the stream's size is the queue's
# size, and a full queue refuses (discard new) instead of forgetting.
MAX_BYTES = 512 * 1024 * 1024
MAX_AGE_SECONDS = 3600.0

Handler = Callable[[list[bytes]], Awaitable[None]]


class Bus:
    """One connection to NATS, kept for the life of the process."""

    def __init__(self, url: str, *, name: str, streams: dict[str, str]) -> None:
        """`streams` maps the streams this service needs to their subject, e.g. `OSPAY_LEDGER: ospay.ledger.v1.>`."""
        self._url = url
        self._name = name
        self._streams = streams
        self._client = Client()
        self._jetstream: JetStreamContext | None = None
        self._connected = asyncio.Event()
        self._refused_until = 0.0

    def start(self, process: Process) -> None:
        """Connects in the background, so that a service starts and serves without NATS."""
        self._process = process
        process.start("nats connect", self._connect())
        process.resources.push_async_callback(self._close)

    async def ping(self) -> None:
        """Raises when the streams do not answer, or one has just refused a message. Errors: Fault.

        Nobody consumes what is published for it, so it is not kept, and a full disk does not show in it: NATS then
        takes nothing until it is started anew. A `flush` would say nothing of streams, and one that times out ends the
        client's read loop when its answer comes.
        """
        if time.monotonic() < self._refused_until:
            raise Fault(Kind.UNAVAILABLE, "unavailable", "NATS has refused a message")
        for subject in self._streams.values():
            await self._publish(subject.removesuffix(">") + "ping", b"")

    async def publish(self, subject: str, payload: bytes) -> None:
        """Publishes and waits until the stream has it. Errors: Fault UNAVAILABLE; the caller has to retry."""
        try:
            await self._publish(subject, payload)
        except Fault:
            self._refused_until = time.monotonic() + REFUSED_SECONDS
            raise
        self._refused_until = 0.0

    async def _publish(self, subject: str, payload: bytes) -> None:
        if self._jetstream is None or not self._client.is_connected:
            raise Fault(Kind.UNAVAILABLE, "unavailable", "not connected to NATS")
        try:
            await self._jetstream.publish(subject, payload, timeout=PUBLISH_SECONDS)
        except (NatsError, OSError, TimeoutError) as error:
            await self._ensure_streams()
            raise Fault(Kind.UNAVAILABLE, "unavailable", f"NATS took no message: {error!r}") from error

    async def consume(self, *, stream: str, subject: str, durable: str, handle: Handler, batch: int = 200) -> None:
        """Hands messages to `handle` in batches until the process stops, and acknowledges after it returns.

        A batch whose handler raises is delivered again after a second. `handle` must not raise for what cannot get
        better: it records that and returns.
        """
        await self._process.first(self._connected.wait())
        while not self._process.stopping:
            try:
                await self._ensure_consumer(stream, subject, durable)
                await self._pull(stream, durable, handle, batch)
            except (Fault, NatsError, OSError, TimeoutError) as error:
                log.warning("consumer_interrupted", durable=durable, error=repr(error))
                await self._process.sleep(RETRY_SECONDS)

    async def _pull(self, stream: str, durable: str, handle: Handler, batch: int) -> None:
        """Keeps one pull request open and hands over whatever has arrived.

        nats-py's own `fetch` waits for a whole batch until its time-out now and then, seconds under load.
        """
        queue: asyncio.Queue[Msg] = asyncio.Queue()

        async def arrived(message: Msg) -> None:
            queue.put_nowait(message)  # bounded by the request

        inbox = self._client.new_inbox()
        subscription = await self._client.subscribe(inbox, cb=arrived)
        request = json.dumps({"batch": batch, "expires": int(FETCH_SECONDS * 1e9)}).encode()
        wanted, asked = 0, 0.0
        try:
            while not self._process.stopping:
                if wanted <= 0:
                    await self._client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}", request, inbox)
                    wanted, asked = batch, time.monotonic()
                messages, ended = await self._arrived(queue)
                wanted = 0 if ended else wanted - len(messages)
                if messages:
                    await self._deliver(messages, handle)
                elif not self._process.stopping:
                    await self._find_consumer(stream, durable)
                    if time.monotonic() - asked < RETRY_SECONDS:  # refused, not timed out
                        await self._process.sleep(RETRY_SECONDS)
        finally:
            await _quietly(subscription.unsubscribe())
            while not queue.empty():
                await _quietly(queue.get_nowait().nak())

    async def _arrived(self, queue: asyncio.Queue[Msg]) -> tuple[list[Msg], bool]:
        """What has arrived, waiting for something, and whether the request has ended."""
        getting = asyncio.ensure_future(queue.get())
        stopping = asyncio.ensure_future(self._process.wait())
        try:
            await asyncio.wait({getting, stopping}, timeout=FETCH_SECONDS + 1, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        if not getting.done():
            getting.cancel()
            return [], True
        found = [getting.result()]
        while not queue.empty():
            found.append(queue.get_nowait())
        messages = [message for message in found if not (message.headers or {}).get(STATUS)]
        return messages, len(messages) < len(found)

    async def _find_consumer(self, stream: str, durable: str) -> None:
        """Raises when a wiped server has lost the consumer."""
        assert self._jetstream is not None, "there was a subscription"
        await self._jetstream.consumer_info(stream, durable)

    async def _deliver(self, messages: list[Msg], handle: Handler) -> None:
        try:
            await handle([message.data for message in messages])
        except Exception as error:
            log.warning("batch_failed", messages=len(messages), error=repr(error))
            await self._process.sleep(RETRY_SECONDS)
            for message in messages:
                await _quietly(message.nak())
            return
        for message in messages:
            await message.ack()

    async def _ensure_consumer(self, stream: str, subject: str, durable: str) -> None:
        if self._jetstream is None or not self._client.is_connected:
            raise Fault(Kind.UNAVAILABLE, "unavailable", "not connected to NATS")
        config = ConsumerConfig(
            durable_name=durable,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT_SECONDS,
            max_deliver=-1,
            max_ack_pending=5000,
            filter_subject=subject,
        )
        try:
            await self._jetstream.add_consumer(stream, config)
        except NotFoundError:
            await self._ensure_streams()
            await self._jetstream.add_consumer(stream, config)

    async def _ensure_streams(self) -> None:
        for name, subject in self._streams.items():
            await _quietly(self._ensure_stream(name, subject))

    async def _ensure_stream(self, name: str, subject: str) -> None:
        if self._jetstream is None:
            return
        try:
            await self._jetstream.stream_info(name)
        except NotFoundError:
            config = StreamConfig(
                name=name,
                subjects=[subject],
                retention=RetentionPolicy.INTEREST,
                storage=StorageType.FILE,
                discard=DiscardPolicy.NEW,
                max_bytes=MAX_BYTES,
                max_age=MAX_AGE_SECONDS,
            )
            await self._jetstream.add_stream(config)
            log.info("stream_created", stream=name)

    async def _connect(self) -> None:
        await self._client.connect(
            self._url,
            name=self._name,
            allow_reconnect=True,
            # The default gives up after two minutes and closes the client for good.
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.5,  # type: ignore[arg-type]  # seconds; a float works
            connect_timeout=2,
            ping_interval=5,
            max_outstanding_pings=2,
            # A publish while disconnected must fail, not be buffered: the outbox tries again.
            pending_size=-1,
            error_cb=self._on_error,
            closed_cb=self._on_closed,
        )
        self._jetstream = self._client.jetstream(timeout=PUBLISH_SECONDS)
        await self._ensure_streams()
        self._connected.set()

    async def _on_error(self, error: Exception) -> None:
        log.warning("nats_error", error=repr(error))

    async def _on_closed(self) -> None:
        if not self._process.stopping:
            self._process.stop(RuntimeError("the NATS client closed for good"))

    async def _close(self) -> None:
        if self._client.is_connected:
            await _quietly(self._client.close())


async def _quietly(work: Awaitable[object]) -> None:
    """For steps whose failure changes nothing: the next round meets the same condition again."""
    try:
        await asyncio.wait_for(asyncio.ensure_future(work), PUBLISH_SECONDS)
    except (NatsError, OSError, TimeoutError) as error:
        log.info("nats_step_failed", error=repr(error))
