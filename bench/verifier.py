"""The verifier alone: claims that wait in its queue, until their verdicts are published."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from bench import limits
from bench.figures import Figures
from bench.queues import Queues, packs
from bench.stage import BOUND_SECONDS, Stage
from bench.transfers import BASE_PER_MINOR, Payer
from chains import checksum_address
from ospay.verifier.v1 import verifier_pb2 as pb

CLAIMED = "ospay.orders.v1.payment_claimed"
VERDICT = "ospay.verifier.v1.verdict"
# Few: what a receipt costs the dev chain grows with the transactions in its block, which is no limit of real nodes.
IN_BLOCK = 50
AMOUNT = 5_000_000
GIVE_UP = timedelta(minutes=30)


class Round:
    """Final transfers to an address that nobody watches: the scanner must not find them before they are claimed."""

    def __init__(self, stage: Stage, queues: Queues, recipient: str, hashes: Sequence[str]) -> None:
        self._stage = stage
        self._queues = queues
        self._recipient = recipient
        self._hashes = hashes

    @classmethod
    async def prepare(cls, stage: Stage, queues: Queues, payer: Payer) -> Round:
        """Makes the transfers, which serve all rounds."""
        recipient = checksum_address("0x" + secrets.token_hex(20))
        hashes = await payer.mine_all([(recipient, AMOUNT)] * stage.sizes.claims, IN_BLOCK)
        return cls(stage, queues, recipient, hashes)

    async def measure(self, figures: Figures) -> None:
        """Claims per second, with orders stopped, so that nobody works on the verdicts meanwhile."""
        limit = await limits.receipts(self._stage, self._hashes)
        figures.note("the node's single receipts/s", limit)
        # What was proved once is only looked up: each round has to prove it anew.
        await self._stage.execute(
            "verifier", ("DELETE FROM transfers WHERE recipient = $1", bytes.fromhex(self._recipient[2:]))
        )
        claims = {claim.claim_id: claim for claim in map(self._claim, self._hashes)}
        with self._stage.stopped("orders"):
            rate = await self._prove(claims)
        await self._queues.drained("OSPAY_VERIFIER", "orders_verdicts")
        figures.note("verifier", rate / limit)
        figures.note("claims proved/s", rate)

    async def _prove(self, claims: dict[str, pb.Claim]) -> float:
        payloads = [pb.BatchVerifyRequest(claims=pack).SerializeToString() for pack in packs(list(claims.values()))]
        async with self._queues.told(VERDICT, _size) as told:
            with self._stage.stopped("verifier"):
                await self._queues.publish(CLAIMED, payloads)
            started = time.perf_counter()
            seconds = await told.items(len(claims), BOUND_SECONDS) - started
        await self._check(claims, told.payloads)
        return len(claims) / seconds

    async def _check(self, claims: dict[str, pb.Claim], payloads: Sequence[bytes]) -> None:
        """Each claim has one verdict, Final with its exact transfer, and as many proofs are on disk."""
        verdicts = [verdict for data in payloads for verdict in pb.BatchVerifyResponse.FromString(data).verdicts]
        assert sorted(verdict.claim_id for verdict in verdicts) == sorted(claims), f"{len(verdicts)} verdicts"
        for verdict in verdicts:
            proved = [(transfer.tx_hash, transfer.amount_base) for transfer in verdict.final.transfers]
            assert proved == [(claims[verdict.claim_id].tx_hash, str(AMOUNT * BASE_PER_MINOR))], verdict
        sql = "SELECT count(*) FROM transfers WHERE recipient = $1"
        kept = await self._stage.value("verifier", sql, bytes.fromhex(self._recipient[2:]))
        assert kept == len(claims), f"{kept} proofs for {len(claims)} claims"

    def _claim(self, tx_hash: str) -> pb.Claim:
        claim = pb.Claim(claim_id=str(uuid4()), chain="BSC", asset="USDT", tx_hash=tx_hash, recipient=self._recipient)
        claim.give_up_at.FromDatetime(datetime.now(UTC) + GIVE_UP)
        return claim


def _size(payload: bytes) -> int:
    return len(pb.BatchVerifyResponse.FromString(payload).verdicts)
