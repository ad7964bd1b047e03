"""An OTLP endpoint that keeps what it is sent, and what can be asked of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2


@dataclass(frozen=True)
class Seen:
    """A span and the service that made it."""

    service: str
    span: trace_pb2.Span


@dataclass
class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """An OTLP endpoint that keeps what it is sent."""

    seen: list[Seen] = field(default_factory=list)

    def Export(self, request, context):  # gRPC's name
        for resource in request.resource_spans:
            names = [item.value.string_value for item in resource.resource.attributes if item.key == "service.name"]
            for scope in resource.scope_spans:
                self.seen += [Seen(names[0], span) for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def trace(self, root_name: str) -> list[Seen]:
        """The trace of the only root of this name."""
        roots = [item for item in list(self.seen) if item.span.name == root_name and not item.span.parent_span_id]
        assert len(roots) <= 1, "one request was made"
        return [item for item in list(self.seen) if roots and item.span.trace_id == roots[0].span.trace_id]

    def trace_of(self, name: str) -> list[Seen]:
        """The trace that the only span of this name is in."""
        found = {item.span.trace_id for item in list(self.seen) if item.span.name == name}
        assert len(found) <= 1, "it was done once"
        return [item for item in list(self.seen) if item.span.trace_id in found]


def orphans(spans: list[Seen]) -> list[str]:
    """Names of spans whose parent is not there."""
    ids = {item.span.span_id for item in spans}
    return [item.span.name for item in spans if item.span.parent_span_id and item.span.parent_span_id not in ids]
