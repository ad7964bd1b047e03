"""One trace goes through the verifier: the claim's span, the node's calls below it, the verdict onward."""

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

TRACES = ["1" * 32, "2" * 32]


@pytest.fixture
def spans():
    """Every span that ends during the test."""
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
    exporter = InMemorySpanExporter()
    processor = SimpleSpanProcessor(exporter)
    provider.add_span_processor(processor)
    yield exporter
    processor.shutdown()


async def test_a_claims_trace(verifier, anvil, spans):
    """Sampled claims of a batch have a span each in their own trace; the calls to the node stand under one of them."""
    await anvil.mine(10)
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], 10**18, mine=True)
    await anvil.finalize()
    parents = [f"00-{trace_id}-{'a' * 16}-01" for trace_id in TRACES]
    unsampled = f"00-{'3' * 32}-{'a' * 16}-00"
    claims = [verifier.claim(tx, anvil.accounts[1], traceparent=parent) for parent in [*parents, unsampled, ""]]
    await verifier.publish(claims)
    verdicts = [await verifier.hear(claim, "final") for claim in claims]
    ours = [span for span in spans.get_finished_spans() if f"{span.context.trace_id:032x}" in TRACES]
    verifying = {f"{span.context.trace_id:032x}": span for span in ours if span.name == "verify"}
    assert set(TRACES) == set(verifying)
    for trace_id, verdict in zip(TRACES, verdicts, strict=False):
        span = verifying[trace_id]
        assert (span.kind, f"{span.parent.span_id:016x}") == (trace.SpanKind.CONSUMER, "a" * 16)
        assert f"00-{trace_id}-{span.context.span_id:016x}-01" == verdict.traceparent
    assert [unsampled, ""] == [verdict.traceparent for verdict in verdicts[2:]]
    calls = [span for span in ours if span.kind is trace.SpanKind.CLIENT]
    assert [span.name for span in calls] == ["eth_getBlockByNumber eth_getTransactionReceipt", "eth_getBlockByNumber"]
    assert {span.context.span_id for span in verifying.values()} >= {span.parent.span_id for span in calls}


async def test_work_that_no_request_asked_for_leaves_no_trace(verifier, anvil, spans):
    """The health probe and the watcher start no traces of their own."""
    await anvil.mine(10)
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], 10**18, mine=True)
    claim = verifier.claim(tx, anvil.accounts[1])
    await verifier.publish([claim])
    await verifier.hear(claim, "not_final")
    await anvil.finalize()
    await verifier.hear(claim, "final")
    assert [span.name for span in spans.get_finished_spans()] == []
