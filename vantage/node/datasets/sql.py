"""SQL databases: what their role may do, what they hold, and the answers to queries. The one place with SQLAlchemy.

Everything here blocks: call it on a thread. ``cancel`` may be called from another.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from vantage.common.errors import Reason, VantageError, error
from vantage.node.datasets.contents import MAX_COLUMNS, MAX_TABLES, Rights, Table
from vantage.node.datasets.credentials import password_of
from vantage.node.datasets.sections import POSTGRESQL, DatasetSection, QuerySection
from vantage.node.datasets.tables import TableFile
from vantage.node.datasets.values import Value

BATCH = 10_000
"""Rows that are fetched and written at a time."""
CONNECT_SECONDS = 10
_KEEPALIVES = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
"""Of libpq, unless the url says otherwise: a database that is gone keeps a thread for a minute, not for two hours."""

_TYPES: dict[str, pa.DataType] = {
    "bool": pa.bool_(),
    "int2": pa.int16(),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "oid": pa.int64(),
    "float4": pa.float32(),
    "float8": pa.float64(),
    "numeric": pa.float64(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", tz="UTC"),
    "bytea": pa.binary(),
}
"""PostgreSQL's types as Arrow's; all others are handed over as text."""

_RIGHTS = """
WITH me AS (SELECT r.* FROM pg_roles r WHERE pg_has_role(current_user, r.oid, 'MEMBER'))
SELECT
  (SELECT bool_or(rolsuper) FROM me) AS superuser,
  (SELECT bool_or(rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls) FROM me) AS powers,
  (SELECT string_agg(rolname, ', ') FROM me WHERE rolname IN ('pg_write_all_data', 'pg_execute_server_program',
    'pg_read_server_files', 'pg_write_server_files', 'pg_signal_backend', 'pg_database_owner')) AS groups,
  (SELECT bool_or(has_database_privilege(me.oid, current_database(), 'CREATE')) FROM me) AS create_schema,
  (SELECT min(n.nspname) FROM pg_namespace n, me WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND has_schema_privilege(me.oid, n.oid, 'CREATE')) AS create_in,
  (SELECT min(c.oid::regclass::text) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, me
    WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
    AND (has_table_privilege(me.oid, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
      OR has_any_column_privilege(me.oid, c.oid, 'INSERT, UPDATE'))) AS writes,
  current_setting('default_transaction_read_only') AS read_only,
  current_setting('statement_timeout') AS statement_timeout
"""


_Name = tuple[str, ...]
"""A table: its name, after that of its schema where there are several."""
_Tables = dict[_Name, tuple[tuple[str, str], ...]]


class Sql:
    """One dataset's database, connected anew for each question.

    Args:
        dataset: of the configuration.

    Raises:
        ConfigurationError: the url, or the driver that it names, is not usable.
    """

    def __init__(self, dataset: DatasetSection) -> None:
        self._dataset = dataset
        self._postgresql = dataset.format in POSTGRESQL
        self._stopped = threading.Event()
        self._connection: Any = None
        url = sa.make_url(dataset.url or "")
        if url.drivername == "postgresql":
            url = url.set(drivername="postgresql+psycopg")
        try:
            self._url = url.set(password=password_of(dataset))
            self._url.get_dialect().import_dbapi()
        except (ArgumentError, NoSuchModuleError, ImportError) as problem:
            raise error(
                Reason.CONFIGURATION_INVALID,
                f"the driver {url.drivername} of the dataset {dataset.name} is not there: install it beside vantage "
                f"({type(problem).__name__})",
                dataset=dataset.name,
            ) from None

    def ask(self, query: QuerySection, values: Mapping[str, Value], file: TableFile) -> None:
        """Write the answer to a query: read-only, within the time and size that the dataset allows.

        Raises:
            VantageError: DATASET_UNAVAILABLE, DATASET_TOO_LARGE, DATASET_UNREADABLE.
        """
        deadline = time.monotonic() + self._dataset.timeout
        with self._connected() as connection:
            options = connection.execution_options(stream_results=True, max_row_buffer=BATCH)
            with options.execute(sa.text(query.query), dict(values)) as result:
                file.begin(list(result.keys()), self._types_of(result))
                for rows in result.partitions(BATCH):
                    file.write(rows)
                    if self._stopped.is_set() or time.monotonic() > deadline:
                        raise self._too_slow()

    def rights(self) -> Rights:
        """What the role may do; nothing is known of databases other than PostgreSQL.

        Raises:
            UnavailableError: DATASET_UNAVAILABLE.
        """
        if not self._postgresql:
            return Rights(advice=("what its role may do cannot be checked: give it one that only reads",))
        with self._connected(limited=False) as connection:
            found = connection.execute(sa.text(_RIGHTS)).one()
        writes = []
        if found.superuser:
            writes.append("it is a superuser")
        if found.powers:
            writes.append("it may create roles or databases, replicate, or pass row security")
        if found.groups:
            writes.append(f"it is a member of {found.groups}")
        if found.create_schema:
            writes.append("it may create schemas")
        if found.create_in:
            writes.append(f"it may create tables in the schema {found.create_in}")
        if found.writes:
            writes.append(f"it may change {found.writes}")
        advice = []
        role = self._url.username
        if found.read_only != "on":
            advice.append(f"ALTER ROLE {role} SET default_transaction_read_only = on")
        if found.statement_timeout == "0":
            advice.append(f"ALTER ROLE {role} SET statement_timeout = '{self._dataset.timeout}s'")
        return Rights(tuple(writes), tuple(advice))

    def tables(self, *, count: bool) -> tuple[Table, ...]:
        """The tables that the role may read.

        Raises:
            UnavailableError: DATASET_UNAVAILABLE.
        """
        with self._connected() as connection:
            found = self._postgresql_tables(connection) if self._postgresql else _other_tables(connection)

            def rows(name: _Name) -> int:
                table = sa.table(name[-1], schema=name[0] if len(name) > 1 else None)
                return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())

            return tuple(
                Table(".".join(name), columns[:MAX_COLUMNS], rows(name) if count else None)
                for name, columns in itertools.islice(found.items(), MAX_TABLES)
            )

    def check(self) -> list[str]:
        """What is wrong with the places of the queries' parameters."""
        problems = []
        for name, query in self._dataset.queries.items():
            places = set(sa.text(query.query).compile().params)
            if places != set(query.parameters):
                problems.append(
                    f"the query {name} has places for {', '.join(sorted(places)) or 'nothing'} and parameters "
                    f"{', '.join(query.parameters) or 'none'}; write a colon that begins none as \\:"
                )
        return problems

    def cancel(self, seconds: float) -> None:
        """End what is under way; from another thread. A database that does not answer is given up after so long."""
        self._stopped.set()
        if (connection := self._connection) is None:
            return
        with contextlib.suppress(Exception):  # it may have ended meanwhile, or not answer
            if hasattr(connection, "cancel_safe"):  # psycopg's; encrypted as the connection is, unlike its ``cancel``
                connection.cancel_safe(timeout=seconds)
            elif (stop := getattr(connection, "cancel", getattr(connection, "interrupt", None))) is not None:
                stop()  # ``interrupt`` is sqlite3's

    @contextlib.contextmanager
    def _connected(self, *, limited: bool = True) -> Iterator[sa.Connection]:
        """A connection in a transaction that is never committed.

        Args:
            limited: read-only and with a time-out, whatever the role's own settings are.
        """
        arguments: dict[str, Any] = {}
        options: dict[str, Any] = {}
        if self._postgresql:
            arguments = {"connect_timeout": CONNECT_SECONDS, "application_name": "vantage"}
            arguments |= {key: value for key, value in _KEEPALIVES.items() if key not in self._url.query}
            if limited:
                arguments["options"] = (
                    f"-c default_transaction_read_only=on -c statement_timeout={self._dataset.timeout * 1000}"
                )
                options = {"postgresql_readonly": True}
        engine = sa.create_engine(self._url, poolclass=NullPool, connect_args=arguments)
        began = False
        try:
            with engine.connect().execution_options(**options) as connection:
                self._connection = connection.connection.dbapi_connection
                began = True
                if self._stopped.is_set():
                    raise self._too_slow()
                yield connection
                connection.rollback()
        except SQLAlchemyError as problem:
            if not began:
                # The cause says why, and speaks of no data.
                raise self._unavailable("cannot be reached", problem) from problem
            raise self._unavailable("cannot answer", problem) from None
        finally:
            self._connection = None
            engine.dispose()

    def _too_slow(self) -> VantageError:
        return error(
            Reason.DATASET_UNAVAILABLE,
            f"the dataset {self._dataset.name} took longer than its {self._dataset.timeout} s: ask for less",
            dataset=self._dataset.name,
        )

    def _unavailable(self, what: str, problem: SQLAlchemyError) -> VantageError:
        """Without the database's own words, which may quote data."""
        original = problem.orig if isinstance(problem, DBAPIError) else None
        found = [type(original or problem).__name__, getattr(original, "sqlstate", None)]
        return error(
            Reason.DATASET_UNAVAILABLE,
            f"the dataset {self._dataset.name} {what}: ask the node's admin ({' '.join(filter(None, found))})",
            dataset=self._dataset.name,
        )

    def _types_of(self, result: sa.CursorResult[Any]) -> list[pa.DataType | None]:
        # psycopg's columns have names; the standard's are tuples.
        description: Any = result.cursor.description
        if not self._postgresql:
            return [None] * len(description)
        types = self._connection.adapters.types
        names = [getattr(types.get(each.type_code), "name", "") for each in description]
        return [_TYPES.get(name, pa.string()) for name in names]

    def _postgresql_tables(self, connection: sa.Connection) -> _Tables:
        """By the standard's views, which show only what the role may read."""
        only = "= :schema" if self._dataset.format == "omop" else "NOT IN ('pg_catalog', 'information_schema')"
        rows = connection.execute(
            sa.text(
                "SELECT c.table_schema, c.table_name, c.column_name, c.data_type FROM information_schema.columns c "  # noqa: S608
                f"WHERE c.table_schema {only} AND has_table_privilege(format('%I.%I', c.table_schema, c.table_name), "
                "'SELECT') ORDER BY c.table_schema, c.table_name, c.ordinal_position LIMIT :rows"
            ),
            {"rows": MAX_TABLES * MAX_COLUMNS}
            | ({"schema": self._dataset.cdm_schema} if self._dataset.format == "omop" else {}),
        )
        columns: dict[_Name, list[tuple[str, str]]] = {}
        for schema, table, column, kind in rows:
            columns.setdefault((schema, table), []).append((column, kind))
        return {name: tuple(each) for name, each in columns.items()}


def _other_tables(connection: sa.Connection) -> _Tables:
    inspector = sa.inspect(connection)
    names = [*inspector.get_table_names(), *inspector.get_view_names()][:MAX_TABLES]
    return {
        (name,): tuple((str(each["name"]), str(each["type"])) for each in inspector.get_columns(name)) for name in names
    }
