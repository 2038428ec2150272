"""Whom payloads for organizations are sealed to: lists of keys, fetched when needed, believed by signature."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from vantage.common.attestation import VerifiedKeys, verify_keys
from vantage.common.clock import Clock
from vantage.common.dsse import Certify
from vantage.common.errors import Reason, VantageError, error
from vantage.common.sealing import MAX_RECIPIENTS

Fetch = Callable[[str, Sequence[str]], Awaitable[Iterable[tuple[str, bytes]]]]
"""Asks the server for (holder, envelope) of the nodes of organizations that serve a collaboration."""


_CHECK_AGAIN = timedelta(minutes=1)
"""How long a list that was verified is used without a look at whether its signer was revoked meanwhile."""
_SIGNER_REFUSED = frozenset({Reason.CERTIFICATE_REVOKED, Reason.CERTIFICATE_UNTRUSTED})


@dataclass(frozen=True)
class Recipients:
    """Whom to seal to.

    Attributes:
        recipients: age recipients.
        versions: (holder, version) of the lists that they are from.
    """

    recipients: tuple[str, ...]
    versions: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class _Known:
    """A list that was verified, and when."""

    keys: VerifiedKeys
    envelope: bytes
    verified: datetime


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
        self._known: dict[str, dict[str, _Known]] = {}
        self._seen = {} if seen is None else seen

    def forget(self) -> None:
        """Fetch again at the next use: the server said KEYS_STALE. Versions that were seen stay the least accepted."""
        self._known.clear()

    async def of(self, collaboration: str, organization: str, node: str = "") -> Recipients:
        """Keys of the nodes that may get a run: see ``of_all``."""
        return (await self.of_all(collaboration, [(organization, node)]))[0]

    async def of_all(self, collaboration: str, wanted: Sequence[tuple[str, str]]) -> list[Recipients]:
        """Keys of the nodes that may get a run: all of an organization that serve the collaboration, or one.

        Nothing is sealed to a node whose certificate does not count (any more); the others of its organization can be
        asked all the same.

        Args:
            collaboration: in which is asked.
            wanted: organization and node, or "" for any of its nodes; the server is asked at most once for all.

        Raises:
            RefusedError: KEYS_INVALID or KEYS_STALE: none is published, or a list is not to be believed.
            PermissionDeniedError: CERTIFICATE_UNTRUSTED, CERTIFICATE_REVOKED: nobody whom the owner trusts vouches for
                a node, and there is no other.
        """
        known = self._known.setdefault(collaboration, {})
        now = self._clock.now()
        self._check_again(known, now)
        missing = list(dict.fromkeys(each[0] for each in wanted if not _current(_of(known, *each), now)))
        refused: dict[str, VantageError] = {}
        if missing:
            prefixes = tuple(f"{organization}/nodes/" for organization in missing)
            for holder in [each for each in known if each.startswith(prefixes)]:
                del known[holder]  # expired, or of a node that may not serve the collaboration any more
            for holder, envelope in await self._fetch(collaboration, missing):
                if not holder.startswith(prefixes):
                    continue  # not asked for: whoever it is, nothing is sealed to them
                try:
                    keys = self._verify(holder, envelope, now)
                except VantageError as problem:
                    if problem.reason not in _SIGNER_REFUSED:
                        raise
                    refused[holder] = problem
                    continue
                self._seen[holder] = keys.version
                known[holder] = _Known(keys, envelope, now)
            for holder in refused:
                known.pop(holder, None)  # told twice: then neither counts
        return [_recipients(_of(known, *each), refused, collaboration, *each) for each in wanted]

    def _verify(self, holder: str, envelope: bytes, now: datetime) -> VerifiedKeys:
        return verify_keys(envelope, self._certify, holder, now, seen_version=self._seen.get(holder, 0))

    def _check_again(self, known: dict[str, _Known], now: datetime) -> None:
        """Drop lists whose signers do not count any more."""
        for holder, each in list(known.items()):
            if now - each.verified < _CHECK_AGAIN:
                continue
            try:
                self._verify(holder, each.envelope, now)
                known[holder] = replace(each, verified=now)
            except VantageError:
                del known[holder]  # what is wrong is said when it is fetched again and still so


def _current(found: Sequence[_Known], now: datetime) -> bool:
    return bool(found) and all(each.keys.expires > now for each in found)


def _recipients(
    found: Sequence[_Known], refused: Mapping[str, VantageError], collaboration: str, organization: str, node: str
) -> Recipients:
    for holder, problem in refused.items() if not found else ():
        if holder == node or (not node and holder.startswith(f"{organization}/nodes/")):
            raise problem
    if not found:
        whose = node or f"{organization} for {collaboration}"
        raise error(
            Reason.KEYS_INVALID,
            f"no node of {whose} has published keys to seal arguments to: ask its admin to start the node once",
            organization=organization,
        )
    return Recipients(
        tuple(dict.fromkeys(recipient for each in found for recipient in each.keys.recipients[:1])),
        tuple((each.keys.holder, each.keys.version) for each in found),
    )


def _of(known: Mapping[str, _Known], organization: str, node: str) -> list[_Known]:
    if node:
        return [known[node]] if node in known else []
    return [known[holder] for holder in sorted(known) if holder.startswith(f"{organization}/nodes/")]


def shared(positions: Iterable[int], recipients: Mapping[int, Recipients]) -> Iterator[tuple[list[int], list[str]]]:
    """Which of several that get the same share one sealed payload, which has a limit of recipients, and whose keys.

    Args:
        positions: of those who get it.
        recipients: whom to seal to, by position.
    """
    group: list[int] = []
    whom: dict[str, None] = {}
    for position in positions:
        more = dict.fromkeys(recipients[position].recipients)
        if group and len(whom | more) > MAX_RECIPIENTS:
            yield group, list(whom)
            group, whom = [], {}
        group.append(position)
        whom |= more
    if group:
        yield group, list(whom)
