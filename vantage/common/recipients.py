"""Whom payloads for organizations are sealed to: lists of keys, fetched when needed, believed by signature."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from vantage.common.attestation import VerifiedKeys, verify_keys
from vantage.common.clock import Clock
from vantage.common.dsse import Certify
from vantage.common.errors import Reason, error

Fetch = Callable[[str, Sequence[str]], Awaitable[Iterable[tuple[str, bytes]]]]
"""Asks the server for (holder, envelope) of the nodes of organizations that serve a collaboration."""


@dataclass(frozen=True)
class Recipients:
    """Whom to seal to.

    Attributes:
        recipients: age recipients.
        versions: (holder, version) of the lists that they are from.
    """

    recipients: tuple[str, ...]
    versions: tuple[tuple[str, int], ...]


class KeyDirectory:
    """Keeps lists of keys for as long as the server does not call them old.

    Args:
        fetch: see ``Fetch``.
        certify: see ``dsse.Certify``.
        clock: the time.
        seen: highest version of each holder's list that was ever seen; one that outlives the process, or of this
            directory only.
    """

    def __init__(
        self, fetch: Fetch, certify: Certify, clock: Clock, seen: MutableMapping[str, int] | None = None
    ) -> None:
        self._fetch = fetch
        self._certify = certify
        self._clock = clock
        self._known: dict[str, dict[str, VerifiedKeys]] = {}
        self._seen = {} if seen is None else seen

    def forget(self) -> None:
        """Fetch again at the next use: the server said KEYS_STALE. Versions that were seen stay the least accepted."""
        self._known.clear()

    async def of(self, collaboration: str, organization: str, node: str = "") -> Recipients:
        """Keys of the nodes that may get a run: see ``of_all``."""
        return (await self.of_all(collaboration, [(organization, node)]))[0]

    async def of_all(self, collaboration: str, wanted: Sequence[tuple[str, str]]) -> list[Recipients]:
        """Keys of the nodes that may get a run: all of an organization that serve the collaboration, or one.

        Args:
            collaboration: in which is asked.
            wanted: organization and node, or "" for any of its nodes; the server is asked at most once for all.

        Raises:
            RefusedError: KEYS_INVALID or KEYS_STALE: none is published, or a list is not to be believed.
            PermissionDeniedError: CERTIFICATE_UNTRUSTED: nobody whom the owner trusts vouches for a node.
        """
        known = self._known.setdefault(collaboration, {})
        now = self._clock.now()
        missing = list(dict.fromkeys(each[0] for each in wanted if not _current(_of(known, *each), now)))
        if missing:
            prefixes = tuple(f"{organization}/nodes/" for organization in missing)
            for holder in [each for each in known if each.startswith(prefixes)]:
                del known[holder]  # expired, or of a node that may not serve the collaboration any more
            for holder, envelope in await self._fetch(collaboration, missing):
                if not holder.startswith(prefixes):
                    continue  # not asked for: whoever it is, nothing is sealed to them
                keys = verify_keys(envelope, self._certify, holder, now, seen_version=self._seen.get(holder, 0))
                self._seen[holder] = keys.version
                known[holder] = keys
        return [_recipients(_of(known, *each), collaboration, *each) for each in wanted]


def _current(found: Sequence[VerifiedKeys], now: datetime) -> bool:
    return bool(found) and all(each.expires > now for each in found)


def _recipients(found: Sequence[VerifiedKeys], collaboration: str, organization: str, node: str) -> Recipients:
    if not found:
        whose = node or f"{organization} for {collaboration}"
        raise error(
            Reason.KEYS_INVALID,
            f"no node of {whose} has published keys to seal arguments to: ask its admin to start the node once",
            organization=organization,
        )
    return Recipients(
        tuple(dict.fromkeys(each for keys in found for each in keys.recipients[:1])),
        tuple((keys.holder, keys.version) for keys in found),
    )


def _of(known: dict[str, VerifiedKeys], organization: str, node: str) -> list[VerifiedKeys]:
    if node:
        return [known[node]] if node in known else []
    return [keys for holder, keys in sorted(known.items()) if holder.startswith(f"{organization}/nodes/")]
