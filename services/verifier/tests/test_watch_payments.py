"""What is paid to a watched address is found with no claim, whatever it looks like; what is no payment is not."""

ONE = 10**18


async def test_a_payment_is_found_with_no_claim(watcher, anvil):
    """A transfer to a watched address is SEEN as soon as it is mined and FINAL when its block is."""
    payer, shop = anvil.accounts[:2]
    await watcher.watch(shop)
    await watcher.passes()
    tx = await anvil.send_token(payer, shop, ONE, mine=True)
    await watcher.passes()
    assert [("SEEN", ONE, tx)] == await watcher.seen()
    await anvil.finalize()
    await watcher.passes()
    assert [("FINAL", ONE, tx)] == await watcher.seen()
    assert len(watcher.rung) == 2
