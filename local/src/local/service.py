"""The four services as parts: separate processes, ready when their health check says so."""

import sys
from collections.abc import Mapping
from pathlib import Path
from signal import SIGKILL

import aiohttp
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from local.places import REPOSITORY
from local.ports import listens
from local.process import Command

LOOK_BOUND = 2.0  # seconds for one look at a service's health


class Service:
    """One replica of a service."""

    def __init__(self, service: str, name: str, port: int, env: Mapping[str, str], log: Path) -> None:
        self.service = service
        self.name = name
        self.port = port
        self._env = env
        self._log = log

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def prepare(self) -> None:
        """Nothing: a service keeps no files."""

    def command(self) -> Command:
        return Command(
            argv=[sys.executable, "-m", self.service],
            log=self._log,
            env=self._env,
            cwd=REPOSITORY,
            # When the runner is killed there is nobody left to stop a service that hangs; it may crash any time.
            death_signal=SIGKILL,
        )

    async def ready(self, pid: int) -> bool:
        return await listens(self.port) and await grpc_serves(self.address)


class HttpService(Service):
    """One replica of the gateway."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def ready(self, pid: int) -> bool:
        return await listens(self.port) and await http_is_ok(f"{self.address}/health")


async def grpc_serves(address: str) -> bool:
    async with grpc.aio.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        try:
            answer = await check(health_pb2.HealthCheckRequest(), timeout=LOOK_BOUND)
        except grpc.aio.AioRpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def http_is_ok(url: str) -> bool:
    timeout = aiohttp.ClientTimeout(total=LOOK_BOUND)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as answer:
            return answer.status == 200
    except (OSError, TimeoutError, aiohttp.ClientError):
        return False
