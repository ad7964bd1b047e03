"""Protobuf ↔ domain, for the rpc and for the bus alike."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from chains import Registry, checksum_address
from kit.errors import Fault, Kind, Violation
from ospay.verifier.v1 import verifier_pb2 as pb
from verifier.domain import Claim, Final, Rejected, RejectReason, Transfer, Verdict, Waiting, WaitReason

MAX_MINOR = 2**63 - 1

WAIT_REASONS = {
    WaitReason.NOT_FOUND: pb.WAIT_REASON_NOT_FOUND,
    WaitReason.NOT_FINAL: pb.WAIT_REASON_NOT_FINAL,
    WaitReason.CHAIN_UNAVAILABLE: pb.WAIT_REASON_CHAIN_UNAVAILABLE,
}
REJECT_REASONS = {
    RejectReason.TX_FAILED: pb.REJECT_REASON_TX_FAILED,
    RejectReason.WRONG_TOKEN: pb.REJECT_REASON_WRONG_TOKEN,
    RejectReason.WRONG_RECIPIENT: pb.REJECT_REASON_WRONG_RECIPIENT,
    RejectReason.NO_TRANSFER: pb.REJECT_REASON_NO_TRANSFER,
    RejectReason.GIVEN_UP: pb.REJECT_REASON_GIVEN_UP,
}


class Messages:
    """Reads claims and writes verdicts by the configured chains and assets."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def claim(self, message: pb.Claim, field: str = "claim") -> Claim:
        """A claim whose fields are known to keep the contract. Errors: Fault `unknown_chain`, `unknown_asset`."""
        if message.chain not in self._registry.chains:
            raise unknown("unknown_chain", f"{field}.chain", f"the chain {message.chain} is not configured")
        asset = self._registry.asset(message.chain, message.asset)
        if asset is None:
            raise unknown(
                "unknown_asset", f"{field}.asset", f"the asset {message.asset} is not configured on {message.chain}"
            )
        return Claim(
            claim_id=message.claim_id,
            chain=message.chain,
            asset=message.asset,
            chain_id=asset.chain_id,
            contract=asset.contract.lower(),
            tx_hash=message.tx_hash,
            recipient=message.recipient.lower(),
            give_up_at=message.give_up_at.seconds,
            traceparent=message.traceparent,
        )

    def verdict(self, verdict: Verdict) -> pb.Verdict:
        """A verdict as the contract has it."""
        claim, outcome = verdict.claim, verdict.outcome
        message = pb.Verdict(claim_id=claim.claim_id, traceparent=verdict.traceparent)
        match outcome:
            case Final():
                message.final.transfers.extend(self._transfers(claim, outcome.transfers))
            case Waiting():
                message.waiting.CopyFrom(
                    pb.Waiting(
                        reason=WAIT_REASONS[outcome.reason],
                        transfers=self._transfers(claim, outcome.transfers),
                        block_number=outcome.block_number,
                        head_number=outcome.head_number,
                        finalized_number=outcome.finalized_number,
                    )
                )
            case Rejected():
                message.rejected.reason = REJECT_REASONS[outcome.reason]
        return message

    def _transfers(self, claim: Claim, transfers: Sequence[Transfer]) -> list[pb.Transfer]:
        return [self._transfer(claim, transfer) for transfer in transfers]

    def _transfer(self, claim: Claim, transfer: Transfer) -> pb.Transfer:
        asset = self._registry.chains[claim.chain].assets[claim.asset]
        minor = asset.to_minor(transfer.amount_base)
        return pb.Transfer(
            chain_id=transfer.chain_id,
            tx_hash=transfer.tx_hash,
            log_index=transfer.log_index,
            block_number=transfer.block_number,
            block_hash=transfer.block_hash,
            block_time=Timestamp(seconds=transfer.block_time),
            sender=checksum_address(transfer.sender),
            recipient=checksum_address(transfer.recipient),
            amount_base=str(transfer.amount_base),
            amount_minor=minor if minor <= MAX_MINOR else -1,
        )


def unknown(reason: str, field: str, detail: str) -> Fault:
    """The fault for a chain or an asset that is not configured."""
    return Fault(Kind.INVALID, reason, detail, violations=[Violation(field, detail)])
