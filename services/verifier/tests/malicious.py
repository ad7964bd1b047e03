"""A malicious JSON-RPC endpoint: a proxy before an honest node that can do to every answer what a bad operator could.

A lie is a function `(asked, answers) -> told`: from the calls of a batch and the honest answers, in the order of the
calls, to a list of answers, a `web.Response`, `DROPPED`, a `Flood`, or something to await for one of these. `LIES` has
those by name that no reader may believe.
"""

from __future__ import annotations

import asyncio
import copy
import gzip
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from inspect import isawaitable
from typing import Any

import aiohttp
from aiohttp import web

from local.ports import free_port

Call = dict[str, Any]
Answer = dict[str, Any]
Lie = Callable[[list[Call], list[Answer]], Any]
Select = Callable[[list[Call], list[Answer]], list[Answer]]
Change = Callable[[Answer], Any]

HASH = "0x" + "77" * 32
CHUNK = b" " * (1024 * 1024)
DROPPED = object()  # the connection ends without an answer


@dataclass(frozen=True)
class Flood:
    """A body of this many MiB, written until the reader has enough."""

    mebibytes: int


@dataclass
class MaliciousRpc:
    """The proxy. `calls` by method and `batches` are what it was asked, `sent` the bytes that floods wrote."""

    target: str
    url: str = ""
    lie: Lie | None = None
    calls: Counter[str] = field(default_factory=Counter)
    batches: int = 0
    sizes: list[int] = field(default_factory=list)
    sent: int = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        asked = json.loads(await request.read())
        self.batches += 1
        self.sizes.append(len(asked))
        self.calls.update(item["method"] for item in asked)
        try:
            async with self.session.post(self.target, json=asked) as response:
                answers = await response.json()
        except aiohttp.ClientError:
            return web.Response(status=502)
        by_id = {item["id"]: item for item in answers}
        told: Any = [by_id[item["id"]] for item in asked]
        if self.lie:
            told = self.lie(asked, copy.deepcopy(told))
        if isawaitable(told):
            told = await told
        return await self._tell(request, told)

    async def _tell(self, request: web.Request, told: Any) -> web.StreamResponse:
        if told is DROPPED:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if isinstance(told, Flood):
            return await self._flood(request, told)
        return told if isinstance(told, web.StreamResponse) else web.json_response(told)

    async def _flood(self, request: web.Request, flood: Flood) -> web.StreamResponse:
        response = web.StreamResponse()
        with suppress(ConnectionError):
            await response.prepare(request)
            for _ in range(flood.mebibytes):
                await response.write(CHUNK)
                self.sent += len(CHUNK)
        return response

    async def start(self) -> Callable[[], Awaitable[None]]:
        """Listens; returns what stops it."""
        self.session = aiohttp.ClientSession()
        app = web.Application()
        app.router.add_post("/{rest:.*}", self.handle)
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        port = free_port()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{port}"

        async def stop() -> None:
            await runner.cleanup()
            await self.session.close()

        return stop


@asynccontextmanager
async def malicious(target: str, lie: Lie | None = None) -> AsyncIterator[MaliciousRpc]:
    """A proxy that listens."""
    proxy = MaliciousRpc(target, lie=lie)
    stop = await proxy.start()
    try:
        yield proxy
    finally:
        await stop()


# Which answers.


def everything(_asked: list[Call], answers: list[Answer]) -> list[Answer]:
    """All of them."""
    return answers


def chain_ids(asked: list[Call], answers: list[Answer]) -> list[Answer]:
    """Those to eth_chainId."""
    return of("eth_chainId")(asked, answers)


def of(method: str) -> Select:
    """Those to a method, where there is a result."""

    def select(asked: list[Call], answers: list[Answer]) -> list[Answer]:
        pairs = zip(asked, answers, strict=True)
        return [answer for call, answer in pairs if call["method"] == method and answer.get("result") is not None]

    return select


receipts = of("eth_getTransactionReceipt")


