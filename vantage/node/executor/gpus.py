"""Graphics processors, each lent to one run at a time: no other run can look at its memory meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager


class GpuPool:
    """Lends devices, first come, first served.

    Args:
        devices: identifiers as the engine knows them, e.g. ``0`` or ``GPU-3faa8e11``.
    """

    def __init__(self, devices: Sequence[str]) -> None:
        self._free = list(devices)
        self._turn = asyncio.Lock()
        self._returned = asyncio.Event()

    def keep(self, devices: Sequence[str]) -> None:
        """Devices that a former process has lent to a container that runs on."""
        self._free = [each for each in self._free if each not in devices]

    def give_back(self, devices: Sequence[str]) -> None:
        """Devices that ``keep`` took."""
        self._free.extend(devices)
        self._returned.set()

    @asynccontextmanager
    async def lend(self, count: int) -> AsyncGenerator[tuple[str, ...], None]:
        """Wait for so many devices and hold them; more than there are must have been refused before."""
        async with self._turn:  # whoever waits for many is not overtaken by those who want few
            while len(self._free) < count:
                self._returned.clear()
                await self._returned.wait()
            lent, self._free = tuple(self._free[:count]), self._free[count:]
        try:
            yield lent
        finally:
            self._free.extend(lent)
            self._returned.set()
