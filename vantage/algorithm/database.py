"""A database that a node lets a function connect to."""

from __future__ import annotations

import atexit
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit

_POSTGRESQL = "postgresql"


@dataclass(frozen=True)
class Database:
    """Annotation of a data parameter, and what the function gets: where to connect, and as whom.

    Use any driver: it connects to an ordinary port on 127.0.0.1, which leads to the database of the dataset and to
    nothing else. The node knows how many bytes pass, not what they are; what may be read is up to the role.

    Attributes:
        dialect: e.g. "postgresql".
        database: its name.
        username: the role; empty when there is none.
        password: None when there is none.
        cdm_schema: schema with the tables of the OMOP Common Data Model; empty for other databases.
        cdm_version: version of that model, e.g. "5.4".
    """

    dialect: str
    database: str
    username: str = ""
    password: str | None = field(default=None, repr=False)
    cdm_schema: str = ""
    cdm_version: str = ""
    _open: Callable[[], tuple[str, int]] = field(default=lambda: ("", 0), repr=False, compare=False)

    @classmethod
    def read(
        cls,
        folder: Path,
        opening: Callable[[], tuple[str, int]],
        dialect: str,
        database: str,
        cdm: tuple[str, str] = ("", ""),
    ) -> Database:
        """A database whose credentials are in a folder."""
        username, password = folder / "username", folder / "password"
        return cls(
            dialect,
            database,
            username.read_text() if username.exists() else "",
            password.read_text() if password.exists() else None,
            *cdm,
            _open=opening,
        )

    @classmethod
    def at(cls, url: str) -> Database:
        """The database of a URL, without a node: for the local runner and for tests of an algorithm.

        ``?cdm_schema=NAME`` and ``&cdm_version=NUMBER`` say what a node says of an OMOP database.

        Raises:
            ValueError: the URL names no host and port.
        """
        parts = urlsplit(url)
        port = parts.port or (5432 if parts.scheme == _POSTGRESQL else None)
        if not parts.hostname or port is None:
            raise ValueError("write the database as DIALECT://USER:PASSWORD@HOST:PORT/NAME")
        address = (parts.hostname, port)
        password = None if parts.password is None else unquote(parts.password)
        said = dict(parse_qsl(parts.query))
        return cls(
            parts.scheme.partition("+")[0],
            parts.path.lstrip("/"),
            unquote(parts.username or ""),
            password,
            said.get("cdm_schema", ""),
            said.get("cdm_version", ""),
            _open=lambda: address,
        )

    @cached_property
    def address(self) -> tuple[str, int]:
        """Host and port to connect to."""
        return self._open()

    @property
    def url(self) -> str:
        """URL with the password: for drivers that run in this process. Never log it."""
        host, port = self.address
        who = quote(self.username, safe="")
        if self.password is not None:
            who += f":{quote(self.password, safe='')}"
        return f"{self.dialect}://{who}{'@' if who else ''}{host}:{port}/{self.database}"

    def environment(self) -> dict[str, str]:
        """Environment for another program, which then connects by itself if its driver knows the variables of libpq.

        The password is not in it, but in a file that it names (PGPASSFILE).

        Raises:
            ValueError: there are no such variables for this dialect.
        """
        if self.dialect != _POSTGRESQL:
            raise ValueError(f"there is no environment for {self.dialect}: hand over address, username and password")
        host, port = self.address
        names = {"PGHOST": host, "PGPORT": str(port), "PGDATABASE": self.database}
        if self.username:
            names["PGUSER"] = self.username
        if self.password is not None:
            names["PGPASSFILE"] = self._password_file
        return names

    @cached_property
    def _password_file(self) -> str:
        # libpq reads only a file that nobody else can read.
        descriptor, path = tempfile.mkstemp(prefix="pgpass-")
        host, port = self.address
        fields = (host, str(port), self.database, self.username, self.password or "")
        atexit.register(Path(path).unlink, missing_ok=True)
        with os.fdopen(descriptor, "w") as file:
            file.write(":".join(each.replace("\\", "\\\\").replace(":", "\\:") for each in fields) + "\n")
        return path
