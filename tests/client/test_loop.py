"""What is asynchronous, run for a caller that is not."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from vantage.client.loop import LoopThread


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    made = LoopThread()
    yield made
    made.close()


def test_results_and_errors_come_back(loop: LoopThread) -> None:
    async def add(one: int, two: int) -> int:
        await asyncio.sleep(0)
        return one + two

    async def fail() -> None:
        raise KeyError("x")

    assert loop.run(add(1, 2)) == 3
    with pytest.raises(KeyError):
        loop.run(fail())


def test_an_interrupt_ends_what_runs_before_it_goes_on(loop: LoopThread) -> None:
    """Closing a generator that still runs would fail, and hide the interrupt."""
    order: list[str] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            # As a terminal does it, while the caller waits for the next one.
            main = threading.main_thread().ident
            assert main is not None
            signal.pthread_kill(main, signal.SIGINT)
            await asyncio.Event().wait()
        finally:
            order.append("closed")

    def read() -> None:
        for _number in loop.iterate(numbers()):
            order.append("item")

    with pytest.raises(KeyboardInterrupt):
        read()
    assert order == ["item", "closed"]


def test_nothing_begins_before_an_interrupt_would_end_the_wait(
    loop: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has begun may be interrupted at once: what is half made then would stay open."""
    order: list[str] = []
    make = socket.socketpair

    async def work() -> None:
        order.append("begun")

    def socketpair() -> tuple[socket.socket, socket.socket]:
        for _round in range(2):  # the loop has done all that it was given until now
            done = threading.Event()
            loop._loop.call_soon_threadsafe(done.set)
            done.wait()
        order.append("ready")
        return make()

    monkeypatch.setattr(socket, "socketpair", socketpair)
    loop.run(work())
    assert order == ["ready", "begun"]


def test_a_callback_of_the_client_that_waits_for_the_client_is_told_so(loop: LoopThread) -> None:
    async def nothing() -> None: ...

    async def call_back() -> None:
        loop.run(nothing())

    with pytest.raises(RuntimeError, match="another thread"):
        loop.run(call_back())


def test_a_source_may_be_collected_as_garbage_on_the_loop_itself(loop: LoopThread) -> None:
    closed = threading.Event()

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.set()

    async def collect() -> None:
        kept.clear()

    kept = [loop.iterate(numbers())]
    assert next(kept[0]) == 1
    loop.run(collect())
    assert closed.wait(10)


def test_whoever_stops_early_closes_the_source(loop: LoopThread) -> None:
    closed = threading.Event()

    async def numbers() -> AsyncIterator[int]:
        try:
            for number in range(1_000_000):
                yield number
        finally:
            closed.set()

    items = loop.iterate(numbers())
    assert [next(items), next(items)] == [0, 1]
    items.close()  # type: ignore[attr-defined]  # a generator
    assert closed.is_set()


def test_closing_ends_what_is_open_and_may_be_repeated() -> None:
    loop = LoopThread()
    ended = threading.Event()

    async def begin() -> None:
        async def forever() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        task = asyncio.create_task(forever())
        await asyncio.sleep(0)
        tasks.append(task)

    tasks: list[asyncio.Task[None]] = []
    loop.run(begin())
    loop.close()
    loop.close()
    assert ended.is_set()
    with pytest.raises(RuntimeError, match="closed"):
        loop.run(begin())
