"""Figures for Prometheus (exposition format, https://prometheus.io/docs/instrumenting/exposition_formats/) over HTTP.

They hold names of methods, states and reasons, never of people, tasks or data.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import TimeoutError as NotInTimeError
from dataclasses import dataclass
from threading import Thread
from typing import Any

from prometheus_client import CollectorRegistry, Counter, GCCollector, Histogram, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from vantage.common.errors import Reason, VantageError, error
from vantage.server.relay.limits import RelayCounters

log = logging.getLogger(__name__)

SCRAPE_SECONDS = 5.0
"""How long a scrape waits for figures that the event loop must give."""
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Gauge:
    """A figure as it is now.

    Attributes:
        name: without the prefix ``vantage_``.
        help: for people.
        value: the figure.
        labels: what distinguishes it from others of the name.
    """

    name: str
    help: str
    value: float
    labels: tuple[tuple[str, str], ...] = ()


Read = Callable[[], Awaitable[Iterable[Gauge]]]
"""Gives figures, on the event loop."""


class Metrics:
    """What one process tells. ``start``, then ``stop`` once.

    Args:
        address: ``host:port`` to listen on; port 0 lets the system choose.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._handled = Counter(
            "vantage_rpc_handled",
            "Calls that have ended, by method and by OK or the reason of the failure.",
            ("method", "reason"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "vantage_rpc_seconds",
            "How long calls with one answer took, by method.",
            ("method",),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._server: Any = None
        self._thread: Thread | None = None

    def handled(self, method: str, reason: str, seconds: float | None) -> None:
        """A call has ended.

        Args:
            method: full path of the method.
            reason: ``OK`` or why it failed.
            seconds: how long it took; None for a stream, which lasts as long as somebody wants.
        """
        self._handled.labels(method, reason).inc()
        if seconds is not None:
            self._seconds.labels(method).observe(seconds)

    def add(self, read: Read) -> None:
        """Ask for these figures whenever somebody scrapes; from the event loop that they live on."""
        self._registry.register(_OfTheLoop(asyncio.get_running_loop(), read))

    def add_relay(self, counters: RelayCounters) -> None:
        """Tell what a relay does."""
        self._registry.register(_OfARelay(counters))

    def start(self) -> None:
        """Listen; ``address`` is then the real one.

        Raises:
            ConfigurationError: the address cannot be used.
        """
        host, _, port = self.address.rpartition(":")
        try:
            self._server, self._thread = start_http_server(int(port), host.strip("[]"), self._registry)
        except (OSError, OverflowError, ValueError) as problem:
            raise error(
                Reason.CONFIGURATION_INVALID,
                f"metrics cannot be served on {self.address}: {problem}: correct metrics_listen, HOST:PORT",
            ) from problem
        self.address = f"{host}:{self._server.server_port}"

    async def stop(self) -> None:
        """Listen no more."""
        if self._server is not None and self._thread is not None:
            await asyncio.to_thread(self._server.shutdown)
            self._server.server_close()
            await asyncio.to_thread(self._thread.join)


class _OfTheLoop(Collector):
    """Scrapes come on threads, the figures live on the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, read: Read) -> None:
        self._loop = loop
        self._read = read

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        async def read() -> list[Gauge]:
            return list(await self._read())

        asked = asyncio.run_coroutine_threadsafe(read(), self._loop)
        found: list[Gauge] = []
        # A server that is busy or stopping, or has no database, tells fewer figures rather than none.
        try:
            found = asked.result(SCRAPE_SECONDS)
        except NotInTimeError:
            asked.cancel()
            log.warning("figures not given in time")
        except VantageError as problem:
            log.warning("figures not to be had", extra={"reason": problem.reason.name})
        families: dict[str, GaugeMetricFamily] = {}
        for each in found:
            names = [name for name, _value in each.labels]
            if each.name not in families:
                families[each.name] = GaugeMetricFamily(f"vantage_{each.name}", each.help, labels=names)
            families[each.name].add_metric([value for _name, value in each.labels], each.value)
        yield from families.values()


class _OfARelay(Collector):
    def __init__(self, counters: RelayCounters) -> None:
        self._counters = counters

    def collect(self) -> Iterator[Metric]:
        now = self._counters
        yield GaugeMetricFamily("vantage_relay_pairs", "Pairs of peers that are open.", now.pairs)
        yield GaugeMetricFamily("vantage_relay_waiting", "Peers that wait for their other side.", now.waiting)
        yield CounterMetricFamily("vantage_relay_pairs_opened", "Pairs since the start.", now.total_pairs)
        yield CounterMetricFamily("vantage_relay_bytes", "Bytes handed on since the start.", now.total_bytes)
        yield CounterMetricFamily("vantage_relay_refused", "Peers refused since the start.", now.total_refused)
