"""Federated analysis from Python: ask questions, follow them, read the answers.

``Client`` for ordinary programs and notebooks, ``AsyncClient`` for asynchronous ones; what they return are the plain
values of ``vantage.client.models``, and what they raise is the tree of ``vantage.common.errors``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vantage.client.client import AsyncClient
    from vantage.client.codec import Identity
    from vantage.client.datasets import Dataset, DatasetQuery, DatasetTable, QueryParameter
    from vantage.client.facade import TaskHandle
    from vantage.client.handles import AsyncTaskHandle
    from vantage.client.keyring import KeyFiles, Keyring
    from vantage.client.models import (
        Answer,
        AuditEntry,
        AuditLog,
        AuthoritiesChanged,
        Collaboration,
        Content,
        Credentials,
        Delegate,
        DeviceCode,
        Enrolment,
        Event,
        Failure,
        IdentityProvider,
        Invitation,
        InvitedUser,
        LinkedIdentity,
        LoginSession,
        Member,
        MembershipState,
        Node,
        OnFailure,
        Organization,
        OrganizationTrust,
        Permission,
        Principal,
        Question,
        Result,
        RevocationsChanged,
        Role,
        Run,
        RunChanged,
        RunFinished,
        RunLog,
        RunProgress,
        RunState,
        RunWaits,
        ServerInfo,
        Study,
        Target,
        Task,
        TaskFinished,
        TaskSnapshot,
        TaskState,
        User,
        Wait,
        WaitCause,
    )
    from vantage.client.sync import Client
    from vantage.client.tokens import FileTokenStore, MemoryTokenStore, Tokens, TokenStore

_ELSEWHERE = {
    "AsyncClient": "client",
    "AsyncTaskHandle": "handles",
    "Client": "sync",
    "Dataset": "datasets",
    "DatasetQuery": "datasets",
    "DatasetTable": "datasets",
    "FileTokenStore": "tokens",
    "Identity": "codec",
    "KeyFiles": "keyring",
    "Keyring": "keyring",
    "MemoryTokenStore": "tokens",
    "QueryParameter": "datasets",
    "TaskHandle": "facade",
    "TokenStore": "tokens",
    "Tokens": "tokens",
}

__all__ = [
    "Answer",
    "AsyncClient",
    "AsyncTaskHandle",
    "AuditEntry",
    "AuditLog",
    "AuthoritiesChanged",
    "Client",
    "Collaboration",
    "Content",
    "Credentials",
    "Dataset",
    "DatasetQuery",
    "DatasetTable",
    "Delegate",
    "DeviceCode",
    "Enrolment",
    "Event",
    "Failure",
    "FileTokenStore",
    "Identity",
    "IdentityProvider",
    "Invitation",
    "InvitedUser",
    "KeyFiles",
    "Keyring",
    "LinkedIdentity",
    "LoginSession",
    "Member",
    "MembershipState",
    "MemoryTokenStore",
    "Node",
    "OnFailure",
    "Organization",
    "OrganizationTrust",
    "Permission",
    "Principal",
    "QueryParameter",
    "Question",
    "Result",
    "RevocationsChanged",
    "Role",
    "Run",
    "RunChanged",
    "RunFinished",
    "RunLog",
    "RunProgress",
    "RunState",
    "RunWaits",
    "ServerInfo",
    "Study",
    "Target",
    "Task",
    "TaskFinished",
    "TaskHandle",
    "TaskSnapshot",
    "TaskState",
    "TokenStore",
    "Tokens",
    "User",
    "Wait",
    "WaitCause",
]


def __getattr__(name: str) -> object:
    """Import what is asked for: the help of a command must not wait for gRPC."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_ELSEWHERE.get(name, 'models')}"), name)
