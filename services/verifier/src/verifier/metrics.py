"""What is counted."""

from prometheus_client import Counter, Gauge, Histogram

CLAIMS = Gauge("verifier_claims", "Claims in this process", ["chain", "state"])
VERDICTS = Counter("verifier_verdicts_total", "Looks at claims, by what the chain said", ["outcome", "reason"])
POISON = Counter("verifier_poison_total", "Messages and claims over NATS that cannot be read or served", ["reason"])
DROPPED = Counter("verifier_dropped_total", "Waiting claims let go for lack of room; orders asks again", ["chain"])
UNPUBLISHED = Counter("verifier_unpublished_total", "Verdicts that NATS did not take; orders asks again")

RPC_CALLS = Counter("verifier_rpc_calls_total", "JSON-RPC calls, each of a batch", ["chain", "method"])
RPC_ERRORS = Counter("verifier_rpc_errors_total", "JSON-RPC batches and answers that failed", ["chain", "kind"])
RPC_SECONDS = Histogram("verifier_rpc_seconds", "Time of a JSON-RPC batch, by the methods in it", ["chain", "method"])
HEAD = Gauge("verifier_head_number", "Newest block read", ["chain"])
FINALIZED = Gauge("verifier_finalized_number", "Newest final block read", ["chain"])
DISAGREEMENTS = Counter(
    "verifier_disagreements_total",
    "Receipts and blocks on which too few operators agree",
    ["chain"],
)
CHAIN_HEALTH = Gauge("verifier_chain_health", "1 all operators answer and agree, 0.5 enough do, 0 too few", ["chain"])
ENDPOINT_UP = Gauge("verifier_endpoint_up", "Whether an operator answers and is believed", ["chain", "operator"])
