"""The HTTP proxy of a run, where no node is needed to see what it does."""

from __future__ import annotations

import asyncio

from vantage.algorithm.proxy import serve_proxy
from vantage.algorithm.streams import Stream
from vantage.api.algorithm.v1 import algorithm_service_pb2 as pb


async def dial(_target: pb.DialTarget) -> Stream:
    raise AssertionError


async def test_a_connection_that_ends_without_a_request_is_closed() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kept.append(writer)
        await serve_proxy(dial, reader, writer)

    kept: list[asyncio.StreamWriter] = []
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write_eof()
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        writer.close()
