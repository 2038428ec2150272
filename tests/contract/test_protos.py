"""Rules of the protos that ``buf lint`` does not know."""

from __future__ import annotations

import re

import grpc

from scripts.lib import contract
from scripts.lib.contract import Rpc
from vantage.api.access.v1 import access_pb2
from vantage.api.algorithm.v1 import algorithm_service_pb2
from vantage.common.errors import Reason
from vantage.server.app import SERVICES

OFFERED = {service.full_name for service in SERVICES}
"""Services of a server."""
LOCAL = {service.full_name for service in algorithm_service_pb2.DESCRIPTOR.services_by_name.values()}
"""Services that nodes offer to algorithms."""
RELAY_PACKAGE = "vantage.api.relay.v1."
"""Services of relays, which are programs of their own or part of a server."""
_CODES = {code.name for code in grpc.StatusCode}


def test_every_service_is_offered_by_someone() -> None:
    services = {rpc.service for rpc in contract.rpcs()}
    assert services >= OFFERED | LOCAL
    assert {each for each in services - OFFERED - LOCAL if not each.startswith(RELAY_PACKAGE)} == set()


def test_one_service_per_file() -> None:
    assert [file.name for file in contract.files_of_contract() if len(file.services_by_name) > 1] == []


def test_it_says_who_may_call_it(rpc: Rpc) -> None:
    access = rpc.access
    assert access is not None, "set the option (vantage.api.access.v1.access)"
    callers = list(access.callers)
    assert callers
    assert len(set(callers)) == len(callers)
    assert access_pb2.CALLER_UNSPECIFIED not in callers
    # Anyone is no kind beside others, and a run's token is worth nothing at a server.
    assert access_pb2.CALLER_ANYONE not in callers or callers == [access_pb2.CALLER_ANYONE]
    assert (callers == [access_pb2.CALLER_RUN]) == (rpc.service in LOCAL)
    assert bool(access.resource) == bool(access.operation), "a permission is a resource and an operation"
    assert not access.resource or access_pb2.CALLER_USER in callers, "only users have permissions"


def test_its_comment_says_the_same(rpc: Rpc) -> None:
    who = _referred(rpc, rpc.who)
    assert who, "add a line 'Who: …' to the comment"
    access = rpc.access
    assert access is not None
    open_to = set(access.callers)
    callers = re.sub(r"that may [\w ]+", "", who)
    if access_pb2.CALLER_ANYONE not in open_to:
        assert bool(re.search(r"\bnodes?\b", callers)) == (access_pb2.CALLER_NODE in open_to), who
        assert bool(re.search(r"\busers?\b", callers)) == (access_pb2.CALLER_USER in open_to), who


def test_its_comment_names_errors_that_exist(rpc: Rpc) -> None:
    assert rpc.errors, "add a line 'Errors: …' to the comment; 'none beyond the general ones' if there are none"
    named = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b|\b[A-Z]{6,}\b", rpc.errors))
    assert named <= {reason.name for reason in Reason} | _CODES


def _referred(rpc: Rpc, who: str) -> str:
    """``as RunTask`` stands for what is said there."""
    if found := re.fullmatch(r"as (\w+)\.", who):
        return next(each.who for each in contract.rpcs() if each.name == f"{rpc.service}.{found[1]}")
    return who


def test_lists_are_paginated(rpc: Rpc) -> None:
    request, response = rpc.descriptor.input_type, rpc.descriptor.output_type
    if not re.match(r"List[A-Z]", rpc.descriptor.name):
        # Other answers have pages where they hold more than a list.
        assert ("page_token" in request.fields_by_name) == ("next_page_token" in response.fields_by_name)
        return
    assert request.fields_by_name["page_size"].number == 1
    assert request.fields_by_name["page_token"].number == 2
    assert response.fields_by_name["next_page_token"].number == 2
    [items] = [field for field in response.fields if field.is_repeated]
    assert items.number == 1


def test_every_rpc_has_messages_of_its_own(rpc: Rpc) -> None:
    method = rpc.descriptor
    assert method.input_type.full_name == f"{rpc.descriptor.containing_service.file.package}.{method.name}Request"
    assert method.output_type.full_name == f"{rpc.descriptor.containing_service.file.package}.{method.name}Response"


def test_nothing_is_named_empty() -> None:
    assert [each.full_name for each in contract.messages() if "Empty" in each.name] == []
    imported = {each.name for file in contract.files_of_contract() for each in file.dependencies}
    assert "google/protobuf/empty.proto" not in imported


def test_enums_begin_with_an_unspecified_zero_and_carry_their_name() -> None:
    for enum in contract.enums():
        prefix = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", enum.name).upper()
        assert enum.values_by_number[0].name == f"{prefix}_UNSPECIFIED"
        assert all(value.name.startswith(f"{prefix}_") for value in enum.values)
