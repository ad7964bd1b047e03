"""`python -m bench.overload`: four times what can be done, and one merchant beside another. See README.md."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from bench import memory
from bench.figures import Figures
from bench.orders import FEW, MANY, Orders
from bench.sizes import FULL
from bench.stage import Stage, fresh_suite

RESULTS = Path(__file__).parent / "results" / "overload.json"
ROUNDS = 3
TIMES = 4
FULL_SECONDS = 5.0
OVERLOAD_SECONDS = 30.0
AFTER_SECONDS = 2.0
QUIET_RATE = 50.0  # a second: a merchant with a few customers
QUIET_SECONDS = 10.0
MADE, REFUSED = 201, 503
MAX_MEMORY_MB = 200


async def overload(orders: Orders, figures: Figures) -> None:
    """As many callers as fill it, four times as many who do not mind being refused, and at once a few again."""
    full = await orders.create_or_be_refused(MANY, FULL_SECONDS)
    rate = full.statuses[MADE] / full.seconds
    over = await orders.create_or_be_refused(TIMES * MANY, OVERLOAD_SECONDS)
    after = await orders.create_paced(rate / 10, AFTER_SECONDS)
    assert over.statuses[REFUSED], "nothing was refused, so this was no overload"
    figures.note("requests/s ÷ created/s at capacity", over.statuses.total() / over.seconds / rate)
    figures.note("created/s, overload ÷ capacity", over.statuses[MADE] / over.seconds / rate)
    for share, name in ((0.5, "p50"), (0.99, "p99")):
        at_capacity, in_overload = full.percentile(share), over.percentile(share, MADE)
        figures.note(f"{name} ms at capacity", at_capacity)
        figures.note(f"{name} ms of what is made in overload", in_overload)
        figures.note(f"{name}, overload ÷ capacity", in_overload / at_capacity)
    figures.note("p99 ms of the two seconds after it, at a tenth", after.percentile(0.99))


async def fairness(noisy: Orders, quiet: Orders, figures: Figures) -> None:
    """A merchant at a small rate: alone, and beside one whose customers take all there is and more."""
    alone = await quiet.create_paced(QUIET_RATE, QUIET_SECONDS)
    crowd = asyncio.create_task(noisy.create_or_be_refused(TIMES * MANY, QUIET_SECONDS))
    beside = await quiet.create_paced(QUIET_RATE, QUIET_SECONDS)  # none of its orders is refused
    noise = await crowd
    for share, name in ((0.5, "p50"), (0.99, "p99")):
        figures.note(f"{name} ms of a quiet merchant alone", alone.percentile(share))
        figures.note(f"{name} ms of it beside a noisy one", beside.percentile(share))
        figures.note(f"{name}, the quiet one ÷ the noisy one", beside.percentile(share) / noise.percentile(share, MADE))


async def measure() -> Figures:
    """All figures, with a value for each round."""
    figures = Figures()
    with fresh_suite({}) as suite:
        async with Stage.open(suite, FULL) as stage, memory.watched(suite, figures):
            noisy, quiet = [Orders(stage, await stage.merchant()) for _ in range(2)]
            await noisy.create(FEW)  # caches, plans and pools are warm from here on
            for _ in range(ROUNDS):
                await overload(noisy, figures)
                await fairness(noisy, quiet, figures)
    assert figures.median("memory") < MAX_MEMORY_MB, f"{figures.median('memory')} MB"
    return figures


def main() -> None:
    """Runs everything, shows it and writes the results."""
    figures = uvloop.run(measure())
    table = Table("what", "median", "rounds")
    for name, values in figures.rounds.items():
        table.add_row(name, f"{figures.median(name):.3g}", "  ".join(f"{value:.3g}" for value in values))
    Console().print(table)
    content = {name: {"median": figures.median(name), "rounds": values} for name, values in figures.rounds.items()}
    RESULTS.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
