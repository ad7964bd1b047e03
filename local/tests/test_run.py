"""`python -m local run` as a user has it: the real services, restarts, and nothing left behind."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest

from local.datafolder import _started
from local.places import REPOSITORY, remove
from local.process import until
from local.settings import DEFAULT_PORTS

BOUND = 60.0  # seconds; alone it takes five, but tests share the machine


@pytest.fixture
def data(tmp_path):
    yield tmp_path / "data"
    remove(tmp_path / "data")


def local(command, data, **settings):
    ports = {f"OSPAY_PORT_{part.upper()}": "0" for part in DEFAULT_PORTS}
    env = {**os.environ, **ports, "OSPAY_DATA_DIR": str(data), **settings}
    with (data.parent / "output").open("a") as output:
        arguments = [sys.executable, "-m", "local", command]
        return subprocess.Popen(arguments, env=env, stdout=output, stderr=output, cwd=REPOSITORY)


@contextmanager
def runner(data, **settings):
    process = local("run", data, **settings)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(BOUND)


async def ready(process, data):
    """What run.json says once this runner has written it."""
    found = {}

    async def written():
        assert process.poll() is None, (data.parent / "output").read_text()
        run_file = data / "run.json"
        found.update(json.loads(run_file.read_text()) if run_file.exists() else {})
        return found.get("runner_pid") == process.pid

    await until(written, "run.json", BOUND)
    return found


def all_pids(run):
    return [pid for pids in run["pids"].values() for pid in pids]


async def all_gone(pids):
    async def gone():
        return all(_started(pid) is None for pid in pids)

    await until(gone, "every process to end", BOUND)


async def merchant_may_list_orders(run):
    headers = {"X-API-Key": run["merchant"]["api_key"]}
    async with aiohttp.ClientSession(headers=headers) as session, session.get(run["gateway_url"] + "/orders") as answer:
        return answer.status == 200


async def everything_is_killed_and_comes_back(before, data):
    for pid in all_pids(before):
        os.kill(pid, signal.SIGKILL)

    async def back():
        now = json.loads((data / "run.json").read_text())
        return now["pids"].keys() == before["pids"].keys() and not set(all_pids(before)) & set(all_pids(now))

    async def serves():
        try:
            return await merchant_may_list_orders(before)
        except aiohttp.ClientError:
            return False

    await until(back, "new processes", BOUND)
    await until(serves, "the gateway to answer again", BOUND)
    return json.loads((data / "run.json").read_text())


async def test_the_suite_runs_survives_and_ends(data):
    with runner(data, OSPAY_REPLICAS_ORDERS="2") as process:
        first = await ready(process, data)
        assert await merchant_may_list_orders(first)
        assert {part: len(pids) for part, pids in first["pids"].items()} == {
            "postgres": 1, "nats": 1, "anvil": 1, "orders": 2, "verifier": 1, "ledger": 1, "gateway": 1,
        }  # fmt: skip
        assert len(first["funded_accounts"]) == 9
        assert first["merchant"]["wallet"] not in first["funded_accounts"]
        after = await everything_is_killed_and_comes_back(first, data)
        process.kill()
        process.wait()
        await all_gone(all_pids(after))

    with runner(data) as process:
        second = await ready(process, data)
        assert second["merchant"] == first["merchant"]
        assert await merchant_may_list_orders(second)
        assert local("run", data).wait(BOUND) == 1
        assert local("clean", data).wait(BOUND) == 1
        process.send_signal(signal.SIGINT)
        assert process.wait(BOUND) == 0
        await all_gone(all_pids(second))
        assert not (data / "run.json").exists()
        assert local("clean", data).wait(BOUND) == 0
        assert not data.exists()


def test_a_taken_port_is_one_clear_line(data):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert local("run", data, OSPAY_PORT_NATS=str(port)).wait(BOUND) == 1
    assert Path(data.parent / "output").read_text().splitlines() == [
        f"port {port} for nats is taken: set OSPAY_PORT_NATS to another, or to 0"
    ]


@pytest.mark.parametrize(
    ("wallet_key", "settings", "said"),
    [
        (None, {"BSC_RPC_URL": "http://127.0.0.1:1"}, "was used with the dev chain"),
        ("0x" + "11" * 32, {}, "was used with a real chain"),
    ],
)
def test_a_folder_of_another_chain_is_refused(data, wallet_key, settings, said):
    """Real money must not be asked for to a wallet whose private key everybody knows."""
    data.mkdir()
    (data / "runner.lock").touch()
    merchant = {"id": "mrc_1", "api_key": "k", "wallet": "0x" + "22" * 20, "wallet_key": wallet_key}
    (data / "secrets.json").write_text(json.dumps({"merchant": merchant}))
    process = local("run", data, **settings)
    assert process.wait(BOUND) != 0
    assert said in (data.parent / "output").read_text()
