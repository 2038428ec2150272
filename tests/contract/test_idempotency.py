"""Every RPC may arrive twice. Each says, by its form, why that does no harm."""

from __future__ import annotations

import re

from google.protobuf.descriptor import Descriptor

from scripts.lib import contract
from scripts.lib.contract import Rpc

READS = ("Get", "List", "Watch", "Download", "Export", "Read")
"""Change nothing."""

END_STATES = ("Set", "Update", "Delete", "Cancel", "Add", "Remove")
"""Say how it is to be afterwards: the second time it is so already (or NOT_FOUND, after a delete)."""

SPECIAL = {
    "AlgorithmService.StageArguments": "the same bytes are kept once",
    "AuthService.Bootstrap": "the token works once",
    "AuthService.Login": "each makes a session of its own, which ends by itself",
    "AuthService.ExchangeIdentityToken": "the ID token works once",
    "AuthService.ResetPassword": "the token works once",
    "AuthService.ExchangeAssertion": "the assertion works once",
    "AuthService.Logout": "what has ended stays ended",
    "AuthService.ChangePassword": "the second time the current password is another one",
    "CredentialService.BeginOneTimeCodes": "the latest secret counts, and only once it is confirmed",
    "CredentialService.ConfirmOneTimeCodes": "what is confirmed stays confirmed",
    "CredentialService.DisableOneTimeCodes": "what is gone stays gone",
    "CredentialService.RenewRecoveryCodes": "the latest codes count, and a one-time code works once",
    "CredentialService.LinkIdentity": "the ID token works once, and the link is the same",
    "CredentialService.UnlinkIdentity": "what is gone stays gone",
    "CredentialService.EndSession": "what has ended stays ended",
    "UserCredentialService.IssuePasswordReset": "the latest token counts",
    "UserCredentialService.LinkUserIdentity": "the link is the same",
    "UserCredentialService.UnlinkUserIdentity": "what is gone stays gone",
    "UserCredentialService.RevokeSessions": "what has ended stays ended",
    "KeyService.PublishKeys": "the same list is accepted again, an older one is refused",
    "MembershipService.AcceptInvitation": "who is a member stays one",
    "MembershipService.DeclineInvitation": "the invitation is gone: NOT_FOUND, as after a delete",
    "MembershipService.SuspendMembership": "what is suspended stays suspended",
    "MembershipService.ResumeMembership": "whoever takes part goes on",
    "MembershipService.LeaveCollaboration": "the membership is gone: NOT_FOUND, as after a delete",
    "NodeSessionService.Connect": "each message has a sequence; a newer session fences the older",
    "NodeSessionService.Sync": "the session, and each message in it, is known by its number",
    "AlgorithmService.Dial": "each opens a connection of its own, which ends with the call",
    "AlgorithmService.Listen": "a label has one listener, the second is refused",
    "RelayBrokerService.OpenPair": "the same pair gets new tickets",
    "RelayService.Open": "a ticket works once",
    "AlgorithmService.ReportProgress": "the latest report wins",
    "AlgorithmService.SubmitResult": "the same bytes are accepted again, others are refused",
    "AlgorithmService.SubmitFailure": "the last one counts",
}
"""All others, each with the reason why it may arrive twice."""


def test_it_may_arrive_twice(rpc: Rpc) -> None:
    method = rpc.descriptor
    verb = re.match(r"[A-Z][a-z]*", method.name)
    assert verb is not None
    special = f"{method.containing_service.name}.{method.name}" in SPECIAL
    by_verb = verb[0] in READS or verb[0] in END_STATES
    by_request_id = _has_request_id(method.input_type)
    by_name = verb[0] == "Create" and _is_named_by_the_caller(method.input_type)
    assert by_request_id or by_name or by_verb or special, (
        "give the request a request_id, let the caller choose the name, or say in SPECIAL why it may arrive twice"
    )
    assert not special or not (by_verb or by_request_id), "SPECIAL is for those that no rule covers"


def test_no_exception_is_left_over() -> None:
    known = {f"{rpc.descriptor.containing_service.name}.{rpc.descriptor.name}" for rpc in contract.rpcs()}
    assert set(SPECIAL) <= known


def _has_request_id(message: Descriptor) -> bool:
    """In the request, or in the header that begins a stream."""
    if "request_id" in message.fields_by_name:
        return True
    header = message.fields_by_name.get("header")
    return header is not None and header.message_type is not None and _has_request_id(header.message_type)


def _is_named_by_the_caller(message: Descriptor) -> bool:
    """``CreateThing`` with ``thing_id``: the second call is answered with ALREADY_EXISTS."""
    noun = message.name.removeprefix("Create").removesuffix("Request")
    snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", noun).lower()
    return f"{snake}_id" in message.fields_by_name
