"""Where traces begin and where they do not, with a provider that samples none of its own accord."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind

from kit import telemetry

SAMPLED = f"00-{'1' * 32}-{'a' * 16}-01"
UNSAMPLED = f"00-{'2' * 32}-{'a' * 16}-00"


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Every span that ends during the test."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(sampler=ParentBased(ALWAYS_OFF))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "_tracer", provider.get_tracer("test"))
    yield exporter
    provider.shutdown()


def test_what_is_not_sampled_leaves_nothing(seen: InMemorySpanExporter) -> None:
    """Neither the request nor what it does begins a trace, and it says of none to others."""
    with telemetry.entry("request", ""):
        assert telemetry.traceparent() == ""
        with telemetry.span("inside", kind=SpanKind.CLIENT) as inside, telemetry.spans("batch", [""]) as onward:
            assert (inside, onward) == (trace.INVALID_SPAN, {})
    assert [span.name for span in seen.get_finished_spans()] == []


def test_a_trace_that_comes_goes_on(seen: InMemorySpanExporter) -> None:
    """A sampled one is gone on with; one that is not keeps its name, for the log, and has no spans."""
    with telemetry.entry("request", SAMPLED), telemetry.span("inside", kind=SpanKind.CLIENT):
        assert telemetry.traceparent().startswith(SAMPLED[:36])
    assert [span.name for span in seen.get_finished_spans()] == ["inside", "request"]
    with telemetry.entry("request", UNSAMPLED), telemetry.span("inside", kind=SpanKind.CLIENT):
        assert (telemetry.traceparent()[:36], telemetry.traceparent()[-3:]) == (UNSAMPLED[:36], "-00")
    assert len(seen.get_finished_spans()) == 2


def test_nonsense_is_no_trace(seen: InMemorySpanExporter) -> None:
    """What names no trace is as if nothing had come."""
    with telemetry.span("work", parent="00-nonsense", kind=SpanKind.SERVER) as current:
        assert current is trace.INVALID_SPAN
    with telemetry.entry("request", "00-nonsense"):
        assert not trace.get_current_span().is_recording()
    assert [span.name for span in seen.get_finished_spans()] == []


def line(exc_info: object) -> dict[str, str]:
    """What is written of a library's record with this `exc_info`."""
    record = logging.LogRecord("library", logging.ERROR, "", 0, "it broke", None, exc_info)  # type: ignore[arg-type]
    found: dict[str, str] = json.loads(telemetry.LibraryLine().format(record))
    return found


def test_a_librarys_line_is_one_line() -> None:
    """With an exception, with none, and with the False that the exporter of traces gives when it cannot deliver."""
    plain = {"event": "library", "detail": "it broke", "level": "error"}
    assert (line(None), line(False)) == (plain, plain)
    try:
        raise ValueError("away")
    except ValueError:
        assert line(sys.exc_info()) == {**plain, "detail": "it broke: ValueError('away')"}
