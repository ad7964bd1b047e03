"""What makes a transfer count. Standard library only; nothing here waits, reads a clock or talks to anyone.

Hashes, addresses and data are lower-case hex with 0x; amounts are base units, exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

# keccak256("Transfer(address,address,uint256)")
TRANSFER_TOPIC = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
ADDRESS_PADDING = "0x" + "0" * 24
WORD_LENGTH = len("0x") + 64


ProofKey = tuple[str, str, str]
"""Transaction, contract and recipient, on one chain."""


class WaitReason(StrEnum):
    """What a claim waits for."""

    NOT_FOUND = "not_found"
    NOT_FINAL = "not_final"
    CHAIN_UNAVAILABLE = "chain_unavailable"


class RejectReason(StrEnum):
    """Why a claim is refuted."""

    TX_FAILED = "tx_failed"
    WRONG_TOKEN = "wrong_token"  # noqa: S105  # not a password
    WRONG_RECIPIENT = "wrong_recipient"
    NO_TRANSFER = "no_transfer"
    GIVEN_UP = "given_up"


class ChainFailure(Exception):
    """Nothing can be said of the chain now. `kind` is a slug for metrics; the text holds no URL and no secret.

    `pause` is for how many seconds the endpoint should be left alone; 0 where it does not say. `lasts` is whether the
    same question will fail in the same way the next time.
    """

    kind = "unavailable"
    pause = 0.0
    lasts = False


class Untrusted(ChainFailure):
    """What the endpoint answers contradicts itself or what was final before."""

    kind = "untrusted"


class StoreUnavailable(Exception):
    """Proofs can be neither read nor kept now."""


@dataclass(frozen=True, slots=True)
class Claim:
    """That this transaction moved the token at `contract` to `recipient`. `give_up_at` is Unix time, seconds."""

    claim_id: str
    chain: str
    asset: str
    chain_id: int
    contract: str
    tx_hash: str
    recipient: str
    give_up_at: int
    traceparent: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """What makes two claims the same work: all but the time to give up and the trace."""
        return (self.claim_id, self.chain, self.asset, self.tx_hash, self.recipient)

    @property
    def proof_key(self) -> ProofKey:
        """What a recorded proof is found by, on one chain."""
        return (self.tx_hash, self.contract, self.recipient)


@dataclass(frozen=True, slots=True)
class Log:
    """A log of a receipt."""

    address: str
    topics: tuple[str, ...]
    data: str
    log_index: int
    removed: bool = False


@dataclass(frozen=True, slots=True)
class Receipt:
    """A mined transaction. Its logs are known to name the same transaction and block."""

    tx_hash: str
    block_number: int
    block_hash: str
    succeeded: bool
    logs: tuple[Log, ...]


# What an endpoint says of a transaction: mined, unknown (None), or nothing that can be used.
Told = Receipt | ChainFailure | None


@dataclass(frozen=True, slots=True)
class Header:
    """A block that an endpoint calls canonical. `timestamp` is Unix time, seconds."""

    number: int
    hash: str
    timestamp: int


@dataclass(frozen=True, slots=True)
class Heads:
    """The newest block, and the height up to which blocks are final and believed to be."""

    head: Header
    finalized: int


@dataclass(frozen=True, slots=True)
class FoundLog:
    """A log that was found by looking through blocks. Not proof of anything."""

    log: Log
    tx_hash: str
    block_number: int
    block_hash: str


@dataclass(frozen=True, slots=True)
class LogRange:
    """What one endpoint of `operator` shows of a range of blocks: its last block, the logs asked for in it, and the
    block at the height of the cursor (None where none was asked for)."""

    operator: str
    end: Header
    cursor: Header | None
    logs: tuple[FoundLog, ...]


@dataclass(frozen=True, slots=True)
class Transfer:
    """One Transfer log of the claimed token to the claimed recipient."""

    chain_id: int
    tx_hash: str
    log_index: int
    block_number: int
    block_hash: str
    block_time: int
    contract: str
    sender: str
    recipient: str
    amount_base: int

    @property
    def proof_key(self) -> ProofKey:
        """That of a claim on it."""
        return (self.tx_hash, self.contract, self.recipient)


@dataclass(frozen=True, slots=True)
class Final:
    """Proved: every transfer that counts, by log index; at least one."""

    transfers: tuple[Transfer, ...]


@dataclass(frozen=True, slots=True)
class Waiting:
    """Open. Heights are 0 where unknown; `transfers` are what is seen, not proof."""

    reason: WaitReason
    transfers: tuple[Transfer, ...] = ()
    block_number: int = 0
    head_number: int = 0
    finalized_number: int = 0


@dataclass(frozen=True, slots=True)
class Rejected:
    """Refuted."""

    reason: RejectReason


Outcome = Final | Waiting | Rejected


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the chain says of one claim. `traceparent` is the trace context to go on with, or empty."""

    claim: Claim
    outcome: Outcome
    traceparent: str


