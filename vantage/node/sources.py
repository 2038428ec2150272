"""Where the code of a run comes from: trusted first, fetched then."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from vantage.common.declaration import Declaration
from vantage.common.errors import Reason, VantageError, error
from vantage.node.argument_bounds import ArgumentBounds
from vantage.node.config import ProcessSection
from vantage.node.executor.base import UnsandboxedCode

if TYPE_CHECKING:
    from vantage.node.images import VerifiedImage

Tell = Callable[[float, str], None]
"""How far something is: fraction and text."""


@dataclass(frozen=True)
class CodeRequest:
    """What is asked of code, and by whom.

    Attributes:
        image: reference as it came.
        function: to be called.
        organization: that asks, ``organizations/dora``; empty when it is not known.
        user: who asks: ``organizations/dora/users/alice`` from a signed order, ``users/alice`` as the server says,
            empty when a node asks that shows no order.
    """

    image: str
    function: str
    organization: str = ""
    user: str = ""


@dataclass(frozen=True)
class TrustedCode:
    """Code that passed the node's rules for code.

    Attributes:
        code: what an executor runs.
        declaration: what it says of itself.
        bounds: the arguments must meet one of these; none when they are free.
    """

    code: VerifiedImage | UnsandboxedCode
    declaration: Declaration
    bounds: tuple[ArgumentBounds, ...] = ()

    @property
    def signers(self) -> tuple[str, ...]:
        """Names of the keys that vouch for it; none for modules."""
        return () if isinstance(self.code, UnsandboxedCode) else self.code.signers


class CodeSource(Protocol):
    """Decides about code and brings it here."""

    async def trust(self, request: CodeRequest) -> TrustedCode:
        """Check that an image may run a function here, for the one who asks.

        Raises:
            RefusedError: with the reason, for the researcher.
            UnavailableError: REGISTRY_UNAVAILABLE.
        """
        ...

    async def fetch(self, trusted: TrustedCode, tell: Tell) -> None:
        """Bring the code here, if it is not.

        Raises:
            VantageError: it cannot be had, or is not what was trusted.
        """
        ...


class ModuleSource:
    """Python modules in place of images: for development, and for measuring everything but the container."""

    def __init__(self, section: ProcessSection) -> None:
        self._modules = section.modules
        self._trusted: dict[str, TrustedCode] = {}

    async def trust(self, request: CodeRequest) -> TrustedCode:
        """See ``CodeSource``: the repository must be configured under ``process.modules``."""
        image = request.image
        repository = image.partition("@")[0]
        module_name = self._modules.get(repository)
        if module_name is None:
            known = ", ".join(sorted(self._modules)) or "none"
            raise error(
                Reason.IMAGE_NOT_ALLOWED,
                f"the node runs modules in place of images and has none for {repository}; it knows {known}",
                image=image,
            )
        if (found := self._trusted.get(module_name)) is None:
            found = self._trusted[module_name] = self._load(module_name)
        return found

    async def fetch(self, trusted: TrustedCode, tell: Tell) -> None:
        """See ``CodeSource``: modules are here."""

    def _load(self, module_name: str) -> TrustedCode:
        try:
            module = importlib.import_module(module_name)
        except Exception as problem:  # whatever foreign code does while it is imported
            raise _unusable(module_name, f"cannot be imported: {type(problem).__name__}") from problem
        declaration = getattr(module, "DECLARATION", None)
        if declaration is None:
            raise _unusable(module_name, "has no DECLARATION")
        return TrustedCode(UnsandboxedCode(module_name), Declaration.parse(declaration))


def _unusable(module_name: str, why: str) -> VantageError:
    return error(Reason.IMAGE_DECLARATION_INVALID, f"the module {module_name} {why}", module=module_name)
