"""Verdicts on their way out: packed, bounded, and let go when nobody takes them."""

from dataclasses import replace

import pytest

from chains import Registry
from kit.bus import Bus
from kit.process import Process
from ospay.verifier.v1 import verifier_pb2 as pb
from verifier.domain import CHAIN_UNAVAILABLE, Claim, Final, Transfer, Verdict
from verifier.messages import Messages
from verifier.publisher import PACK_BYTES, Publisher, _packs
from verifier.rpc import MAX_RESPONSE_BYTES, VerifierRpc
from verifier.watch.register import Register

TX, BLOCK = "0x" + "11" * 32, "0x" + "22" * 32
TOKEN, PAYER, SHOP = "0x" + "55" * 20, "0x" + "66" * 20, "0x" + "77" * 20
CLAIM = Claim("c", "BSC", "USDT", 56, TOKEN, TX, SHOP, 0, "trace")
TRANSFER = Transfer(56, TX, 0, 100, BLOCK, 1_700_000_000, TOKEN, PAYER, SHOP, 10**18)


@pytest.fixture
def registry(bsc):
    """The configuration with the one chain."""
    return Registry({"BSC": bsc})


def final(transfers):
    """A verdict with that many transfers."""
    return Verdict(CLAIM, Final(tuple(replace(TRANSFER, log_index=n) for n in range(transfers))), "trace")


def test_packs_are_bounded_and_lose_nothing(registry):
    """Verdicts are packed up to a size; one that is larger travels alone."""
    messages = Messages(registry)
    verdicts = [messages.verdict(final(count)) for count in [1] * 2000 + [3000] + [1] * 10]
    packs = list(_packs(verdicts))
    assert verdicts == [verdict for pack in packs for verdict in pack]
    sizes = [pb.BatchVerifyResponse(verdicts=pack).ByteSize() for pack in packs]
    assert all(size < PACK_BYTES * 1.1 or len(pack) == 1 for pack, size in zip(packs, sizes, strict=True))
    assert len(packs) < 10


async def test_what_nats_does_not_take_is_let_go(registry):
    """Without NATS publishing ends soon, and says that it did not happen."""
    process = Process()
    publisher = Publisher(Bus("nats://127.0.0.1:1", name="t", streams={}), Messages(registry), process)
    assert await publisher.publish([final(1)]) is False


def test_answers_past_what_grpc_carries_wait(registry):
    """The largest verdicts of a batch wait, so that thousands of transfers made to annoy hold up no other claim."""
    rpc = VerifierRpc(registry, {}, Messages(registry), Register(None))
    verdicts = [final(3000), final(1), final(3000), final(2), *[final(4000)] * 4]
    answers = rpc._fitting(verdicts)
    assert sum(answer.ByteSize() for answer in answers) <= MAX_RESPONSE_BYTES
    assert [answer.WhichOneof("outcome") for answer in answers[:4]] == ["final"] * 4
    expected = Messages(registry).verdict(Verdict(CLAIM, CHAIN_UNAVAILABLE, "trace"))
    assert answers[-1] == expected
    assert pb.BatchVerifyResponse(verdicts=answers).ByteSize() < 4 * 1024 * 1024
