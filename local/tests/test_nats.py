"""NATS as a part."""

import nats

from local.nats import Nats
from local.ports import free_port
from local.process import running


async def test_a_stream_survives_a_kill(tmp_path):
    server = Nats(tmp_path, free_port(), tmp_path / "nats.log")
    async with running(server) as process:
        client = await nats.connect(server.url)
        await client.jetstream().add_stream(name="kept", subjects=["kept.>"])
        await client.jetstream().publish("kept.one", b"1")
        await client.close()
        process.kill()
        await process.wait()
    async with running(server):
        client = await nats.connect(server.url)
        info = await client.jetstream().stream_info("kept")
        assert info.state.messages == 1
        await client.close()
    assert any(server.store.iterdir())


async def test_the_fixture_is_a_server_with_jetstream(nats_url):
    client = await nats.connect(nats_url)
    assert (await client.jetstream().account_info()).streams == 0
    await client.close()
