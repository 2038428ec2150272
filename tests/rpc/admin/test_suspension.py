"""What a node notices of its organization's consent, on a stream that is open meanwhile."""

from __future__ import annotations

from sqlalchemy import insert

from vantage.api.admin.v1 import membership_service_pb2 as membership_pb
from vantage.api.admin.v1 import node_service_pb2 as node_pb
from vantage.common import pki
from vantage.common.clock import SystemClock
from vantage.server.app import TOKEN_KEY_FILE
from vantage.server.domain.tokens import AccessTokens
from vantage.server.storage import schema, settings_store
from vantage.server.storage.database import Connection
from vantage.testing.scripted_node import ScriptedNode

from .conftest import Hospitals, Token
from .test_consent import CLARA, HILDA, LUNGS, accept, ask, invite

NODE = f"{HILDA}/nodes/hilda-1"


async def token_of(hospitals: Hospitals, node: str) -> Token:
    server = hospitals.server.server
    audience = await server.database.read(lambda each: settings_store.get(each, settings_store.AUDIENCE))
    assert audience is not None
    now, serial, organization = SystemClock().now(), "1f", node.rpartition("/nodes/")[0]
    authority = pki.self_signed(pki.create_key(), organization, now)
    certificate = {"organization": organization, "position": 0, "pem": pki.to_pem(authority)}
    used = {"holder": node, "serial": serial, "authority": pki.key_id(authority), "not_before": now, "first_used": now}

    def unit(connection: Connection) -> None:
        connection.execute(insert(schema.organization_certificate).values(certificate))
        connection.execute(insert(schema.used_certificate).values(used))

    await server.database.write(unit)
    tokens = AccessTokens(pki.read_key(server.data / TOKEN_KEY_FILE), audience, SystemClock())
    return (("authorization", f"Bearer {tokens.issue(node, None, serial)}"),)


async def test_queued_runs_wait_while_a_member_is_suspended(hospitals: Hospitals) -> None:
    await invite(hospitals, CLARA, HILDA)
    await accept(hospitals, "anna", "hugo")
    hugo, anna = hospitals.tokens["hugo"], hospitals.tokens["anna"]
    request = node_pb.CreateNodeRequest(organization=HILDA, node_id="hilda-1", collaborations=[LUNGS])
    await hospitals.nodes.CreateNode(request, metadata=hugo)
    metadata = await token_of(hospitals, NODE)
    channel = hospitals.server.channel()

    first = ScriptedNode(channel, metadata)
    assert list((await first.hello(slots=1)).collaborations) == [LUNGS]
    await hospitals.tasks.CreateTask(ask(HILDA), metadata=anna)
    taken = (await first.receive("assign")).assign
    waiting = (await hospitals.tasks.CreateTask(ask(HILDA), metadata=anna)).task

    suspend = membership_pb.SuspendMembershipRequest(collaboration=LUNGS)
    await hospitals.memberships.SuspendMembership(suspend, metadata=hugo)
    assert (await first.receive("goodbye")).goodbye.reason == "UNAVAILABLE"

    # It comes back with what it holds, learns that it serves nothing now, and gets nothing, though it has room.
    second = ScriptedNode(channel, metadata)
    assert list((await second.hello(slots=4, leases=[taken.lease])).collaborations) == []
    await second.send(heartbeat={"leases": [taken.lease]})
    reply = await second.receive("heartbeat_reply")
    assert list(reply.heartbeat_reply.revoked) == []

    resume = membership_pb.ResumeMembershipRequest(collaboration=LUNGS)
    await hospitals.memberships.ResumeMembership(resume, metadata=hugo)
    await second.receive("goodbye")
    third = ScriptedNode(channel, metadata)
    assert list((await third.hello(slots=4, leases=[taken.lease])).collaborations) == [LUNGS]
    assert (await third.receive("assign")).assign.lease.run == waiting.runs[0].name
