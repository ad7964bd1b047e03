"""`python -m bench.echo`: a grpc.aio server that sends back what it is sent. It prints its port."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import grpc
import uvloop

METHOD = "/bench.Echo/Echo"
PAYLOAD = b"x" * 300  # about what an order is


async def _echo(request: bytes, _context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
    return request


async def serve() -> None:
    """Serves until it is told to end."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    _, service, method = METHOD.split("/")
    handlers: dict[str, Any] = {method: grpc.unary_unary_rpc_method_handler(_echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    await server.stop(0)


if __name__ == "__main__":
    uvloop.run(serve())