CHAIN_UNAVAILABLE = Waiting(WaitReason.CHAIN_UNAVAILABLE)


@dataclass(frozen=True, slots=True)
class Movement:
    """What a well-formed Transfer log says."""

    contract: str
    sender: str
    recipient: str
    amount_base: int
    log_index: int


def believe_heads(head: Header, finalized: int | None, mark: int) -> Heads:
    """The heads an endpoint tells, believed only if they can be true; `mark` is the highest final height seen before.

    Errors: Untrusted. Fail closed: no final block (BSC says 0 for "none"), one above the head, one that went back.
    """
    if finalized is None or finalized <= 0:
        raise Untrusted("the endpoint has no final block")
    if finalized > head.number:
        raise Untrusted(f"final block {finalized} is above the head {head.number}")
    if finalized < mark:
        raise Untrusted(f"final block {finalized} is below {mark}, which was final before")
    return Heads(head, finalized)


def decide(claim: Claim, receipt: Receipt | None, heads: Heads, headers: Mapping[int, Header]) -> Outcome:
    """What the chain says of a claim. `headers` are canonical blocks by height, read after the receipt and the heads.

    Errors: Untrusted when the answers contradict one another.
    """
    if receipt is None:
        return undecided(claim, WaitReason.NOT_FOUND, heads, lasts=True)
    _refuse_contradictions(claim, receipt)
    header = headers.get(receipt.block_number)
    canonical = header is not None and header.hash == receipt.block_hash
    transfers = _transfers(claim, receipt, header) if header is not None and canonical else ()
    if receipt.block_number > heads.finalized:
        return Waiting(WaitReason.NOT_FINAL, transfers, receipt.block_number, heads.head.number, heads.finalized)
    if not canonical:
        raise Untrusted(f"the receipt's block is not the final block at height {receipt.block_number}")
    if not receipt.succeeded:
        return Rejected(RejectReason.TX_FAILED)
    return Final(transfers) if transfers else Rejected(_why_nothing_counts(claim, receipt))


def undecided(claim: Claim, reason: WaitReason, heads: Heads, *, lasts: bool) -> Outcome:
    """What is to be said of a claim whose receipt is not to be had: it waits, and if that `lasts` is given up."""
    # The chain's own time: ours may be wrong, and while the chain stands still nothing could have been mined.
    if lasts and heads.head.timestamp > claim.give_up_at:
        return Rejected(RejectReason.GIVEN_UP)
    return Waiting(reason, head_number=heads.head.number, finalized_number=heads.finalized)


def _refuse_contradictions(claim: Claim, receipt: Receipt) -> None:
    if receipt.tx_hash != claim.tx_hash:
        raise Untrusted("the receipt is of another transaction")
    if any(log.removed for log in receipt.logs):
        raise Untrusted("the receipt holds a log that was removed")
    if not receipt.succeeded and receipt.logs:
        raise Untrusted("the receipt of a failed transaction holds logs")


def _transfers(claim: Claim, receipt: Receipt, header: Header) -> tuple[Transfer, ...]:
    moved = (item for item in _movements(receipt.logs) if _counts(item, claim))
    return tuple(
        Transfer(
            chain_id=claim.chain_id,
            tx_hash=receipt.tx_hash,
            log_index=item.log_index,
            block_number=receipt.block_number,
            block_hash=receipt.block_hash,
            block_time=header.timestamp,
            contract=item.contract,
            sender=item.sender,
            recipient=item.recipient,
            amount_base=item.amount_base,
        )
        for item in sorted(moved, key=lambda item: item.log_index)
    )


def _counts(item: Movement, claim: Claim) -> bool:
    return item.contract == claim.contract and item.recipient == claim.recipient and item.amount_base > 0


def _why_nothing_counts(claim: Claim, receipt: Receipt) -> RejectReason:
    moved = [item for item in _movements(receipt.logs) if item.amount_base > 0]
    if any(item.contract == claim.contract for item in moved):
        return RejectReason.WRONG_RECIPIENT
    if any(item.recipient == claim.recipient for item in moved):
        return RejectReason.WRONG_TOKEN
    return RejectReason.NO_TRANSFER


def _movements(logs: Sequence[Log]) -> list[Movement]:
    return [item for item in map(movement, logs) if item is not None]


def movement(log: Log) -> Movement | None:
    """A Transfer log read strictly; None for anything that only looks like one (an NFT's has 4 topics)."""
    if len(log.topics) != 3 or log.topics[0] != TRANSFER_TOPIC or len(log.data) != WORD_LENGTH:
        return None
    # Dirty upper bytes: a contract that encodes by itself could show one address to one reader and another to the next.
    if not all(topic.startswith(ADDRESS_PADDING) for topic in log.topics[1:]):
        return None
    sender, recipient = ("0x" + topic[len(ADDRESS_PADDING) :] for topic in log.topics[1:])
    return Movement(log.address, sender, recipient, int(log.data, 16), log.log_index)
