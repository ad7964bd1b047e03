"""The figures for people and for programs: a table, JSON, a plot."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from bench.figures import ROWS, Figures, Row
from bench.traffic import GENERATOR

# The same text in the same place makes the same file: a plot can be compared with the last one.
mpl.rcParams["svg.hashsalt"] = "bench"
mpl.rcParams["svg.fonttype"] = "none"  # text stays text

RESULTS = Path(__file__).parent / "results"
GOOD, MISSED = "#2e7d32", "#c62828"
SHORTEST, LONGEST = 0.1, 10.0  # of a bar


def show(figures: Figures, console: Console) -> None:
    """The rows, then what they were made of."""
    table = Table("what", "value", "must", "aim", "holds", "rounds")
    for row in ROWS:
        value = figures.median(row.key)
        sign = "≤" if row.less_is_better else "≥"
        rounds = "  ".join(_short(each) for each in figures.rounds[row.key])
        bounds = [f"{sign} {bound:g}" for bound in (row.must, row.aim)]
        table.add_row(row.what, _with_unit(row, value), *bounds, _verdict(row, value), rounds)
    console.print(table)
    made_of = Table("made of", "median", "rounds")
    for key, values in figures.rounds.items():
        if key not in {row.key for row in ROWS}:
            made_of.add_row(key, _short(figures.median(key)), "  ".join(_short(each) for each in values))
    console.print(made_of)


def save(figures: Figures, seconds: Mapping[str, float], folder: Path) -> None:
    """Writes `latest.json` and `latest.svg`; `seconds` is how long each part took."""
    (folder / "latest.json").write_text(json.dumps(_content(figures, seconds), indent=2, ensure_ascii=False) + "\n")
    _plot(figures, folder / "latest.svg")


def _content(figures: Figures, seconds: Mapping[str, float]) -> dict[str, Any]:
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cores": os.cpu_count(),
            "processor": _processor(),
            "python": platform.python_version(),
            "load_generator": GENERATOR,
        },
        "seconds": {part: round(each, 1) for part, each in seconds.items()},
        "rows": [_row(row, figures) for row in ROWS],
        "made_of": {
            key: {"median": figures.median(key), "rounds": values}
            for key, values in figures.rounds.items()
            if key not in {row.key for row in ROWS}
        },
    }


def _row(row: Row, figures: Figures) -> dict[str, Any]:
    value = figures.median(row.key)
    return {
        "key": row.key,
        "what": row.what,
        "unit": row.unit,
        "value": value,
        "must": row.must,
        "aim": row.aim,
        "less_is_better": row.less_is_better,
        "holds_must": row.holds(value, row.must),
        "holds_aim": row.holds(value, row.aim),
        "rounds": figures.rounds[row.key],
    }


def _plot(figures: Figures, file: Path) -> None:
    """A bar for each row: how many times better than it must be, on a scale of doublings."""
    figure = Figure(figsize=(10, 0.45 * len(ROWS) + 1.2), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(ROWS):
        value = figures.median(row.key)
        length = min(max(row.headroom(value), SHORTEST), LONGEST)
        color = GOOD if row.holds(value, row.must) else MISSED
        axes.barh(place, length - SHORTEST, left=SHORTEST, color=color, height=0.6)
        axes.plot([row.headroom(row.aim)] * 2, [place - 0.4, place + 0.4], color="black", linewidth=1.5)
        axes.text(LONGEST * 1.4, place, _with_unit(row, value), ha="right", va="center")
    axes.set_xscale("log", base=2)
    axes.set_xlim(SHORTEST, LONGEST * 1.5)
    axes.set_xticks([0.125, 0.25, 0.5, 1, 2, 4, 8], ["⅛", "¼", "½", "must", "2 ×", "4 ×", "8 ×"])
    axes.set_yticks(range(len(ROWS)), [row.what for row in ROWS])
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=1, linestyle="--")
    axes.set_title("How many times better than it must be; the short line is the aim", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, metadata={"Date": None})


def _verdict(row: Row, value: float) -> str:
    if row.holds(value, row.aim):
        return "[green]must and aim[/]"
    return "[green]must[/]" if row.holds(value, row.must) else "[red]no[/]"


def _with_unit(row: Row, value: float) -> str:
    return f"{_short(value)} {row.unit}".strip()


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _processor() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.machine()
