"""Servers that a person uses, by name: ``profiles.yaml`` in the configuration directory.

The directory is ``$VANTAGE_CONFIG_DIR``, or that of the platform. Tokens lie beside it in ``tokens/NAME.json``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vantage.common.errors import Reason, VantageError, error
from vantage.common.files import replace_private

FILE = "profiles.yaml"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True)
class Profile:
    """One server, how it is recognised, and who one is there.

    Attributes:
        address: ``host:port``.
        fingerprint: of the server's certificate.
        ca: file with its certificate, or that of its authority.
        tls: False for a connection without TLS, which is for loopback only.
        username: login name; empty when it is not known yet.
    """

    address: str
    fingerprint: str | None = None
    ca: Path | None = None
    tls: bool = True
    username: str = ""


@dataclass(frozen=True)
class Profiles:
    """All of them.

    Attributes:
        current: name of the one that is used when nothing else is said; empty for none.
        profiles: by name.
    """

    current: str = ""
    profiles: Mapping[str, Profile] = field(default_factory=dict)

    def get(self, name: str | None = None) -> tuple[str, Profile]:
        """A profile with its name; the current one for None.

        Raises:
            ConfigurationError: there is none.
        """
        wanted = name or self.current
        if not wanted:
            raise _invalid("no server is known yet: run 'vantage login --server HOST:PORT', or 'vantage profile add'")
        if wanted not in self.profiles:
            known = ", ".join(sorted(self.profiles)) or "none"
            raise _invalid(f"there is no profile {wanted!r}; there are: {known}")
        return wanted, self.profiles[wanted]

    def put(self, name: str, profile: Profile) -> Profiles:
        """With a profile added or replaced; the first one becomes the current one.

        Raises:
            ConfigurationError: the name is not usable.
        """
        if _NAME.fullmatch(name) is None:
            raise _invalid(f"a profile's name has 1 to 63 letters, digits, '.', '_' and '-', got {name!r}")
        return Profiles(self.current or name, {**self.profiles, name: profile})

    def use(self, name: str) -> Profiles:
        """With another current profile.

        Raises:
            ConfigurationError: there is none of that name.
        """
        self.get(name)
        return replace(self, current=name)

    def remove(self, name: str) -> Profiles:
        """Without a profile; when it was the current one, there is none until one is chosen.

        Raises:
            ConfigurationError: there is none of that name.
        """
        self.get(name)
        rest = {key: each for key, each in self.profiles.items() if key != name}
        return Profiles("" if self.current == name else self.current, rest)


def directory() -> Path:
    """Where profiles and tokens are kept."""
    given = os.environ.get("VANTAGE_CONFIG_DIR")
    if given:
        return Path(given)
    import platformdirs

    return Path(platformdirs.user_config_dir("vantage"))


def token_path(name: str) -> Path:
    """Where the tokens of a profile are kept."""
    return directory() / "tokens" / f"{name}.json"


def keys_path(name: str) -> Path:
    """Where the keys for a profile, and the authorities that are trusted there, are kept."""
    return directory() / "keys" / name


def load() -> Profiles:
    """Read the profiles; none when there is no file.

    Raises:
        ConfigurationError: the file is not usable.
    """
    import yaml

    path = directory() / FILE
    try:
        document = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        return Profiles()
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as problem:
        raise _invalid(f"{path} cannot be read: correct or remove it: {problem}") from problem
    try:
        return _parse(document or {})
    except (TypeError, KeyError, ValueError, AttributeError):
        raise _invalid(f"{path} does not hold profiles: correct or remove it") from None


@contextmanager
def changing() -> Iterator[list[Profiles]]:
    """Read the profiles, and write what the block leaves as the only element of the list.

    Nobody else changes them meanwhile; nothing is written when the block raises.

    Raises:
        ConfigurationError: the file is not usable.
    """
    import filelock

    path = directory() / FILE
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = filelock.FileLock(path.with_suffix(".lock"), mode=0o600)
        lock.acquire()
    except OSError as problem:
        raise _invalid(f"{path} cannot be written: {problem.strerror or problem}") from problem
    try:
        box = [load()]
        yield box
        _write(path, box[0])
    except OSError as problem:
        raise _invalid(f"{path} cannot be written: {problem.strerror or problem}") from problem
    finally:
        lock.release()


def _parse(document: Any) -> Profiles:
    profiles = {}
    for name, each in (document.get("profiles") or {}).items():
        ca = each.get("ca")
        profiles[str(name)] = Profile(
            address=str(each["address"]),
            fingerprint=None if each.get("fingerprint") is None else str(each["fingerprint"]),
            ca=None if ca is None else Path(ca),
            tls=bool(each.get("tls", True)),
            username=str(each.get("username") or ""),
        )
    return Profiles(str(document.get("current") or ""), profiles)


def _write(path: Path, profiles: Profiles) -> None:
    import yaml

    document = {
        "current": profiles.current,
        "profiles": {name: _dump(each) for name, each in sorted(profiles.profiles.items())},
    }
    replace_private(path, yaml.safe_dump(document, sort_keys=False))


def _dump(profile: Profile) -> dict[str, object]:
    """What differs from the defaults."""
    document: dict[str, object] = {"address": profile.address}
    if profile.fingerprint is not None:
        document["fingerprint"] = profile.fingerprint
    if profile.ca is not None:
        document["ca"] = str(profile.ca)
    if not profile.tls:
        document["tls"] = False
    if profile.username:
        document["username"] = profile.username
    return document


def _invalid(message: str) -> VantageError:
    return error(Reason.CONFIGURATION_INVALID, message)
