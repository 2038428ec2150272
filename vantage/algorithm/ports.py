"""Ports on 127.0.0.1 that lead through the node to datasets and hosts, for programs that know nothing of vantage."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import grpc

from vantage.algorithm.forwarding import lead
from vantage.algorithm.patience import CHANNEL_OPTIONS
from vantage.algorithm.streams import RawCall, Stream
from vantage.api.algorithm.v1 import algorithm_service_pb2 as pb

HOST = "127.0.0.1"
_DIAL = "/vantage.api.algorithm.v1.AlgorithmService/Dial"
_MAX_MESSAGE = 16 * 1024 * 1024
_LIMIT = 256 * 1024

T = TypeVar("T")
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Ports:
    """Serves ports on a thread of its own, so that functions of every kind, and other programs, can use them.

    Args:
        target: of the node's local API, ``unix:PATH``.
        token: of the run.
    """

    def __init__(self, target: str, token: str) -> None:
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._loop = asyncio.new_event_loop()
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vantage ports", daemon=True)
        self._thread.start()
        self._channel = self._call(self._connect(target))

    def open(self, target: pb.DialTarget, where: str) -> int:
        """A port whose connections lead to a target.

        Args:
            target: dataset or host.
            where: the same for people, when a connection cannot be opened.
        """

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await lead(self.dial(target), where, reader, writer)

        return self._call(self._listen(serve))

    def proxy(self) -> int:
        """A port with an HTTP proxy that leads to the hosts that the node allows."""
        from vantage.algorithm.proxy import serve_proxy  # here, since most functions connect with no host

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await serve_proxy(self.dial, reader, writer)

        return self._call(self._listen(serve))

    async def dial(self, target: pb.DialTarget) -> Stream:
        """Open a stream; on the thread of the ports.

        Raises:
            PeerError: it cannot be opened; ``code`` says why.
        """
        # A node that is being restarted is waited for, as every call of a run waits for it.
        call: RawCall = self._channel.stream_stream(_DIAL)(metadata=self._metadata, wait_for_ready=True)
        return await Stream.open(call, target)

    def close(self) -> None:
        """End all connections and the thread."""
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _connect(self, target: str) -> grpc.aio.Channel:
        options = [
            *CHANNEL_OPTIONS,
            ("grpc.max_receive_message_length", _MAX_MESSAGE),
            ("grpc.enable_http_proxy", 0),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        return grpc.aio.insecure_channel(target, options=options)

    async def _listen(self, serve: Serve) -> int:
        async def kept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None  # noqa: S101  # a coroutine that runs has one
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            await serve(reader, writer)

        server = await asyncio.start_server(kept, HOST, 0, limit=_LIMIT)
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._channel.close()
