"""A real PostgreSQL on a loopback port, with a role that only reads and one that also writes."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from vantage.testing.ports import free_ports

_DEBIAN = "/usr/lib/postgresql"


class Postgres:
    """A cluster of its own that lives as long as the context. Made in 2 to 3 seconds: share it.

    Attributes:
        port: on 127.0.0.1.
        password: of every role.
    """

    database = "registry"
    password = "correct: horse\\battery"  # noqa: S105  # with what must be escaped

    def __init__(self) -> None:
        self.port = 0
        self._directory = Path(tempfile.mkdtemp(prefix="vantage-postgres-"))
        # The server refuses to run as root.
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user is not None:
            shutil.chown(self._directory, self._user)

    def __enter__(self) -> Self:
        secret = self._directory / "password"
        secret.write_text(self.password)
        if self._user is not None:
            shutil.chown(secret, self._user)
        try:
            self._run(
                "initdb", "-D", "data", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8", "--username=admin",
                "--auth=scram-sha-256", f"--pwfile={secret}",
            )  # fmt: skip
            (self.port,) = free_ports()
            options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self._directory} -c fsync=off"
            self._run("pg_ctl", "start", "-w", "-t", "60", "-D", "data", "-l", "log", "-o", options)
            self.sql("CREATE DATABASE registry", database="postgres")
            self.sql(
                f"CREATE ROLE reader LOGIN PASSWORD {self._quoted}; CREATE ROLE writer LOGIN PASSWORD {self._quoted};"
                "ALTER ROLE reader SET default_transaction_read_only = on;"
                "ALTER ROLE reader SET statement_timeout = 30000"
            )
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        subprocess.run(
            [self._binary("pg_ctl"), "stop", "-w", "-m", "immediate", "-D", "data"],
            cwd=self._directory,
            user=self._user,
            capture_output=True,
            check=False,
        )
        shutil.rmtree(self._directory, ignore_errors=True)

    def url(self, role: str = "reader") -> str:
        """As in a node's configuration: without the password."""
        return f"postgresql://{role}@127.0.0.1:{self.port}/{self.database}"

    def url_with_password(self, role: str = "reader") -> str:
        """For a driver."""
        return f"postgresql://{role}:{quote(self.password, safe='')}@127.0.0.1:{self.port}/{self.database}"

    def sql(self, text: str, *, database: str | None = None) -> str:
        """Execute statements as the administrator; what they print, without decoration."""
        done = subprocess.run(
            [
                self._binary("psql"), "-v", "ON_ERROR_STOP=1", "-qtA", "-h", "127.0.0.1", "-p", str(self.port),
                "-U", "admin", "-d", database or self.database, "-c", text,
            ],
            env={**os.environ, "PGPASSWORD": self.password},
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"psql: {done.stderr}")
        return done.stdout.strip()

    @property
    def _quoted(self) -> str:
        return "'" + self.password.replace("'", "''") + "'"

    def _run(self, command: str, *arguments: str) -> None:
        # Not over a pipe: the server inherits what its starter has, and would hold it open.
        log = self._directory / f"{command}.log"
        with log.open("wb") as output:
            done = subprocess.run(
                [self._binary(command), *arguments],
                cwd=self._directory,
                user=self._user,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode != 0:
            raise RuntimeError(f"{command}: {log.read_text()}")

    @staticmethod
    def _binary(name: str) -> str:
        """Debian keeps the programs of the server out of the path."""
        if (found := shutil.which(name)) is not None:
            return found
        versions = sorted(Path(_DEBIAN).glob(f"*/bin/{name}"))
        if not versions:
            raise RuntimeError(f"{name} is not installed: install PostgreSQL (scripts/test does)")
        return str(versions[-1])
