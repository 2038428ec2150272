"""A server with one call behind the real gate, and without it: a program of its own, driven by ``authorization``."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any

import grpc
import uvloop

from vantage.api.identity.v1 import auth_service_pb2, auth_service_pb2_grpc
from vantage.testing.server import running_server

ANSWER = auth_service_pb2.GetPrincipalResponse(name="users/root")


class _Constant(auth_service_pb2_grpc.AuthServiceServicer):
    """The least that a call can do, so that what surrounds it is what is measured."""

    async def GetPrincipal(self, request: Any, context: Any) -> auth_service_pb2.GetPrincipalResponse:
        return ANSWER


async def main(directory: Path) -> None:
    """Print the ports and a token, and serve until the standard input ends."""
    async with running_server(directory / "server", tls=False) as running:
        tokens = await running.bootstrap()
        ports = []
        servers = []
        for interceptors in ([], [running.server.gate]):
            server = grpc.aio.server(interceptors=interceptors)
            auth_service_pb2_grpc.add_AuthServiceServicer_to_server(_Constant(), server)  # type: ignore[abstract]  # as above
            ports.append(server.add_insecure_port("127.0.0.1:0"))
            await server.start()
            servers.append(server)
        print(*ports, tokens.access_token, flush=True)
        await asyncio.to_thread(sys.stdin.read)
        for server in servers:
            await server.stop(0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    uvloop.run(main(parser.parse_args().directory))
