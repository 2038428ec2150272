"""The admin's socket: what is asked on this machine by the node's own user, and by nobody else."""

from __future__ import annotations

import asyncio
import socket
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from vantage.common.errors import Reason, UnavailableError, VantageError, error
from vantage.node import admin


async def echo(question: Mapping[str, Any], who: str) -> Any:
    return {"said": question["text"], "who": who}


async def fail(question: Mapping[str, Any], who: str) -> Any:
    raise error(Reason.NOT_FOUND, "there is none: look again")


COMMANDS = {"echo": echo, "fail": fail}


async def ask(directory: Path, do: str, **fields: Any) -> Any:
    return await asyncio.to_thread(admin.ask, directory, do, **fields)


async def test_questions_are_answered_and_errors_stay_errors(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 90) / ("e" * 60)  # longer than the address of a socket may be
    deep.mkdir(parents=True)
    (deep / admin.SOCKET_NAME).touch()  # as a process that was killed leaves it
    async with admin.serve(deep, COMMANDS):
        assert stat.S_IMODE((deep / admin.SOCKET_NAME).stat().st_mode) == 0o600
        answer = await ask(deep, "echo", text="ä" * 100_000)
        assert answer["said"] == "ä" * 100_000
        assert answer["who"].startswith("uid ")
        with pytest.raises(VantageError, match="look again") as caught:
            await ask(deep, "fail")
        assert caught.value.reason is Reason.NOT_FOUND
        with pytest.raises(VantageError) as caught:
            await ask(deep, "stop")
        assert caught.value.reason is Reason.UNIMPLEMENTED
    with pytest.raises(UnavailableError, match="running"):
        await ask(deep, "echo", text="x")
    assert not (deep / admin.SOCKET_NAME).exists()


async def test_another_user_is_told_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 12345)
    monkeypatch.setattr(admin, "_CREDENTIALS", _OtherUser())
    async with admin.serve(tmp_path, COMMANDS):
        with pytest.raises(VantageError) as caught:
            await ask(tmp_path, "echo", text="x")
        assert caught.value.reason is Reason.PERMISSION_DENIED


class _OtherUser:
    size = 12

    def unpack(self, raw: bytes) -> tuple[int, int, int]:
        assert len(raw) == self.size
        return 1, 54321, 54321


async def test_what_makes_no_sense_harms_nobody(tmp_path: Path) -> None:
    async with admin.serve(tmp_path, COMMANDS):
        for content in (b"\n", b"[]\n", b"{\n", b"", b"x" * (admin.MAX_LINE + 100) + b"\n"):
            reader, writer = await asyncio.open_unix_connection(tmp_path / admin.SOCKET_NAME)
            try:
                writer.write(content)
                await writer.drain()
                if writer.can_write_eof():
                    writer.write_eof()
                await reader.read()
            except ConnectionError:
                pass
            finally:
                writer.transport.abort()
        assert (await ask(tmp_path, "echo", text="x"))["said"] == "x"


def test_a_node_that_stops_in_the_middle_is_said_to_be_that(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / admin.SOCKET_NAME))
        listening.listen()
        import threading

        def answer() -> None:
            connection, _ = listening.accept()
            connection.recv(1000)
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(UnavailableError, match="stopped before"):
            admin.ask(tmp_path, "echo", text="x")
        thread.join()
