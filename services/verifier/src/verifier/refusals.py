"""What an endpoint means when it refuses eth_getLogs.

No code is agreed on: -32005 is "too many results" with one provider, "too many requests" with another and "not for you"
with a third, so the words decide. Sources: the providers' manuals, bsc-geth, ponder's list of what was met.
"""

from __future__ import annotations

import re
from enum import Enum

# The rest of a message is of no use, and an endpoint may send megabytes.
READ_CHARACTERS = 500
NOT_SERVED_CODES = frozenset({-32601, -32004})  # method not found, method not supported (EIP-1474)

# The endpoint has not seen these blocks, or has them no more: fewer of them would not help.
NOT_THERE = re.compile(r"invalid (block )?range|beyond|unknown block|header not found|missing|pruned", re.IGNORECASE)
RANGE = re.compile(r"\brange\b|blocks\b|results|response size|logs matched", re.IGNORECASE)
TOO_OFTEN = re.compile(
    r"\brate\b|too many requests|requests? per|(per|each) second|compute units|capacity|throughput|quota|daily",
    re.IGNORECASE,
)
NOT_SERVED = re.compile(
    r"\bnot (found|available|supported|allowed|enabled|whitelisted)|does not exist|disabled|forbidden|upgrade",
    re.IGNORECASE,
)
TOO_MUCH = re.compile(r"too (large|many|big|wide)|more than|exceed|limit|larger|greater|time(d)? ?out", re.IGNORECASE)


class Refusal(Enum):
    """Why logs are refused."""

    NOT_SERVED = "not_served"
    TOO_OFTEN = "too_often"
    TOO_MUCH = "too_much"


def of_logs(code: int, message: str) -> Refusal | None:
    """The refusal that an error in the place of logs means; None where it is another failure.

    The most telling words count: a sentence on the range of blocks often goes on about plans, limits and upgrades.
    """
    if code in NOT_SERVED_CODES:
        return Refusal.NOT_SERVED
    text = message[:READ_CHARACTERS]
    if NOT_THERE.search(text):
        return None
    for words, refusal in (
        (RANGE, Refusal.TOO_MUCH),
        (TOO_OFTEN, Refusal.TOO_OFTEN),
        (NOT_SERVED, Refusal.NOT_SERVED),
        (TOO_MUCH, Refusal.TOO_MUCH),
    ):
        if words.search(text):
            return refusal
    return None
