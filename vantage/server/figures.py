"""What the server's figures say about runs, leases, nodes and watchers."""

from __future__ import annotations

from vantage.server.domain.runs import OPEN
from vantage.server.events.bus import Bus
from vantage.server.metrics import Gauge
from vantage.server.services.sessions import Sessions
from vantage.server.storage import run_store
from vantage.server.storage.database import Database


class Figures:
    """Reads figures for ``Metrics.add``.

    Args:
        database: counts runs.
        sessions: knows nodes and leases.
        bus: knows who watches.
    """

    def __init__(self, database: Database, sessions: Sessions, bus: Bus) -> None:
        self._database = database
        self._sessions = sessions
        self._bus = bus

    async def read(self) -> list[Gauge]:
        """The figures as they are now.

        Raises:
            UnavailableError: DATABASE_UNAVAILABLE.
        """
        counted = await self._database.read(run_store.count_open)
        runs = [
            Gauge("runs", "Runs that have not ended, by state.", counted.get(state, 0), (("state", state.name),))
            for state in sorted(OPEN)
        ]
        return [
            *runs,
            Gauge("nodes_connected", "Nodes with an open session.", self._sessions.connected),
            Gauge("nodes_leased", "Nodes that hold runs, connected or not.", self._sessions.book.holders),
            Gauge("tasks_watched", "Tasks whose events somebody follows.", self._bus.watched),
        ]
