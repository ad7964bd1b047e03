"""Settles what was seen: proved and FINAL, taken back, or reversed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import structlog

from kit.database import Database
from verifier import contents, workflow
from verifier.domain import ChainFailure, Claim, Final, ProofKey, StoreUnavailable, Transfer
from verifier.store import unavailable
from verifier.watch.chain import WatchedChain
from verifier.watch.decisions import Settlement, Sighting, State, holds, in_question, settle
from verifier.watch.store import cursors, sightings
from verifier.watch.store.cursors import Fenced
from verifier.watch.store.sightings import Change

log = structlog.get_logger()

# Receipts of one batch: with the heads still below what an endpoint has to take at once.
CLAIMS = 50
BATCHES = 20
# A claim of ours is never given up: the block at its height decides.
NEVER = 253_402_300_799


class Tell(Protocol):
    """Takes changes that are on disk; `told`: a verdict says the same."""

    def __call__(self, changes: Sequence[Change], *, told: bool = False) -> None: ...


Awaited = Callable[[], Collection[ProofKey]]


class Settler:
    """Proves sightings of one chain by the same rules as a claim (receipt, canonical block), and keeps the proofs."""

    def __init__(
        self, chain: WatchedChain, database: Database, proofs: workflow.Store, awaited: Awaited, tell: Tell
    ) -> None:
        """`awaited` is what claims are about to be decided on."""
        self._chain = chain
        self._chain_id = chain.chain.chain_id
        self._assets = {asset.contract.lower(): name for name, asset in chain.chain.assets.items()}
        self._database = database
        self._proofs = proofs
        self._awaited = awaited
        self._tell = tell

    async def settle(self, term: int, reach: int) -> bool:
        """Settles what can be up to the block `reach`; True when there is more to do at once.

        Errors: ChainFailure, StoreUnavailable, Fenced.
        """
        for _ in range(BATCHES):
            with unavailable():
                async with self._database.connection() as connection:
                    due = await sightings.due(connection, self._chain_id, reach, CLAIMS)
            if not due:
                return False
            groups: dict[ProofKey, list[Sighting]] = {}
            for each in due:
                groups.setdefault(each.transfer.proof_key, []).append(each)
            await self._settle(list(groups.values()), term, reach)
        return True

    async def _settle(self, groups: list[list[Sighting]], term: int, reach: int) -> None:
        try:
            rest = await self._leave_to_claims(groups, term, reach)
            if rest:
                await self._write(await self._judge(rest, reach), term)
        except (ChainFailure, StoreUnavailable, Fenced, TimeoutError):
            raise
        except Exception as error:
            # A defect that one sighting shows must not hold up the others.
            if len(groups) > 1:
                middle = len(groups) // 2
                await self._settle(groups[:middle], term, reach)
                await self._settle(groups[middle:], term, reach)
                return
            log.error("unexpected", tx_hash=groups[0][0].transfer.tx_hash, exc_info=error)
            await self._write(Settlement(open=[each.id for each in groups[0]]), term)

    async def _leave_to_claims(self, groups: list[list[Sighting]], term: int, reach: int) -> list[list[Sighting]]:
        """Takes over what claims have proved, leaves to them for a moment what they are about to; returns the rest.

        A claim and a watch meet in most payments, which were proved twice and told three times: this buys a sixth of
        the verifier's CPU for a payment, and a ninth of what all others spend on it.
        """
        shared, awaited = await self._proved_to_claims(groups), self._awaited()
        settlement = Settlement()
        rest = []
        for group in groups:
            key = group[0].transfer.proof_key
            if key in shared:
                settlement.add(settle(group, Final(shared[key]), shared[key], {}, {}, reach))
            elif key in awaited and all(each.state is State.SEEN and not each.looks for each in group):
                settlement.left.extend(each.id for each in group)
            else:
                rest.append(group)
        if len(rest) < len(groups):
            await self._write(settlement, term, told=True)
        return rest

    async def _proved_to_claims(self, groups: list[list[Sighting]]) -> workflow.Proofs:
        """The proofs of exactly what was seen, in blocks that are canonical still: no receipt is asked for again."""
        seen = [group for group in groups if all(each.state is State.SEEN and each.is_proved for each in group)]
        if not seen:
            return {}
        proofs = await self._proofs.find(self._chain_id, [group[0].transfer.proof_key for group in seen])
        headers = await workflow.read_headers(self._chain, {group[0].transfer.block_number for group in seen})
        return {
            group[0].transfer.proof_key: proof
            for group in seen
            if holds(group, proof := proofs.get(group[0].transfer.proof_key, ()), headers)
        }

    async def _judge(self, groups: Sequence[Sequence[Sighting]], reach: int) -> Settlement:
        claims = [self._claim(group[0]) for group in groups]
        heights = {each.transfer.block_number for group in groups for each in group}
        seen = await workflow.look(claims, self._chain, heights)
        proved: list[Transfer] = []
        for outcome in seen.outcomes:
            if isinstance(outcome, Final) and outcome.transfers[0].block_number <= reach:
                proved.extend(outcome.transfers)
        standing = await self._proofs.record(self._chain_id, proved, seen.heads.finalized) if proved else {}
        said = list(zip(claims, groups, seen.outcomes, strict=True))
        blocks = set[str]().union(*(in_question(group, outcome, reach) for _, group, outcome in said))
        inside = await contents.read(self._chain.nodes, self._chain.quorum, blocks)
        settlement = Settlement()
        for claim, group, outcome in said:
            settlement.add(settle(group, outcome, standing.get(claim.proof_key, ()), seen.headers, inside, reach))
        return settlement

    def _claim(self, sighting: Sighting) -> Claim:
        transfer = sighting.transfer
        return Claim(
            claim_id=str(sighting.id),
            chain=self._chain.chain.name,
            asset=self._assets.get(transfer.contract, ""),
            chain_id=self._chain_id,
            contract=transfer.contract,
            tx_hash=transfer.tx_hash,
            recipient=transfer.recipient,
            give_up_at=NEVER,
        )

    async def _write(self, settlement: Settlement, term: int, *, told: bool = False) -> None:
        changes: list[Change] = []
        async with cursors.leading(self._database, self._chain_id, term) as connection:
            # First what gives an index up, then what takes it: two FINAL ones are never known by the same.
            if settlement.moved:
                await sightings.hand_over(connection, settlement.moved)
            if settlement.reversed:
                changes += await sightings.reverse(connection, settlement.reversed)
            if settlement.final:
                changes += await sightings.finalize(connection, self._chain_id, settlement.final)
            changes += await sightings.take_back(connection, settlement.gone)
            if settlement.stands:
                await sightings.trust(connection, settlement.stands)
            if settlement.open:
                await sightings.postpone(connection, settlement.open)
            if settlement.left:
                await sightings.leave(connection, settlement.left)
        self._say(settlement, changes)
        self._tell(changes, told=told)

    def _say(self, settlement: Settlement, changes: Sequence[Change]) -> None:
        chain = self._chain.chain.name
        for place in settlement.conflicts:
            log.error("sighting_contradicts_proof", chain=chain, tx_hash=place[0], log_index=place[1])
        if settlement.made_up:
            log.error("sightings_made_up", chain=chain, tx_hashes=[place[0] for place in settlement.made_up])
        if settlement.moved:
            log.error("payment_moved", chain=chain, sightings=[str(id) for id in settlement.moved])
        reversed_ids = [str(each.id) for each in changes if each.state is State.REVERSED]
        if reversed_ids:
            log.error("payment_reversed", chain=chain, sightings=reversed_ids)
