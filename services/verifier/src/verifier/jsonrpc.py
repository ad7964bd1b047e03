"""A JSON-RPC client for one endpoint that may be slow, lagging, broken or lying."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import aiohttp
import msgspec
from opentelemetry.trace import SpanKind

from kit import telemetry
from verifier import refusals, wire
from verifier.breaker import LAST_PAUSE_SECONDS, Breaker
from verifier.domain import ChainFailure
from verifier.metrics import RPC_CALLS, RPC_ERRORS, RPC_SECONDS
from verifier.refusals import Refusal
from verifier.wire import Malformed

CALL_SECONDS = 10.0
MAX_BODY_BYTES = 8 * 1024 * 1024
CHUNK_BYTES = 64 * 1024
MAX_RETRY_AFTER_SECONDS = 30.0
# A method that is not served will not be in two seconds either.
REFUSED_PAUSE_SECONDS = 10.0
RATE_LIMIT_CODES = frozenset({-32005, 429})
TOO_LARGE_CODE = -32003  # geth: the batch's answers pass its limit
LOGS_METHOD = "eth_getLogs"


class Unavailable(ChainFailure):
    """The endpoint does not answer, or says that it cannot now."""


class RateLimited(ChainFailure):
    """The endpoint wants fewer calls. `pause` is in seconds."""

    kind = "rate_limited"

    def __init__(self, pause: float) -> None:
        super().__init__(f"rate limited; next try in {pause:g} s")
        self.pause = pause


class WrongChain(ChainFailure):
    """The endpoint answers for another chain."""

    kind = "wrong_chain"


class Unknown(ChainFailure):
    """The endpoint answered one call with an error that has no name here."""

    kind = "unknown"


class TooLarge(ChainFailure):
    """The answer passes the cap on bodies."""

    kind = "too_large"
    lasts = True


class LeftOut(TooLarge):
    """Not asked for, as what was asked for beside it passes the cap."""

    kind = "left_out"
    lasts = False


class RangeTooLarge(ChainFailure):
    """The endpoint takes fewer blocks, or gives fewer logs, at once."""

    kind = "range_too_large"


class MethodRefused(ChainFailure):
    """The endpoint does not serve this method."""

    kind = "method_refused"
    pause = REFUSED_PAUSE_SECONDS


class BlockRefused(MethodRefused):
    """The endpoint refuses the logs of even one block: it serves none at all, unless it has served some before."""


@dataclass(frozen=True, slots=True)
class Call:
    """One method and its parameters."""

    method: str
    params: tuple[Any, ...] = ()


class _Error(msgspec.Struct):
    code: int
    message: str = ""


class _Answer(msgspec.Struct):
    jsonrpc: Literal["2.0"]
    id: int
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: _Error | None = None


class _Complaint(msgspec.Struct):
    """What an endpoint answers that refuses a batch as a whole."""

    error: _Error


_answers = msgspec.json.Decoder(list[_Answer])
_complaint = msgspec.json.Decoder(_Complaint)
_CHAIN_ID = Call("eth_chainId")

Result = msgspec.Raw | ChainFailure


def open_session() -> aiohttp.ClientSession:
    """A keep-alive session of its own for an endpoint: no proxies, no cookies, no decompression (bombs)."""
    return aiohttp.ClientSession(
        trust_env=False,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Content-Type": "application/json", "Accept-Encoding": "identity"},
        timeout=aiohttp.ClientTimeout(total=CALL_SECONDS),
    )


class JsonRpc:
    """Batches to one endpoint, each of them proved to be answered for the right chain.

    Every HTTP call carries `eth_chainId`, so an endpoint that is swapped behind its name is found out before its answer
    is used. Each method has a breaker of its own; that of `eth_chainId`, which is in every call, is the endpoint's.
    """

    def __init__(
        self, url: str, *, chain: str, chain_id: int, session: aiohttp.ClientSession, concurrency: int
    ) -> None:
        self._url = url
        self._chain = chain
        self._chain_id = chain_id
        self._session = session
        self._slots = asyncio.Semaphore(concurrency)
        self._ids = itertools.count(1)
        self._breakers: defaultdict[str, Breaker] = defaultdict(Breaker)

    @property
    def answers(self) -> bool:
        """Whether the endpoint answered the newest call."""
        return self._breakers[_CHAIN_ID.method].closed

    async def batch(self, calls: Sequence[Call], *, timeout: float = CALL_SECONDS, whole: bool = False) -> list[Result]:
        """The results in the order of the calls (at most 100), a failure in the place of a call that has none.

        Each HTTP call ends within `timeout` seconds, the wait for a slot included. A batch whose answer is too large is
        cut in halves, so that one huge receipt holds up no other; a `whole` one is not: its answers belong together.
        Errors: ChainFailure when nothing can be used; TooLarge for a whole batch.
        """
        if not calls:
            return []
        if whole:
            return await self._exchange(calls, timeout)
        try:
            results = await self._exchange(calls, timeout)
        except TooLarge as failure:
            if len(calls) == 1:
                return [failure]
            return await self._halves(calls, timeout)
        again = [place for place, result in enumerate(results) if isinstance(result, TooLarge)]
        if again and len(calls) > 1:
            halves = await self._halves([calls[place] for place in again], timeout)
            for place, result in zip(again, halves, strict=True):
                results[place] = result
        return results

    async def _halves(self, calls: Sequence[Call], timeout: float) -> list[Result]:
        middle = len(calls) // 2
        results = await self.batch(calls[:middle], timeout=timeout)
        if middle > 1 and all(isinstance(result, TooLarge) for result in results):
            # Whoever sends too much for everything is not read a hundred times.
            return [*results, *[LeftOut("answers beside it are too large")] * (len(calls) - middle)]
        return [*results, *await self.batch(calls[middle:], timeout=timeout)]

    async def _exchange(self, calls: Sequence[Call], timeout: float) -> list[Result]:
        """One HTTP call, with the breakers around it."""
        methods = sorted({call.method for call in calls})
        breakers = {method: self._breakers[method] for method in (_CHAIN_ID.method, *methods)}
        for breaker in breakers.values():
            breaker.check()
        for breaker in breakers.values():
            breaker.enter()
        with telemetry.span(" ".join(methods), parent=telemetry.traceparent(), kind=SpanKind.CLIENT) as current:
            current.set_attribute("rpc.system", "jsonrpc")
            current.set_attribute("rpc.batch.size", len(calls))
            try:
                results = await self._post(calls, timeout)
            except ChainFailure as failure:
                RPC_ERRORS.labels(self._chain, failure.kind).inc()
                _settle(breakers, dict.fromkeys(_concerned(failure, breakers), failure))
                raise
            except BaseException:  # nobody waits for the answer any more
                for breaker in breakers.values():
                    breaker.abandon()
                raise
        _settle(breakers, self._refusals(calls, results))
        return results

    async def _post(self, calls: Sequence[Call], timeout: float) -> list[Result]:
        asked = {next(self._ids): call for call in (_CHAIN_ID, *calls)}
        body = msgspec.json.encode(
            [{"jsonrpc": "2.0", "id": id, "method": call.method, "params": call.params} for id, call in asked.items()]
        )
        methods = Counter(call.method for call in asked.values())
        for method, count in methods.items():
            RPC_CALLS.labels(self._chain, method).inc(count)
        try:
            async with asyncio.timeout(timeout), self._slots:
                started = time.monotonic()
                try:
                    content = await self._send(body)
                except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                    content = await self._send(body)  # a kept-alive connection ended while idle; reading twice is safe
        # The text of an aiohttp error may hold the URL, and the URL a key.
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unavailable(f"the endpoint does not answer ({type(error).__name__})") from None
        for method in methods:
            RPC_SECONDS.labels(self._chain, method).observe(time.monotonic() - started)
        chain_id, *results = _match(asked, content)
        self._check_chain(chain_id)
        return results

    async def _send(self, body: bytes) -> bytes:
        async with self._session.post(self._url, data=body, allow_redirects=False) as response:
            _refuse_status(response)
            return await _read(response)

    def _check_chain(self, answer: Result) -> None:
        if isinstance(answer, ChainFailure):
            raise answer
        found = wire.quantity(answer)
        if found != self._chain_id:
            raise WrongChain(f"the endpoint of {self._chain} answers for chain id {found}, not {self._chain_id}")

    def _refusals(self, calls: Sequence[Call], results: Sequence[Result]) -> dict[str, ChainFailure]:
        """The methods of which the endpoint wants fewer calls or none: they are left alone, and no others."""
        refusals: dict[str, ChainFailure] = {}
        for call, result in zip(calls, results, strict=True):
            if isinstance(result, ChainFailure):
                RPC_ERRORS.labels(self._chain, result.kind).inc()
            if isinstance(result, RateLimited | MethodRefused):
                refusals[call.method] = result
        return refusals


def _concerned(failure: ChainFailure, methods: Collection[str]) -> Collection[str]:
    """The methods that are to be left alone after a failure of a whole call."""
    if isinstance(failure, TooLarge | RangeTooLarge):
        return ()  # that it would be too much is an answer
    if isinstance(failure, MethodRefused) and LOGS_METHOD in methods:
        return (LOGS_METHOD,)
    return methods


def _settle(breakers: Mapping[str, Breaker], failures: Mapping[str, ChainFailure]) -> None:
    for method, breaker in breakers.items():
        if method in failures:
            breaker.fail(failures[method])
        else:
            breaker.succeed()


def _refuse_status(response: aiohttp.ClientResponse) -> None:
    wait = response.headers.get("Retry-After", "")
    if response.status == 429 or (response.status == 503 and wait):
        raise RateLimited(_retry_after(wait))
    if response.status == 413:
        raise TooLarge("the endpoint finds the batch too large")
    if response.status != 200:
        raise Unavailable(f"the endpoint answers with HTTP status {response.status}")


def _retry_after(text: str) -> float:
    """Seconds, whichever of its two forms the header has (RFC 9110)."""
    if text.isascii() and text.isdigit():
        return min(float(text), MAX_RETRY_AFTER_SECONDS)
    try:
        at = parsedate_to_datetime(text)
        seconds = (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    except (ValueError, OverflowError, IndexError, TypeError):  # the parser of dates was made for friendly ones
        return LAST_PAUSE_SECONDS
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_chunked(CHUNK_BYTES):
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise TooLarge(f"the answer is larger than {MAX_BODY_BYTES} bytes")
        parts.append(part)
    return b"".join(parts)


def _match(asked: Mapping[int, Call], content: bytes) -> list[Result]:
    """The results by the order of `asked`; an answer with a foreign, missing or doubled id spoils the batch."""
    try:
        answers = _answers.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _refusal(content, [call.method for call in asked.values()]) from None
    by_id = {answer.id: answer for answer in answers}
    if len(answers) != len(asked) or by_id.keys() != asked.keys():
        raise Malformed(f"{len(answers)} answers do not fit {len(asked)} calls by their ids")
    return [_result(by_id[id], call.method) for id, call in asked.items()]


def _refusal(content: bytes, methods: Sequence[str]) -> ChainFailure:
    try:
        error = _complaint.decode(content).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Malformed("the answer is no JSON-RPC batch")
    return _failure(error, LOGS_METHOD if LOGS_METHOD in methods else "")


def _result(answer: _Answer, method: str) -> Result:
    if answer.error is not None:
        return _failure(answer.error, method)
    if isinstance(answer.result, msgspec.UnsetType):
        return Malformed("an answer holds neither result nor error")
    return answer.result


def _failure(error: _Error, method: str) -> ChainFailure:
    # The endpoint's own words are not repeated: they go to logs and to callers.
    refusal = refusals.of_logs(error.code, error.message) if method == LOGS_METHOD else None
    if refusal is Refusal.TOO_MUCH:
        return RangeTooLarge("the endpoint finds the range of blocks or its logs too large")
    if refusal is Refusal.NOT_SERVED or error.code in refusals.NOT_SERVED_CODES:
        return MethodRefused(f"the endpoint does not serve {method or 'batches'}")
    if refusal is Refusal.TOO_OFTEN:
        return RateLimited(LAST_PAUSE_SECONDS)
    if error.code in RATE_LIMIT_CODES:
        return RateLimited(LAST_PAUSE_SECONDS)
    if error.code == TOO_LARGE_CODE:
        return TooLarge("the endpoint finds the answers too large")
    return Unknown(f"the endpoint answers with error {error.code}")
