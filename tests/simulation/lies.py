"""How the endpoints of a life fail and lie: what is hard to tell from the truth above all."""

from __future__ import annotations

from local.devchain import FINALITY_DEPTH
from services.verifier.tests import malicious as rpc


def _more(answer: rpc.Answer) -> None:
    """Every amount is eight times as large."""
    logs = answer["result"] if isinstance(answer["result"], list) else answer["result"]["logs"]
    for log in logs:
        log["data"] = "0x" + format(int(log["data"], 16) * 8, "064x")


found = rpc.of("eth_getLogs")

LIES: dict[str, rpc.Lie] = {
    "down": rpc.status(503),
    "drops connections": rpc.dropped,
    "rate limited": rpc.status(429, Retry_After="1"),
    "limited on logs": rpc.changing(found, rpc.fails(-32005)),
    "HTML": rpc.html,
    "cut answers": rpc.truncated,
    "wrong chain": rpc.wrong_chain,
    "flaps": rpc.now_and_then(rpc.dropped),
    "slow": rpc.delayed(0.3),
    "hides a log": rpc.both(rpc.changing(found, rpc.hidden_found_log), rpc.changing(rpc.receipts, rpc.hidden_log)),
    "hides all logs": rpc.changing(found, lambda answer: answer.update(result=[])),
    "knows no receipt": rpc.changing(rpc.receipts, rpc.nothing),
    "all failed": rpc.changing(rpc.receipts, rpc.failed),
    "larger amounts": rpc.both(rpc.changing(found, _more), rpc.changing(rpc.receipts, _more)),
    "everything is final": rpc.changing(rpc.by_tag("finalized"), rpc.moved(FINALITY_DEPTH)),
    "nothing is final": rpc.changing(rpc.by_tag("finalized"), rpc.result(number="0x0")),
    "other blocks": rpc.changing(rpc.blocks, rpc.result(hash=rpc.HASH)),
}
