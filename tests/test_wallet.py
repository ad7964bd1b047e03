"""A customer with a wallet of his own: web3 builds and signs the transfer that the order's payment link asks for."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from eth_account import Account
from web3 import AsyncHTTPProvider, AsyncWeb3

from tests.shop import BASE_PER_MINOR, FIVE, Shop

TRANSFER_ABI = [
    {
        "type": "function",
        "name": "transfer",
        "stateMutability": "nonpayable",
        "inputs": [{"name": "to", "type": "address"}, {"name": "value", "type": "uint256"}],
        "outputs": [{"name": "", "type": "bool"}],
    }
]
GAS_MONEY = 10**18


async def test_the_payment_link_pays_the_order(shop: Shop) -> None:
    """An EIP-681 link read by an independent library, signed with a key that no node holds, makes the order PAID."""
    account = Account.create()
    await shop.chain.rpc("anvil_setBalance", account.address, hex(GAS_MONEY))
    await shop.chain.send_token(shop.chain.accounts[0], account.address, FIVE * BASE_PER_MINOR, mine=True)
    order = await shop.create(customer_wallet_address=account.address)
    link = urlsplit((await shop.order(order))["payment_uri"])
    token, _, rest = link.path.partition("@")
    chain_id, _, function = rest.partition("/")
    asked = parse_qs(link.query)
    web3 = AsyncWeb3(AsyncHTTPProvider(shop.chain.url))
    try:
        assert (link.scheme, function, int(chain_id)) == ("ethereum", "transfer", await web3.eth.chain_id)
        contract = web3.eth.contract(address=web3.to_checksum_address(token), abi=TRANSFER_ABI)
        call = contract.functions.transfer(asked["address"][0], int(asked["uint256"][0]))
        transaction = await call.build_transaction(
            {
                "from": account.address,
                "nonce": await web3.eth.get_transaction_count(account.address),
                "gas": 200_000,
                "gasPrice": await web3.eth.gas_price,
            }
        )
        signed = account.sign_transaction(transaction)
        tx_hash = (await web3.eth.send_raw_transaction(signed.raw_transaction)).to_0x_hex()
    finally:
        await web3.provider.disconnect()
    await shop.chain.mine(1)
    await shop.claim(order, tx_hash)
    await shop.chain.finalize()
    paid = await shop.reaches(order, "PAID")
    assert (paid["tx_hash"], paid["received_minor"]) == (tx_hash, FIVE)
    assert await shop.chain.balance(shop.wallet) == FIVE * BASE_PER_MINOR
