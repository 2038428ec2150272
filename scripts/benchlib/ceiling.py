"""The ceiling of the small task: the least code that does the same job with the same libraries.

One process is the server: unary or streamed creation, one SQLite commit with synchronous=FULL (units that wait together
share a commit), a message on the node's open stream, a second commit, a message on the stream of the creator. One
process is the node: it answers each assignment at once. No authentication, no policy, no signatures, no retries.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import queue
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import uvloop

from vantage.api.node.v1 import node_session_service_pb2 as node_pb
from vantage.api.node.v1 import node_session_service_pb2_grpc as node_grpc
from vantage.api.task.v1 import task_pb2, task_service_pb2, task_service_pb2_grpc
from vantage.common.rpc import ServerTrust, open_channel
from vantage.server.certificate import CERTIFICATE_FILE, KEY_FILE, create_certificate


class Writer:
    """One thread that owns the database and commits whatever waits together."""

    def __init__(self, path: Path) -> None:
        self._units: queue.SimpleQueue[tuple[str, tuple[object, ...], asyncio.Future[None]] | None] = (
            queue.SimpleQueue()
        )
        self._loop = asyncio.get_running_loop()
        self._path = path
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def write(self, sql: str, values: tuple[object, ...]) -> asyncio.Future[None]:
        done: asyncio.Future[None] = self._loop.create_future()
        self._units.put((sql, values, done))
        return done

    def close(self) -> None:
        self._units.put(None)
        self._thread.join()

    def _run(self) -> None:
        connection = sqlite3.connect(self._path, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE task (id TEXT PRIMARY KEY, spec BLOB, result BLOB)")
        while (unit := self._units.get()) is not None:
            batch = [unit]
            with contextlib.suppress(queue.Empty):
                while len(batch) < 256:
                    if (more := self._units.get_nowait()) is None:
                        self._units.put(None)
                        break
                    batch.append(more)
            connection.execute("BEGIN IMMEDIATE")
            for sql, values, _done in batch:
                connection.execute(sql, values)
            connection.execute("COMMIT")
            self._loop.call_soon_threadsafe(self._finish, [done for _sql, _values, done in batch])
        connection.close()

    @staticmethod
    def _finish(futures: list[asyncio.Future[None]]) -> None:
        for each in futures:
            if not each.done():
                each.set_result(None)


class Ceiling(task_service_pb2_grpc.TaskServiceServicer, node_grpc.NodeSessionServiceServicer):
    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._assignments: asyncio.Queue[node_pb.ConnectResponse] = asyncio.Queue()
        self._waiting: dict[str, asyncio.Future[bytes]] = {}

    async def _create(self, request_id: str, spec: task_pb2.TaskSpec) -> asyncio.Future[bytes]:
        await self._writer.write("INSERT INTO task VALUES (?, ?, NULL)", (request_id, spec.SerializeToString()))
        done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = done
        assign = node_pb.Assign(lease=node_pb.Lease(run=request_id), spec=spec)
        self._assignments.put_nowait(node_pb.ConnectResponse(assign=assign))
        return done

    async def RunTask(self, request: task_service_pb2.RunTaskRequest, context: Any) -> AsyncIterator[Any]:
        done = await self._create(request.request_id, request.spec)
        yield task_service_pb2.RunTaskResponse(event=task_pb2.TaskEvent(sequence=1, snapshot=task_pb2.TaskSnapshot()))
        run = task_pb2.Run()
        run.result.inline = await done
        yield task_service_pb2.RunTaskResponse(
            event=task_pb2.TaskEvent(sequence=2, run_finished=task_pb2.RunFinished(run=run))
        )

    async def RunTasks(self, request_iterator: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        outbox: asyncio.Queue[task_service_pb2.RunTasksResponse | None] = asyncio.Queue()
        pending: set[asyncio.Task[None]] = set()

        async def one(request: task_service_pb2.RunTasksRequest) -> None:
            done = await self._create(request.request_id, request.spec)
            run = task_pb2.Run()
            run.result.inline = await done
            event = task_pb2.TaskEvent(sequence=2, run_finished=task_pb2.RunFinished(run=run))
            outbox.put_nowait(task_service_pb2.RunTasksResponse(request_id=request.request_id, event=event))

        async def read() -> None:
            async for request in request_iterator:
                task = asyncio.create_task(one(request))
                pending.add(task)
                task.add_done_callback(pending.discard)
            await asyncio.gather(*pending)
            outbox.put_nowait(None)

        reader = asyncio.create_task(read())
        while (response := await outbox.get()) is not None:
            yield response
        await reader

    async def Connect(self, request_iterator: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async def read() -> None:
            async for message in request_iterator:
                if message.WhichOneof("message") == "completed":
                    run, result = message.completed.lease.run, message.completed.result.inline
                    pending.append(
                        (run, result, self._writer.write("UPDATE task SET result = ? WHERE id = ?", (result, run)))
                    )
                    wake.set()

        async def finish() -> None:
            while True:
                await wake.wait()
                wake.clear()
                while pending:
                    run, result, written = pending.pop(0)
                    await written
                    if (waiting := self._waiting.pop(run, None)) is not None and not waiting.done():
                        waiting.set_result(result)

        pending: list[tuple[str, bytes, asyncio.Future[None]]] = []
        wake = asyncio.Event()
        tasks = [asyncio.create_task(read()), asyncio.create_task(finish())]
        yield node_pb.ConnectResponse(welcome=node_pb.Welcome())
        try:
            while True:
                yield await self._assignments.get()
        finally:
            for task in tasks:
                task.cancel()

    def _unused(self, request: Any, context: Any) -> Any:
        raise AssertionError("the bench does not call this")

    CreateTask = WatchTask = GetTask = ListTasks = CancelTask = Sync = _unused


async def serve(directory: Path, *, tls: bool) -> None:
    writer = Writer(directory / "ceiling.db")
    server = grpc.aio.server()
    servicer = Ceiling(writer)
    task_service_pb2_grpc.add_TaskServiceServicer_to_server(servicer, server)
    node_grpc.add_NodeSessionServiceServicer_to_server(servicer, server)
    if tls:
        create_certificate(directory, ())
        pair = ((directory / KEY_FILE).read_bytes(), (directory / CERTIFICATE_FILE).read_bytes())
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"ready: 127.0.0.1:{port}", flush=True)
    # The bench closes our standard input when it is done.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(0)
    writer.close()


async def node(address: str, trust: ServerTrust | None) -> None:
    async with open_channel(address, trust) as channel:
        call = node_grpc.NodeSessionServiceStub(channel).Connect()
        await call.write(node_pb.ConnectRequest(hello=node_pb.Hello()))
        with contextlib.suppress(grpc.aio.AioRpcError):
            async for message in call:
                match message.WhichOneof("message"):
                    case "welcome":
                        print("ready:", flush=True)
                    case "assign":
                        completed = node_pb.Completed(lease=message.assign.lease)
                        completed.result.inline = message.assign.spec.targets[0].arguments.inline
                        await call.write(node_pb.ConnectRequest(completed=completed))


def main() -> None:
    parser = argparse.ArgumentParser()
    roles = parser.add_subparsers(dest="role", required=True)
    server = roles.add_parser("server")
    server.add_argument("directory", type=Path)
    server.add_argument("--tls", action="store_true")
    peer = roles.add_parser("node")
    peer.add_argument("address")
    peer.add_argument("--certificate", type=Path)
    options = parser.parse_args()
    if options.role == "server":
        uvloop.run(serve(options.directory, tls=options.tls))
    else:
        trust = None if options.certificate is None else ServerTrust.from_pem(options.certificate.read_bytes())
        uvloop.run(node(options.address, trust))


if __name__ == "__main__":
    main()