def blocks(asked: list[Call], answers: list[Answer], tag: str | None = None) -> list[Answer]:
    """Those to blocks: by tag, or those by height."""
    return [
        answer
        for call, answer in zip(asked, answers, strict=True)
        if call["method"] == "eth_getBlockByNumber"
        and (call["params"][0] == tag if tag else call["params"][0].startswith("0x"))
    ]


def by_tag(tag: str) -> Select:
    """Those to blocks by this tag."""
    return lambda asked, answers: blocks(asked, answers, tag)


# What is done to them.


def changing(select: Select, change: Change) -> Lie:
    """A lie that changes the selected answers."""

    def lie(asked: list[Call], answers: list[Answer]) -> list[Answer]:
        for answer in select(asked, answers):
            change(answer)
        return answers

    return lie


def result(**fields: Any) -> Change:
    """Other fields of a result."""
    return lambda answer: answer["result"].update(fields)


def nothing(answer: Answer) -> None:
    """No result: unknown."""
    answer.update(result=None)


def logs(**fields: Any) -> Change:
    """Other fields of all logs of a receipt."""

    def change(answer: Answer) -> None:
        for log in answer["result"]["logs"]:
            log.update(fields)

    return change


def fails(code: int, message: str = "no") -> Change:
    """An error in the place of a result."""

    def change(answer: Answer) -> None:
        answer.pop("result", None)
        answer["error"] = {"code": code, "message": message}

    return change


def hidden_log(answer: Answer) -> None:
    """The first log of a receipt is left out."""
    answer["result"].update(logs=answer["result"]["logs"][1:])


def hidden_found_log(answer: Answer) -> None:
    """The first log of a range is left out."""
    answer.update(result=answer["result"][1:])


def failed(answer: Answer) -> None:
    """The transaction failed."""
    answer["result"].update(status="0x0", logs=[])


def moved(blocks_up: int) -> Change:
    """A block that much higher."""
    return lambda answer: answer["result"].update(number=hex(int(answer["result"]["number"], 16) + blocks_up))


# Whole lies.


def both(*lies: Lie) -> Lie:
    """One lie after the other."""

    def lie(asked: list[Call], answers: list[Answer]) -> Any:
        for each in lies:
            answers = each(asked, answers)
        return answers

    return lie


def now_and_then(lie: Lie) -> Lie:
    """Every second batch is lied about."""
    turns = itertools.cycle((True, False))
    return lambda asked, answers: lie(asked, answers) if next(turns) else answers


def where(method: str, lie: Lie) -> Lie:
    """Only batches with this method are lied about."""
    return lambda asked, answers: lie(asked, answers) if any(c["method"] == method for c in asked) else answers


def delayed(seconds: float, lie: Lie = everything) -> Lie:
    """The truth, or a lie, comes late."""

    async def told(asked: list[Call], answers: list[Answer]) -> Any:
        await asyncio.sleep(seconds)
        return lie(asked, answers)

    return told


def frozen(select: Select) -> Lie:
    """The selected answers stay as they were first."""
    kept: list[Any] = []

    def change(answer: Answer) -> None:
        kept.append(answer["result"])
        answer["result"] = kept[0]

    return changing(select, change)


def forged(fields: Callable[[], Answer]) -> Lie:
    """Receipts that nobody else has."""

    def lie(asked: list[Call], answers: list[Answer]) -> list[Answer]:
        for call, answer in zip(asked, answers, strict=True):
            if call["method"] == "eth_getTransactionReceipt":
                answer["result"] = fields()
        return answers

    return lie


def status(code: int, **headers: str) -> Lie:
    """An HTTP status in the place of answers; `Retry_After` is `Retry-After`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _, __: web.Response(status=code, headers=named)


def body(content: bytes, **headers: str) -> Lie:
    """Any bytes in the place of answers."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _, __: web.Response(body=content, headers=named)


