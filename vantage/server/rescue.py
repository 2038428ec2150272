"""Lets somebody in again who has lost everything, with nothing but access to the server's files."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from vantage.common import names
from vantage.common.clock import Clock
from vantage.common.errors import Reason, error
from vantage.server.app import DATABASE_FILE
from vantage.server.config import load_config
from vantage.server.domain.audit import Entry, Verdict
from vantage.server.domain.principals import UserKind
from vantage.server.services.credentials import new_reset
from vantage.server.services.proofs import lockout_key
from vantage.server.storage import audit_store, credential_store, user_store
from vantage.server.storage.database import transaction


def rescue(data: Path, user: str, clock: Clock) -> tuple[str, datetime]:
    """Give a person a token with which they set a password, and take their one-time codes, sessions and lock away.

    The server may run meanwhile; access tokens that were given out count until they expire.

    Args:
        data: the server's data directory.
        user: login name.
        clock: the time.

    Returns:
        The token, and until when it counts.

    Raises:
        ConfigurationError: there is no server in the directory, or its database is not there.
        UnavailableError: DATABASE_UNAVAILABLE.
        VantageError: NOT_FOUND, or ENROLMENT_STATE for a service account, which has a key.
    """
    load_config(data)
    name = str(names.parse(f"users/{user.removeprefix('users/')}", "users", field="user"))
    now = clock.now()
    with transaction(data / DATABASE_FILE) as connection:
        found = user_store.get(connection, name)
        if found is None:
            raise error(Reason.NOT_FOUND, f"there is no {name}", name=name)
        if found.kind is not UserKind.PERSON:
            raise error(Reason.ENROLMENT_STATE, f"{name} is a service account: give it a new key")
        credential_store.remove_one_time_code(connection, name)
        user_store.clear_lockout(connection, lockout_key(name))
        user_store.end_sessions(connection, name)
        entry = Entry(now, "server.rescue", Verdict.ALLOWED, "", "", found.organization or "", name, "local", "")
        audit_store.append(connection, [entry])
        return new_reset(connection, name, now)
