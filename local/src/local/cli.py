"""`python -m local run | demo | clean`, behind `make run`, `make demo` and `make clean`."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from typing import Any, NoReturn

import typer
from rich.console import Console

from local.datafolder import DataFolder
from local.launch import die_with
from local.process import PartFailed
from local.settings import Settings, SettingsError, read_settings
from local.suite import Suite

STOPPED = 130  # exit code of a story that was broken off, as a shell gives it

app = typer.Typer(help="OSPay on one machine.", no_args_is_help=True, add_completion=False)
console = Console(soft_wrap=True, highlight=False)


@app.command()
def run() -> None:
    """Runs the whole suite until Ctrl-C or SIGTERM."""
    sys.exit(asyncio.run(_until_signal(_run(_settings()), code=0)))


@app.command()
def demo() -> None:
    """Plays a story of payments on fresh state, checks each step, and leaves nothing behind."""
    from local.demo import play

    sys.exit(asyncio.run(_until_signal(play(console, os.environ), code=STOPPED)))


@app.command()
def clean() -> None:
    """Removes the data folder."""
    data = _settings().data
    try:
        DataFolder(data).remove()
    except SettingsError as error:
        _fail(error)
    say(f"{data} is removed", markup=False)


def _settings() -> Settings:
    try:
        return read_settings(os.environ)
    except SettingsError as error:
        _fail(error)


async def _until_signal(work: Coroutine[Any, Any, int], code: int) -> int:
    """The work's exit code, or `code` when a signal ended it. Work has time to clean up; later signals wait."""
    if "MAKELEVEL" in os.environ:
        die_with(os.getppid(), signal.SIGTERM)  # a make that is killed must not leave us running unseen
    task = asyncio.create_task(work)
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        task.cancel()
        for number in signals:
            loop.add_signal_handler(number, lambda: None)

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in signals:
        loop.add_signal_handler(number, on_signal)
    try:
        return await task
    except asyncio.CancelledError:
        return code


async def _run(settings: Settings) -> int:
    began = time.monotonic()
    suite = Suite(settings, say)
    try:
        running = await suite.start()
        _greet(running, time.monotonic() - began, suite)
        await asyncio.Event().wait()
    except (PartFailed, SettingsError) as failure:
        console.print(str(failure), style="red", markup=False)
        return 1
    finally:
        await suite.stop()
    return 0


def _greet(running: Mapping[str, Any], seconds: float, suite: Suite) -> None:
    merchant = running["merchant"]
    order = {"id": "ord_1", "merchant_id": merchant["id"], "asset": "USDT", "amount_minor": 5_000_000}
    say(f"\n[bold green]OSPay is ready[/] in {seconds:.1f} s. Logs: {suite.logs} · for scripts: {suite.run_file}")
    say("Create an order of 5 USDT:\n")
    say(
        f"curl -s {running['gateway_url']}/orders -H 'Content-Type: application/json'"
        f" -H 'X-API-Key: {merchant['api_key']}' -d '{json.dumps(order)}'",
        markup=False,
    )
    say(f"\nThe API: {running['gateway_url']}/docs · Ctrl-C stops everything")


def say(line: str, markup: bool = True) -> None:
    # Whoever read our output may be gone (a pipe, a closed terminal): no reason to stop.
    with suppress(OSError):
        console.print(line, markup=markup)


def _fail(error: Exception) -> NoReturn:
    console.print(str(error), style="red", markup=False)
    sys.exit(1)
