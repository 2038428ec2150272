"""What the demo says: one line per step, with the commands that a user would type."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

console = Console(highlight=False, soft_wrap=True)


@contextmanager
def step(title: str) -> Iterator[None]:
    """A step of the demo: its title when it begins, its time when it is done."""
    console.print(Text(f"● {title}", "bold"))
    began = time.monotonic()
    yield
    console.print(Text(f"  done in {time.monotonic() - began:.1f} s", "green"))


def note(text: str) -> None:
    """A line below a step."""
    console.print(Text(f"  {text}"))


def typed(command: str) -> None:
    """A command as a user would type it."""
    console.print(Text(f"  $ {command}", "dim"))
