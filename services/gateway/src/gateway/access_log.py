"""One line per request. Lines are gathered and written together: a write for each would cost more than its request."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Literal, TextIO

import msgspec
from opentelemetry.trace import SpanContext

from kit.process import Process

FLUSH_SECONDS = 0.2
MAX_LINES = 500


class _Line(msgspec.Struct, omit_defaults=True):
    event: str
    level: Literal["info", "warning"]
    service: str
    timestamp: datetime
    request_id: str
    method: str
    route: str
    status: int
    duration_ms: float
    merchant_id: str = ""
    trace_id: str = ""


class AccessLog:
    """Writes request lines in the format of all other log lines, at most 0.2 s late. `level` is LOG_LEVEL."""

    def __init__(self, level: str, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._min_status = {"DEBUG": 0, "INFO": 0, "WARNING": 500}.get(level, 1000)
        self._lines: list[bytes] = []
        self._encode = msgspec.json.Encoder(decimal_format="number").encode

    def start(self, process: Process) -> None:
        """Writes from time to time until the process ends."""
        process.every(FLUSH_SECONDS, "access log", self._write_due)
        process.resources.callback(self.flush)

    def add(
        self,
        *,
        request_id: str,
        method: str,
        route: str,
        status: int,
        seconds: float,
        merchant_id: str,
        span: SpanContext,
    ) -> None:
        """Notes one request."""
        if status < self._min_status:
            return
        line = _Line(
            event="request",
            level="warning" if status >= 500 else "info",
            service="gateway",
            timestamp=datetime.now(UTC),
            request_id=request_id,
            method=method,
            route=route,
            status=status,
            duration_ms=round(seconds * 1000, 2),
            merchant_id=merchant_id,
            trace_id=f"{span.trace_id:032x}" if span.is_valid else "",
        )
        self._lines.append(self._encode(line))
        if len(self._lines) >= MAX_LINES:
            self.flush()

    def flush(self) -> None:
        """Writes what was gathered."""
        if self._lines:
            lines, self._lines = self._lines, []
            self._stream.write(b"\n".join(lines).decode() + "\n")
            self._stream.flush()

    async def _write_due(self) -> None:
        self.flush()