def complaint(code: int) -> Lie:
    """One error for the whole batch."""
    return lambda _, __: {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": "limit exceeded"}}


def dropped(_asked: list[Call], _answers: list[Answer]) -> Any:
    """The connection ends without an answer."""
    return DROPPED


def truncated(_asked: list[Call], answers: list[Answer]) -> Any:
    """The end of the body is missing."""
    return web.Response(body=json.dumps(answers)[:-20].encode())


def reordered(_asked: list[Call], answers: list[Answer]) -> list[Answer]:
    """The answers in another order, which they may have."""
    return answers[::-1]


def zipped(_asked: list[Call], answers: list[Answer]) -> web.Response:
    """A compressed body although none was asked for: how a small answer becomes a large one."""
    return web.Response(body=gzip.compress(json.dumps(answers).encode()), headers={"Content-Encoding": "gzip"})


html = body(b"<html>Bad gateway</html>", Content_Type="text/html")
huge = body(b"[" + b" " * (9 * 1024 * 1024) + b"]")  # past any bound
flood: Lie = lambda _, __: Flood(500)  # noqa: E731
forged_ids: Lie = lambda _, answers: [{**answer, "id": answer["id"] + 1000} for answer in answers]  # noqa: E731
short: Lie = lambda _, answers: answers[:-1]  # noqa: E731
wrong_chain = changing(chain_ids, lambda answer: answer.update(result="0x1"))

LIES: dict[str, Lie] = {
    "forged ids": forged_ids,
    "string ids": lambda _, answers: [{**answer, "id": str(answer["id"])} for answer in answers],
    "doubled id": lambda _, answers: [*answers[:-1], answers[0]],
    "short batch": short,
    "long batch": lambda _, answers: [*answers, {**answers[0], "id": 10**9}],
    "empty batch": lambda _, __: [],
    "one object": lambda _, answers: answers[0],
    "no result": lambda _, answers: [{"jsonrpc": "2.0", "id": answer["id"]} for answer in answers],
    "both result and error": lambda _, answers: [{**each, "error": {"code": 1, "message": ""}} for each in answers],
    "no version": lambda _, answers: [{"id": answer["id"], "result": answer["result"]} for answer in answers],
    "refused batch": complaint(-32600),
    "limit for all": complaint(-32005),
    "429": status(429, Retry_After="1"),
    "500": status(500),
    "503 and when": status(503, Retry_After="1"),
    "redirect": status(307, Location="http://127.0.0.1:1/"),
    "dropped": dropped,
    "html": html,
    "huge body": huge,
    "flood": flood,
    "compressed": zipped,
    "cut JSON": truncated,
    "no UTF-8": body(b'[{"\xff"'),
    "deep nesting": body(b"[" * 200_000),
    "wrong chain": wrong_chain,
    "no chain": changing(chain_ids, nothing),
    "receipt of another": changing(receipts, result(transactionHash=HASH)),
    "log of another": changing(receipts, logs(transactionHash=HASH)),
    "log of another block": changing(receipts, logs(blockHash=HASH)),
    "removed log": changing(receipts, logs(removed=True)),
    "orphaned receipt": both(changing(receipts, result(blockHash=HASH)), changing(receipts, logs(blockHash=HASH))),
    "failed with logs": changing(receipts, result(status="0x0")),
    "no status": changing(receipts, result(status=None)),
    "receipt errors": changing(receipts, fails(-32000)),
    "receipt limited": changing(receipts, fails(-32005)),
    "wrong hash at height": changing(blocks, result(hash=HASH)),
    "other height": changing(blocks, result(number="0x1")),
    "unknown height": changing(blocks, nothing),
    "height errors": changing(blocks, fails(-32000)),
    "finalized 0": changing(by_tag("finalized"), result(number="0x0")),
    "no finalized": changing(by_tag("finalized"), nothing),
    "finalized errors": changing(by_tag("finalized"), fails(-39001)),
    "finalized above head": changing(by_tag("finalized"), result(number="0xffffff")),
    "no head": changing(by_tag("latest"), nothing),
    "head below final": changing(by_tag("latest"), result(number="0x1")),
    "all errors": changing(everything, fails(-32603)),
}
