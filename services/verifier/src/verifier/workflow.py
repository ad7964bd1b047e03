"""Verifying a batch of claims of one chain: look, decide, keep the proof."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from verifier.domain import (
    CHAIN_UNAVAILABLE,
    ChainFailure,
    Claim,
    Final,
    Header,
    Heads,
    Outcome,
    ProofKey,
    Receipt,
    Rejected,
    RejectReason,
    StoreUnavailable,
    Transfer,
    Waiting,
    WaitReason,
    decide,
    undecided,
)

log = structlog.get_logger()

# With the heads below what an endpoint has to take at once.
CLAIMS_PER_CALL = 50
HEADERS_PER_CALL = 50

Proofs = Mapping[ProofKey, tuple[Transfer, ...]]
Receipts = Mapping[str, Receipt | ChainFailure | None]


class Chain(Protocol):
    """What is read of a chain; see panel.Panel."""

    async def receipts(self, tx_hashes: Sequence[str]) -> tuple[Heads, dict[str, Receipt | ChainFailure | None]]: ...

    async def headers(self, numbers: Collection[int]) -> Mapping[int, Header]: ...


class Store(Protocol):
    """Where proofs are kept; see store.ProofStore."""

    async def find(self, chain_id: int, keys: Collection[ProofKey]) -> Proofs: ...

    async def record(self, chain_id: int, transfers: Sequence[Transfer], finalized: int) -> Proofs: ...


async def verify(claims: Sequence[Claim], chain: Chain, store: Store, looks: asyncio.Semaphore) -> list[Outcome]:
    """What the chain says now of each claim (all of one chain), in their order.

    Receipts are asked for in parts, and each is decided by the heads that came with it; `looks` bounds how many
    questions there are at once. A Final is on disk before this returns. What cannot be known or kept now waits; nothing
    is raised for it.
    """
    starts = range(0, len(claims), CLAIMS_PER_CALL)
    parts = await asyncio.gather(*(_ask(claims[start : start + CLAIMS_PER_CALL], chain, looks) for start in starts))
    outcomes = await _remember(claims, await _decide_all(parts, chain, looks), store)
    return await _record(claims, outcomes, max(part.heads.finalized if part.heads else 0 for part in parts), store)


@dataclass(frozen=True, slots=True)
class _Part:
    """Claims, and what was answered for them; no heads where nothing was."""

    claims: Sequence[Claim]
    heads: Heads | None
    receipts: Receipts


async def _ask(claims: Sequence[Claim], chain: Chain, looks: asyncio.Semaphore) -> _Part:
    try:
        async with looks:
            return _Part(claims, *await chain.receipts(_hashes(claims)))
    except ChainFailure as failure:
        _log_failure(claims, failure)
        return _Part(claims, None, {})


async def _decide_all(parts: Sequence[_Part], chain: Chain, looks: asyncio.Semaphore) -> list[Outcome]:
    """The outcomes, in the order of the claims. The blocks are read once, after all receipts."""
    claims = [claim for part in parts for claim in part.claims]
    try:
        async with looks:
            headers = await read_headers(chain, set().union(*(_heights(part.receipts) for part in parts)))
    except ChainFailure as failure:
        _log_failure(claims, failure)
        return [CHAIN_UNAVAILABLE] * len(claims)
    return [
        CHAIN_UNAVAILABLE if part.heads is None else _decide(claim, part.receipts[claim.tx_hash], part.heads, headers)
        for part in parts
        for claim in part.claims
    ]


def _log_failure(claims: Sequence[Claim], failure: ChainFailure) -> None:
    log.warning("chain_unavailable", chain=claims[0].chain, claims=len(claims), error=str(failure))


def _hashes(claims: Sequence[Claim]) -> list[str]:
    hashes = list({claim.tx_hash: None for claim in claims})
    # Where several receipts are too large, what is asked for beside them may be left out: not the same ones each time.
    random.shuffle(hashes)
    return hashes


def _heights(receipts: Receipts) -> set[int]:
    return {receipt.block_number for receipt in receipts.values() if isinstance(receipt, Receipt)}


@dataclass(frozen=True, slots=True)
class Look:
    """What the chain says now of some claims, in their order, and the canonical blocks that were read for it."""

    heads: Heads
    headers: Mapping[int, Header]
    outcomes: list[Outcome]


async def look(claims: Sequence[Claim], chain: Chain, heights: Collection[int] = ()) -> Look:
    """What the chain says now of each claim, no proof remembered and none kept; `heights` are read along.

    Errors: ChainFailure.
    """
    heads, receipts = await chain.receipts(_hashes(claims))
    headers = await read_headers(chain, _heights(receipts).union(heights))
    return Look(heads, headers, [_decide(claim, receipts[claim.tx_hash], heads, headers) for claim in claims])


async def read_headers(chain: Chain, heights: Collection[int]) -> dict[int, Header]:
    """The canonical blocks at any number of heights, as far as they are known. Errors: ChainFailure."""
    ascending = sorted(heights)
    headers: dict[int, Header] = {}
    for start in range(0, len(ascending), HEADERS_PER_CALL):
        headers.update(await chain.headers(ascending[start : start + HEADERS_PER_CALL]))
    return headers


def _decide(
    claim: Claim, receipt: Receipt | ChainFailure | None, heads: Heads, headers: Mapping[int, Header]
) -> Outcome:
    try:
        if isinstance(receipt, ChainFailure):
            raise receipt
        return decide(claim, receipt, heads, headers)
    except ChainFailure as failure:
        log.info("claim_undecided", claim_id=claim.claim_id, kind=failure.kind, error=str(failure))
        return undecided(claim, WaitReason.CHAIN_UNAVAILABLE, heads, lasts=failure.lasts)


async def _remember(claims: Sequence[Claim], outcomes: Sequence[Outcome], store: Store) -> list[Outcome]:
    """Answers what the node has forgotten from the proofs: receipts are pruned, a null is no proof of absence."""
    unknown = {claim.proof_key for claim, outcome in zip(claims, outcomes, strict=True) if _is_unknown(outcome)}
    if not unknown:
        return list(outcomes)
    try:
        proofs: Proofs | None = await store.find(claims[0].chain_id, unknown)
    except StoreUnavailable as error:
        log.warning("proofs_unavailable", error=str(error))
        proofs = None

    def remembered(claim: Claim, outcome: Outcome) -> Outcome:
        if not _is_unknown(outcome):
            return outcome
        if proofs is None:
            return CHAIN_UNAVAILABLE
        found = proofs.get(claim.proof_key)
        return Final(found) if found else outcome

    return [remembered(claim, outcome) for claim, outcome in zip(claims, outcomes, strict=True)]


def _is_unknown(outcome: Outcome) -> bool:
    match outcome:
        case Waiting(reason=WaitReason.NOT_FOUND) | Rejected(reason=RejectReason.GIVEN_UP):
            return True
    return False


async def _record(claims: Sequence[Claim], outcomes: Sequence[Outcome], finalized: int, store: Store) -> list[Outcome]:
    transfers = {
        (transfer.tx_hash, transfer.log_index): transfer
        for outcome in outcomes
        if isinstance(outcome, Final)
        for transfer in outcome.transfers
    }
    if not transfers:
        return list(outcomes)
    try:
        proofs = await store.record(claims[0].chain_id, list(transfers.values()), finalized)
    except StoreUnavailable as error:
        log.warning("proofs_unavailable", error=str(error))
        return [CHAIN_UNAVAILABLE if isinstance(outcome, Final) else outcome for outcome in outcomes]
    return [_standing(claim, outcome, proofs) for claim, outcome in zip(claims, outcomes, strict=True)]


def _standing(claim: Claim, outcome: Outcome, proofs: Proofs) -> Outcome:
    """The proof that stands: the first. A chain that moved a final transaction must not make a second payment of it."""
    if not isinstance(outcome, Final):
        return outcome
    proved = proofs.get(claim.proof_key, ())
    if proved != outcome.transfers:
        log.error("proof_contradicted", claim_id=claim.claim_id, tx_hash=claim.tx_hash)
    return Final(proved) if proved else CHAIN_UNAVAILABLE
