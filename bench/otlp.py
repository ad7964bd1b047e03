"""`python -m bench.otlp NAME`: an OTLP receiver. It prints its port, then how many spans NAME it has, as they come."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc

from tests.collector import Collector


class Counting(Collector):
    """Says how many spans of a name it has."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def Export(self, request: Any, context: Any) -> Any:  # gRPC's name
        """Takes spans."""
        answer = super().Export(request, context)
        _say(sum(item.span.name == self._name for item in list(self.seen)))
        return answer


def _say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def main() -> None:
    """Serves until it is ended."""
    server = grpc.server(ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Counting(sys.argv[1]), server)
    _say(server.add_insecure_port("127.0.0.1:0"))
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
