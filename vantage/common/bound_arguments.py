"""Sealed arguments say who asks: a node opens them for that requester's orders and for nobody else's.

A seal says who may read and not who wrote. Without this, a server could put the sealed arguments of one member into the
order of another, who signs their digest without knowing what is in them, and whose algorithm then reads them out at the
node. Nobody who cannot open a seal can change the line that is inside.
"""

from __future__ import annotations

from typing import BinaryIO

from vantage.common.errors import Reason, error

_FORMAT = "vantage-arguments/1"


def line_of(requester: str) -> bytes:
    """What stands before arguments inside their seal.

    Args:
        requester: resource name of who signs the order.
    """
    return f"{_FORMAT} {requester}\n".encode()


def arguments_of(opened: bytes, requester: str) -> bytes:
    """The arguments in a seal.

    Args:
        opened: what was in it.
        requester: who has signed the order that they came with.

    Raises:
        RefusedError: SEAL_INVALID: they were sealed for an order of somebody else, or do not say for whose.
    """
    line = line_of(requester)
    _check(opened[: len(line)], line)
    return opened[len(line) :]


def skip_line(stream: BinaryIO, requester: str) -> None:
    """Read the line from the beginning of an opened seal; what follows in the stream is the arguments.

    Raises:
        RefusedError: as ``arguments_of``.
        OSError: of the stream.
    """
    line = line_of(requester)
    _check(stream.read(len(line)), line)


def _check(opened: bytes, line: bytes) -> None:
    if opened == line:
        return
    if opened.startswith(_FORMAT.encode()):
        why = "they were sealed for an order of somebody else, so who signed this one may not have them"
    else:
        why = f"they do not say for whose order they were sealed: a client must write {_FORMAT!r} before them"
    raise error(Reason.SEAL_INVALID, f"the arguments are refused: {why}")
