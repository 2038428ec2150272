"""A loop in a thread of its own, for those who do not write asynchronous programs."""

from __future__ import annotations

import asyncio
import concurrent.futures
import selectors
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

T = TypeVar("T")

GRACE = 5.0
"""Seconds that a call which is interrupted has to end."""


class LoopThread:
    """Runs what is asynchronous for callers that are not; any thread may call, also one with a loop of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vantage client", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end; an interrupt (Ctrl-C) of the caller cancels it.

        Raises:
            RuntimeError: the client is closed, or one of its own callbacks would wait for it.
        """
        if self._loop.is_closed():
            coroutine.close()
            raise RuntimeError("the client is closed")
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise RuntimeError("what the client calls back cannot wait for the client: use another thread")
        outcome: concurrent.futures.Future[T] = concurrent.futures.Future()
        started: list[asyncio.Task[T]] = []

        def start() -> None:
            task = self._loop.create_task(coroutine)
            started.append(task)
            task.add_done_callback(lambda ended: _hand_over(ended, outcome))

        def cancel() -> None:
            if started:
                started[0].cancel()
            else:  # interrupted before it was handed to the loop
                coroutine.close()
                outcome.cancel()

        try:
            # Within: the interrupt may come as soon as the other thread has begun.
            with _waiting(outcome) as wait:
                self._loop.call_soon_threadsafe(start)
                wait()
            return outcome.result()
        except BaseException:
            if not outcome.done():
                # What the caller does next (close a generator, or the client) must find this ended.
                self._loop.call_soon_threadsafe(cancel)
                concurrent.futures.wait([outcome], GRACE)
            raise

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        """The items, one by one; the source is closed when the caller stops early."""
        try:
            while True:
                try:
                    item = self.run(_next(items))
                except StopAsyncIteration:
                    return
                yield item
        finally:
            # Where this is collected as garbage on the loop's own thread, the loop closes the source by itself.
            if not self._loop.is_closed() and threading.current_thread() is not self._thread:
                self.run(_close(items))

    def close(self) -> None:
        """End the loop, after what is open on it."""
        if self._loop.is_closed():
            return
        self.run(_shut_down())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextmanager
def _waiting(outcome: concurrent.futures.Future[T]) -> Iterator[Callable[[], object]]:
    """Gives what waits for an outcome, in a way that Ctrl-C ends at once.

    A lock is not enough: where the system hands the signal to another thread, or just before this one begins to wait,
    the lock would be waited for until it is free. Nor may the outcome be asked meanwhile: its lock, left behind by the
    interrupt, would stop the loop.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: concurrent.futures.wait([outcome])
        return
    ended = threading.Event()
    reader, writer = socket.socketpair()
    with reader, writer, selectors.DefaultSelector() as selector:
        reader.setblocking(False)
        writer.setblocking(False)
        selector.register(reader, selectors.EVENT_READ)

        def wake(_outcome: concurrent.futures.Future[T]) -> None:
            ended.set()
            with suppress(OSError):  # nobody waits any more, or is about to wake up anyway
                writer.send(b"\0")

        def wait() -> None:
            while not ended.is_set():
                selector.select()
                with suppress(BlockingIOError):
                    reader.recv(4096)

        outcome.add_done_callback(wake)
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            if before != -1:  # a loop of this thread has it: notebooks
                signal.set_wakeup_fd(before)
            yield wait
        finally:
            if before == -1:
                signal.set_wakeup_fd(-1)


def _hand_over(ended: asyncio.Task[T], outcome: concurrent.futures.Future[T]) -> None:
    if ended.cancelled():
        outcome.set_exception(concurrent.futures.CancelledError())
    elif (problem := ended.exception()) is not None:
        outcome.set_exception(problem)
    else:
        outcome.set_result(ended.result())


async def _next(items: AsyncIterator[T]) -> T:
    return await anext(items)


async def _close(items: AsyncIterator[Any]) -> None:
    close = getattr(items, "aclose", None)
    if close is not None:
        await close()


async def _shut_down() -> None:
    loop = asyncio.get_running_loop()
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    await loop.shutdown_asyncgens()
