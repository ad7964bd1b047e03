"""Protobuf ↔ domain, for the rpc and for the bus alike."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from opentelemetry.trace import SpanKind

from chains import Asset, Registry, checksum_address
from kit import telemetry
from kit.errors import Fault, Kind, Violation, invalid
from ospay.verifier.v1 import verifier_pb2 as pb
from verifier.domain import Claim, Final, Rejected, RejectReason, Transfer, Verdict, Waiting, WaitReason
from verifier.watch.decisions import Report, State
from verifier.watch.register import Coverage
from verifier.watch.watching import Span, SpanState, Watch

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
SIGHTING_STATES = {
    State.SEEN: pb.SIGHTING_STATE_SEEN,
    State.FINAL: pb.SIGHTING_STATE_FINAL,
    State.GONE: pb.SIGHTING_STATE_GONE,
    State.REVERSED: pb.SIGHTING_STATE_REVERSED,
}
SPAN_STATES = {
    SpanState.DONE: pb.SPAN_STATE_DONE,
    SpanState.NOT_WATCHED: pb.SPAN_STATE_NOT_WATCHED,
    SpanState.CHAIN_BEHIND: pb.SPAN_STATE_CHAIN_BEHIND,
    SpanState.ADDRESS_BEHIND: pb.SPAN_STATE_ADDRESS_BEHIND,
}
# Ends of time that PostgreSQL and Python both know.
MIN_SECONDS = 0
MAX_SECONDS = 253_402_300_799


class Messages:
    """Reads claims and writes verdicts by the configured chains and assets."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._assets = {
            (asset.chain_id, asset.contract.lower()): asset
            for chain in registry.chains.values()
            for asset in chain.assets.values()
        }
        self._tokens = {(asset.chain, asset.name): _token(asset) for asset in self._assets.values()}

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
        message = pb.Verdict(
            claim_id=claim.claim_id,
            traceparent=verdict.traceparent,
            chain=claim.chain,
            asset=claim.asset,
            token=self._tokens[claim.chain, claim.asset],
        )
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

    def watch(self, message: pb.Watch, field: str) -> Watch:
        """An address to watch. Errors: Fault `unknown_chain`, `invalid_request` for a time that is none."""
        chain = self._chain_id(message.chain, f"{field}.chain")
        return Watch(
            chain_id=chain,
            address=message.address.lower(),
            from_block=message.from_block,
            from_time=_time(message.from_time, f"{field}.from_time"),
            until=_time(message.until, f"{field}.until") if message.HasField("until") else None,
        )

    def span(self, message: pb.Span, field: str) -> Span:
        """A span on a configured chain. Errors: Fault `unknown_chain`, `invalid_request` for a time that is none."""
        return Span(
            chain_id=self._chain_id(message.chain, f"{field}.chain"),
            address=message.address.lower(),
            from_time=_time(message.from_time, f"{field}.from_time"),
            until=_time(message.until, f"{field}.until"),
        )

    def is_looked_for(self, message: pb.Span) -> bool:
        """Whether the asset of a span is one that is configured here, and as it is to the caller."""
        token = self._tokens.get((message.chain, message.asset))
        return not message.asset or (token is not None and (not message.HasField("token") or token == message.token))

    def report(self, report: Report) -> pb.Report | None:
        """A report as the contract has it; None for an asset that is not configured any more."""
        transfer = report.transfer
        asset = self._assets.get((transfer.chain_id, transfer.contract))
        if asset is None:
            return None
        return pb.Report(
            report_id=str(report.id),
            version=report.version,
            chain=asset.chain,
            asset=asset.name,
            transfer=_transfer(asset, transfer),
            state=SIGHTING_STATES[report.state],
            head_number=report.head_number,
            finalized_number=report.finalized_number,
            traceparent=telemetry.begin("transfer found", kind=SpanKind.PRODUCER),
            token=self._tokens[asset.chain, asset.name],
        )

    def coverage(self, coverage: Coverage) -> pb.ListCoverageResponse:
        """How far a chain has been looked through: there is one range, and it has no gaps."""
        message = pb.ListCoverageResponse(watched_count=coverage.watched, catching_up_count=coverage.catching_up)
        if coverage.looked_through_at is not None:
            message.looked_through_at.FromDatetime(coverage.looked_through_at)
        position = coverage.position
        if position is None:
            return message
        message.scanned_number, message.swept_number = position.scanned, position.swept
        if position.number >= position.first:
            message.ranges.add(first_number=position.first, last_number=position.number, last_hash=position.hash)
        return message

    def chain_id(self, chain: str) -> int:
        """The id of a configured chain. Errors: Fault `unknown_chain`."""
        return self._chain_id(chain, "chain")

    def _chain_id(self, chain: str, field: str) -> int:
        if chain not in self._registry.chains:
            raise unknown("unknown_chain", field, f"the chain {chain} is not configured")
        return self._registry.chains[chain].chain_id

    def _transfers(self, claim: Claim, transfers: Sequence[Transfer]) -> list[pb.Transfer]:
        asset = self._registry.chains[claim.chain].assets[claim.asset]
        return [_transfer(asset, transfer) for transfer in transfers]


def _transfer(asset: Asset, transfer: Transfer) -> pb.Transfer:
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


def _token(asset: Asset) -> pb.Token:
    return pb.Token(
        chain_id=asset.chain_id,
        contract=asset.contract,
        base_decimals=asset.base_decimals,
        minor_decimals=asset.minor_decimals,
    )


def _time(message: Timestamp, field: str) -> datetime:
    if not MIN_SECONDS <= message.seconds <= MAX_SECONDS or not 0 <= message.nanos < 1_000_000_000:
        raise invalid(field, "must be a time between 1970 and 9999")
    return datetime.fromtimestamp(message.seconds, UTC).replace(microsecond=message.nanos // 1000)


def unknown(reason: str, field: str, detail: str) -> Fault:
    """The fault for a chain or an asset that is not configured."""
    return Fault(Kind.INVALID, reason, detail, violations=[Violation(field, detail)])
