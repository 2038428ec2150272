"""A gRPC server on a unix socket in a directory of its own, for as long as a run lasts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from vantage.api.algorithm.v1 import algorithm_service_pb2_grpc
from vantage.common.errors import Reason, error
from vantage.common.rpc import SERVER_WINDOW, fixed_window
from vantage.node.door import SOCKET_NAME, RunCallbacks, RunContext
from vantage.node.local_api.servicer import AlgorithmServicer
from vantage.node.sockets import short_address

_MAX_MESSAGE = 16 * 1024 * 1024
_MAX_STREAMS = 128
_MAX_CONNECTIONS = 128
"""Of one run, which may have several processes: descriptors of the node are not the run's to use up."""


@asynccontextmanager
async def serve(context: RunContext, callbacks: RunCallbacks, directory: Path) -> AsyncGenerator[Path, None]:
    """Serve the local API of a run.

    The directory of the socket, not the socket, is what a container mounts. Socket and directory are open to every
    user, since the container's is another one; the directories above are closed to all but the node's.

    Args:
        context: what the run is told.
        callbacks: what it may ask.
        directory: of the run, mode 0700.

    Yields:
        The directory that holds the socket.

    Raises:
        RunError: SCRATCH_UNAVAILABLE, the socket cannot be made.
    """
    place = directory / "api"
    server = grpc.aio.server(
        options=[
            *fixed_window(SERVER_WINDOW),
            ("grpc.max_receive_message_length", _MAX_MESSAGE),
            ("grpc.max_send_message_length", _MAX_MESSAGE),
            ("grpc.max_concurrent_streams", _MAX_STREAMS),
            ("grpc.max_allowed_incoming_connections", _MAX_CONNECTIONS),
        ]
    )
    servicer = AlgorithmServicer(context, callbacks, directory)
    algorithm_service_pb2_grpc.add_AlgorithmServiceServicer_to_server(servicer, server)
    with contextlib.ExitStack() as open_files:
        try:
            await asyncio.to_thread(place.mkdir, mode=0o755, exist_ok=True)  # it is there when a run is gone on with
            address, _ = open_files.enter_context(short_address(place / SOCKET_NAME))
            server.add_insecure_port(f"unix:{address}")
            await server.start()
            place.chmod(0o755)  # whatever the umask is
            (place / SOCKET_NAME).chmod(0o666)
        except (OSError, RuntimeError) as problem:
            await server.stop(None)
            raise error(
                Reason.SCRATCH_UNAVAILABLE, f"the node cannot open the socket of the run: {problem}: ask its admin"
            ) from problem
        try:
            yield place
        finally:
            await server.stop(None)
