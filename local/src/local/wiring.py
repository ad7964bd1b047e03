"""What each service is told: who listens where, with which secret. Pure; see docs/operations.md for the names."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from local.places import REPOSITORY
from local.settings import SERVICES

CALLERS = ("gateway", "orders", "operator")  # each has a token of its own
SERVICES_WITH_DATABASE = ("orders", "verifier", "ledger")
SECRET_NAMES = (
    "postgres_password",
    *(f"{service}{role}_password" for service in SERVICES_WITH_DATABASE for role in ("", "_owner")),
    *(f"{caller}_grpc_token" for caller in CALLERS),
    "api_key_pepper",
    "admin_key",
)


@dataclass(frozen=True)
class Wiring:
    """Addresses and secrets of one run. Ports are listed by service, one for each replica."""

    ports: Mapping[str, list[int]]
    metrics_ports: Mapping[str, list[int]]
    database_url: Callable[[str, str, str], str]  # database, role, password
    nats_url: str
    rpc_url: str
    secrets: Mapping[str, str]

    def service_url(self, service: str) -> str:
        """For the service's own role."""
        return self.database_url(service, service, self.secrets[f"{service}_password"])

    def owner_url(self, service: str) -> str:
        """For the role that runs the migrations."""
        return self.database_url(service, f"{service}_owner", self.secrets[f"{service}_owner_password"])

    def database_passwords(self) -> dict[str, str]:
        """As config/databases.sql wants them."""
        return {name.upper(): secret for name, secret in self.secrets.items() if name.endswith("_password")}

    def environment(self) -> dict[str, str]:
        """The same for all replicas of all services: each reads what is its own."""
        return {
            "OSPAY_ENVIRONMENT": "local",
            "OSPAY_CHAINS_FILE": str(REPOSITORY / "config" / "chains.toml"),
            "NATS_URL": self.nats_url,
            "BSC_RPC_URL": self.rpc_url,
            **{f"{service.upper()}_DATABASE_URL": self.service_url(service) for service in SERVICES_WITH_DATABASE},
            "ORDERS_API_KEY_PEPPER": self.secrets["api_key_pepper"],
            "ORDERS_GRPC_CALLERS": self._callers("gateway", "operator"),
            "ORDERS_GRPC_TOKEN": self.secrets["orders_grpc_token"],
            "ORDERS_VERIFIER_TARGET": self.target("verifier"),
            "ORDERS_LEDGER_TARGET": self.target("ledger"),
            "VERIFIER_GRPC_CALLERS": self._callers(*CALLERS),
            "LEDGER_GRPC_CALLERS": self._callers(*CALLERS),
            "GATEWAY_GRPC_TOKEN": self.secrets["gateway_grpc_token"],
            "GATEWAY_ORDERS_TARGET": self.target("orders"),
            "GATEWAY_VERIFIER_TARGET": self.target("verifier"),
            "GATEWAY_LEDGER_TARGET": self.target("ledger"),
            "GATEWAY_ADMIN_KEY": self.secrets["admin_key"],
        }

    def listen(self, service: str, replica: int) -> dict[str, str]:
        """What differs from replica to replica."""
        protocol = "HTTP" if service == "gateway" else "GRPC"
        return {
            f"{service.upper()}_{protocol}_LISTEN": f"127.0.0.1:{self.ports[service][replica]}",
            f"{service.upper()}_METRICS_LISTEN": f"127.0.0.1:{self.metrics_ports[service][replica]}",
        }

    def target(self, service: str) -> str:
        """All replicas, for gRPC's own load balancing."""
        return "ipv4:" + ",".join(self.addresses(service))

    def addresses(self, service: str) -> list[str]:
        return [f"127.0.0.1:{port}" for port in self.ports[service]]

    def metrics_urls(self) -> dict[str, list[str]]:
        return {
            service: [f"http://127.0.0.1:{port}/metrics" for port in self.metrics_ports[service]]
            for service in SERVICES
        }

    def _callers(self, *names: str) -> str:
        return ",".join(f"{name}={self.secrets[f'{name}_grpc_token']}" for name in names)
