"""One runner per folder, leftovers ended, secrets kept to their owner."""

import json
import os
import stat
import subprocess

import pytest

from local.datafolder import DataFolder, _started
from local.places import ELSEWHERE, REPOSITORY, folder_for, open_to_others, remove
from local.settings import SettingsError, read_settings, suite_defaults


def test_one_runner_at_a_time(tmp_path):
    first, second = DataFolder(tmp_path / "data"), DataFolder(tmp_path / "data")
    first.open()
    with pytest.raises(SettingsError, match="already"):
        second.open()
    second.close()
    assert (tmp_path / "data" / "runner.lock").read_text()
    first.close()
    second.open()
    second.close()


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    for use in (DataFolder(tmp_path).open, DataFolder(tmp_path).remove):
        with pytest.raises(SettingsError, match="holds something else"):
            use()
    assert (tmp_path / "thesis.txt").exists()


def test_processes_of_a_crashed_run_are_ended_and_no_others(tmp_path):
    folder = DataFolder(tmp_path)
    folder.open()
    left, stranger = (subprocess.Popen(["sleep", "60"], start_new_session=True) for _ in range(2))
    folder.note_processes([left.pid, stranger.pid])
    noted = json.loads((tmp_path / "processes.json").read_text())
    noted[str(stranger.pid)] = "1"  # the id was given to another program since
    (tmp_path / "processes.json").write_text(json.dumps(noted))
    folder._lock.close()  # what is left of a runner that was killed

    after = DataFolder(tmp_path)
    after.open()
    after.close()
    assert _started(left.pid) is None
    assert stranger.poll() is None
    stranger.kill()
    assert left.wait() != 0
    assert stranger.wait() != 0


def test_secrets_are_made_once_and_for_the_owner_alone(tmp_path):
    folder = DataFolder(tmp_path)
    assert folder.secrets() == {}
    folder.save_secrets({"admin_key": "a"})
    assert DataFolder(tmp_path).secrets() == {"admin_key": "a"}
    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands folders to another user")
def test_a_hidden_folder_is_reached_by_a_link_and_removed_with_it(tmp_path):
    nobody = 65534
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    real = folder_for(hidden / "postgres", nobody, nobody)
    assert real == (hidden / "postgres").resolve()
    assert real.parent == ELSEWHERE
    assert folder_for(hidden / "postgres", nobody, nobody) == real
    assert not open_to_others(hidden)
    remove(hidden)
    assert not real.exists()
    assert not hidden.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands folders to another user")
def test_what_a_killed_test_left_elsewhere_is_removed_by_a_later_one(tmp_path):
    nobody = 65534
    for name in ("killed", "alive", "next"):
        (tmp_path / name).mkdir(mode=0o700)
    killed, alive = (folder_for(tmp_path / name / "postgres", nobody, nobody) for name in ("killed", "alive"))
    (tmp_path / "killed" / "postgres").unlink()
    folder_for(tmp_path / "next" / "postgres", nobody, nobody)
    assert not killed.exists()
    assert alive.exists()
    remove(tmp_path / "alive")
    remove(tmp_path / "next")


def test_our_own_folder_stays_where_it_is(tmp_path):
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    assert folder_for(hidden / "postgres", os.geteuid(), os.getegid()) == hidden / "postgres"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OSPAY_PORT_NATS", "65536"),
        ("OSPAY_PORT_NATS", "x"),
        ("OSPAY_REPLICAS_ORDERS", "0"),
        ("OSPAY_BLOCK_TIME", "nan"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(name, value):
    with pytest.raises(SettingsError, match=name):
        read_settings({name: value})


def test_defaults():
    settings = read_settings({})
    assert settings.data == REPOSITORY / ".ospay"
    assert settings.ports["gateway"] == 8080
    assert settings.block_time == 1
    assert suite_defaults()["LOG_LEVEL"] == "INFO"
