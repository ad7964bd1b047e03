"""The whole suite on one machine: what starts after what, and what run.json says."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from local.anvil import CHAIN_ID, Anvil
from local.datafolder import DataFolder, new_secret
from local.devchain import DevChain
from local.merchant import Merchant, create_merchant, key_works, new_wallet
from local.nats import Nats
from local.places import REPOSITORY
from local.ports import free_port, is_free
from local.postgres import Postgres, migrate
from local.process import until
from local.service import HttpService, Service, http_is_ok
from local.settings import FREE, SERVICES, Settings, SettingsError, suite_defaults
from local.supervisor import Supervisor
from local.token import TOKEN_ADDRESS
from local.wiring import SECRET_NAMES, SERVICES_WITH_DATABASE, Wiring

PARTS = ("postgres", "nats", "anvil")


class Suite:
    """`start` returns when the suite can be used; `stop` ends every process, also of a half-started suite."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._settings = settings
        self._folder = DataFolder(settings.data)
        self._supervisor = Supervisor(say, self._processes_changed)
        self._saving: asyncio.Task[None] | None = None
        self._run: dict[str, Any] = {}
        self.logs = self._folder.logs
        self.run_file = self._folder.run_file

    async def start(self) -> dict[str, Any]:
        """What run.json says."""
        self._folder.open()
        self._refuse_another_chain()
        self._choose_parts()
        await _together(self._start_database(), self._supervisor.start(self._nats), self._start_chain())
        await _together(*(self._supervisor.start(service) for service in self._services))
        await self._await_readiness()
        self._run = await self._describe(await self._ensure_merchant())
        self._processes_changed()
        return self._run

    async def stop(self) -> None:
        """The edge first, then the services together, then what they stand on: each can finish what it has begun."""
        self._run = {}
        if self._saving is not None:
            self._saving.cancel()
            with suppress(asyncio.CancelledError):
                await self._saving
        try:
            for group in (("gateway",), SERVICES, PARTS):
                await self._supervisor.stop([name for name in self._supervisor.names if _part(name) in group])
        finally:
            self._supervisor.kill_all()
            self._folder.close()

    def _choose_parts(self) -> None:
        secrets = self._secrets()
        ports = {part: self._port(part) for part in PARTS}
        folder, logs = self._folder.path, self._folder.logs
        self._postgres = Postgres(folder, ports["postgres"], secrets["postgres_password"], logs / "postgres.log")
        self._nats = Nats(folder, ports["nats"], logs / "nats.log")
        self._anvil = Anvil(folder, ports["anvil"], logs / "anvil.log", self._settings.block_time)
        self._wiring = Wiring(
            ports={service: self._replica_ports(service) for service in SERVICES},
            metrics_ports={
                service: [free_port() for _ in range(self._settings.replicas[service])] for service in SERVICES
            },
            database_url=self._postgres.url,
            nats_url=self._nats.url,
            rpc_url=self._settings.rpc_url or self._anvil.url,
            secrets=secrets,
        )
        # What the user has set wins over our choices, but for the addresses that OSPAY_PORT_… decides.
        self._environment = {**suite_defaults(), **self._wiring.environment(), **self._settings.environment}
        self._services = [
            self._service(service, n) for service in SERVICES for n in range(self._settings.replicas[service])
        ]

    def _secrets(self) -> dict[str, Any]:
        known = self._folder.secrets()
        missing = [name for name in SECRET_NAMES if name not in known]
        if missing:
            known |= {name: new_secret() for name in missing}
            self._folder.save_secrets(known)
        return known

    def _replica_ports(self, service: str) -> list[int]:
        """The first replica has the port that was asked for."""
        return [self._port(service), *(free_port() for _ in range(self._settings.replicas[service] - 1))]

    def _port(self, part: str) -> int:
        port = self._settings.ports[part]
        if port == FREE:
            return free_port()
        if not is_free(port):
            raise SettingsError(f"port {port} for {part} is taken: set OSPAY_PORT_{part.upper()} to another, or to 0")
        return port

    def _service(self, service: str, replica: int) -> Service:
        name = service if replica == 0 else f"{service}-{replica + 1}"
        make = HttpService if service == "gateway" else Service
        env = self._environment | self._wiring.listen(service, replica)
        return make(service, name, self._wiring.ports[service][replica], env, self._folder.logs / f"{name}.log")

    async def _start_database(self) -> None:
        await self._supervisor.start(self._postgres)
        await self._postgres.psql(REPOSITORY / "config" / "databases.sql", self._wiring.database_passwords())
        migrations = ((self._wiring.owner_url(service), _migrations(service)) for service in SERVICES_WITH_DATABASE)
        await _together(*(migrate(url, folder) for url, folder in migrations))

    async def _start_chain(self) -> None:
        if self._settings.rpc_url is None:
            await self._supervisor.start(self._anvil)
            async with DevChain.connect(self._anvil.url) as chain:
                # A new chain has no final block, and without one nothing can be proved.
                if await chain.finalized() == 0:
                    await chain.finalize()
            self._saving = asyncio.create_task(self._anvil.keep_saving())

    async def _await_readiness(self) -> None:
        """Each part was ready on its own; now the gateway must reach them all."""

        async def ready() -> bool:
            return await http_is_ok(f"{self._gateway}/dbhealth")

        await until(ready, f"{self._gateway}/dbhealth to answer 200")

    @property
    def _gateway(self) -> str:
        return f"http://{self._wiring.addresses('gateway')[0]}"

    def _refuse_another_chain(self) -> None:
        """The dev chain's merchant must never ask for real money: the private key of its wallet is known to everybody.

        Nor is what stands in the databases of one chain (heights, transfers) true of another.
        """
        merchant = Merchant.known(self._folder.secrets())
        is_dev = self._settings.rpc_url is None
        if merchant is not None and is_dev != (merchant.wallet_key is None):
            used, wanted = ("a real", "the dev") if is_dev else ("the dev", "a real")
            raise SettingsError(
                f"{self._folder.path} was used with {used} chain: set OSPAY_DATA_DIR to a new folder for {wanted} one"
            )

    async def _ensure_merchant(self) -> Merchant:
        known = self._folder.secrets()
        merchant = Merchant.known(known)
        if merchant is None or not await key_works(self._gateway, merchant):
            wallet, wallet_key = await self._merchant_wallet()
            merchant = await create_merchant(self._gateway, self._admin_key, wallet, wallet_key)
            self._folder.save_secrets(known | {"merchant": merchant.secret()})
        return merchant

    async def _merchant_wallet(self) -> tuple[str, str | None]:
        """On the dev chain its last account, which is unlocked: refunds can be sent from it too."""
        accounts = await self._accounts()
        return (accounts[-1], None) if accounts else new_wallet()

    async def _accounts(self) -> list[str]:
        if self._settings.rpc_url is not None:
            return []
        async with DevChain.connect(self._anvil.url) as chain:
            return chain.accounts

    @property
    def _admin_key(self) -> str:
        return self._environment["GATEWAY_ADMIN_KEY"]

    async def _describe(self, merchant: Merchant) -> dict[str, Any]:
        wiring = self._wiring
        return {
            "gateway_url": self._gateway,
            "grpc": {service: wiring.addresses(service)[0] for service in SERVICES_WITH_DATABASE},
            "databases": {name: self._environment[f"{name.upper()}_DATABASE_URL"] for name in SERVICES_WITH_DATABASE},
            "database_owners": {name: wiring.owner_url(name) for name in SERVICES_WITH_DATABASE},
            "nats_url": self._environment["NATS_URL"],
            "nats_dir": str(self._nats.store),
            "rpc_url": wiring.rpc_url,
            "chain_id": CHAIN_ID,
            "token_address": TOKEN_ADDRESS,
            "funded_accounts": [account for account in await self._accounts() if account != merchant.wallet],
            "admin_key": self._admin_key,
            "grpc_token": wiring.secrets["operator_grpc_token"],
            "merchant": merchant.public(),
            "metrics_urls": wiring.metrics_urls(),
            "logs": str(self._folder.logs),
            "runner_pid": os.getpid(),
        }

    def _processes_changed(self) -> None:
        running = self._supervisor.pids()
        self._folder.note_processes(list(running.values()))
        if self._run:
            pids: dict[str, list[int]] = {}
            for name, pid in running.items():
                pids.setdefault(_part(name), []).append(pid)
            self._run["pids"] = pids
            self._folder.write_run(self._run)


def _part(name: str) -> str:
    """`orders` for `orders-2`, its second replica."""
    return name.split("-")[0]


def _migrations(service: str) -> Path:
    return REPOSITORY / "services" / service / "migrations"


async def _together(*steps: Coroutine[Any, Any, object]) -> None:
    """All at once; the first failure stops the others and is the one that is told."""
    try:
        async with asyncio.TaskGroup() as group:
            for step in steps:
                group.create_task(step)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
