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

SCANNED = Gauge("verifier_scanned_number", "Newest block looked through for the watched addresses", ["chain"])
LOOKED_THROUGH = Gauge(
    "verifier_looked_through_timestamp_seconds",
    "Every block of an earlier time (Unix) was looked through, by whichever replica",
    ["chain"],
)
SCAN_SECONDS = Histogram("verifier_scan_seconds", "Time of one pass of the scanner", ["chain"])
SIGHTINGS = Counter(
    "verifier_sightings_total", "Transfers found on watched addresses, by what became of them", ["chain", "state"]
)
SWEEP_FOUND = Counter("verifier_sweep_found_total", "Transfers that only the second look has found", ["chain"])
DEEP_REORGS = Counter("verifier_deep_reorgs_total", "Changes of the chain beyond finality", ["chain"])
WATCHED = Gauge("verifier_watched_addresses", "Addresses that the scanner of this process follows", ["chain"])
LEADER = Gauge("verifier_leader", "1 while this process scans the chain", ["chain"])
REPORTS_OPEN = Gauge("verifier_reports_open", "Reports that were not confirmed yet, of all replicas")
