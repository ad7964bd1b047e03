"""Mutual TLS: both sides prove who they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme
from pydantic import SecretStr

from kit.channel import Peer
from kit.errors import Fault, Kind
from kit.server import Server, Service
from kit.settings import Tls
from ospay.ledger.v1 import ledger_pb2, ledger_pb2_grpc

TOKEN = SecretStr("t" * 40)


class Books(ledger_pb2_grpc.LedgerServiceServicer):
    async def GetBalances(self, request, context):  # gRPC's name
        return ledger_pb2.GetBalancesResponse(merchant_balance_minor="1")


def identity(folder: Path, authority: trustme.CA, trusted: trustme.CA) -> Tls:
    """Files of somebody who has a certificate of one authority and trusts another."""
    folder.mkdir()
    leaf = authority.issue_cert("localhost", "127.0.0.1")
    files = Tls(cert=folder / "cert.pem", key=folder / "key.pem", ca=folder / "ca.pem")
    files.cert.write_bytes(b"".join(item.bytes() for item in leaf.cert_chain_pems))
    files.key.write_bytes(leaf.private_key_pem.bytes())
    files.ca.write_bytes(trusted.cert_pem.bytes())
    return files


async def ask(server_tls: Tls, client_tls: Tls | None) -> str:
    name = ledger_pb2.DESCRIPTOR.services_by_name["LedgerService"].full_name
    service = Service(name, ledger_pb2_grpc.add_LedgerServiceServicer_to_server, Books())
    server = Server("localhost:0", callers={"test": TOKEN}, services=[service], tls=server_tls)
    await server.start()
    peer = Peer(f"localhost:{server.port}", token=TOKEN, tls=client_tls)
    try:
        stub = ledger_pb2_grpc.LedgerServiceStub(peer.channel)
        request = ledger_pb2.GetBalancesRequest(merchant_id="m", asset="USDT")
        return (await peer.call(stub.GetBalances, request, timeout=5)).merchant_balance_minor
    finally:
        await peer.close()
        await server.stop()


async def test_both_sides_are_proved(tmp_path: Path) -> None:
    """With certificates of one authority on both sides the call goes through."""
    authority = trustme.CA()
    server = identity(tmp_path / "server", authority, authority)
    client = identity(tmp_path / "client", authority, authority)
    assert await ask(server, client) == "1"


@pytest.mark.parametrize("client", ["stranger", "plain"])
async def test_a_caller_without_a_certificate_is_refused(tmp_path: Path, client: str) -> None:
    """A certificate of another authority, or none, reaches no handler even with the right token."""
    ours, theirs = trustme.CA(), trustme.CA()
    server = identity(tmp_path / "server", ours, ours)
    stranger = identity(tmp_path / "stranger", theirs, ours)
    with pytest.raises(Fault) as caught:
        await ask(server, stranger if client == "stranger" else None)
    assert caught.value.kind in (Kind.UNAVAILABLE, Kind.DEADLINE)
