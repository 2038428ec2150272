"""A real OCI registry for tests: Debian's docker-registry in a process of its own."""

from __future__ import annotations

import ctypes
import json
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTimeError
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import IO, Any, Self

from vantage.common.errors import ConfigurationError, Reason
from vantage.testing.private_ca import TlsFiles, create_tls

PATIENCE = 30.0
"""Seconds until a registry that does not come up, or does not go, is given up."""

_LISTENING = re.compile(r"listening on (127\.0\.0\.1:\d+)")


@dataclass(frozen=True)
class TokenTrust:
    """Whose bearer tokens a registry takes (Docker registry token protocol).

    Attributes:
        certificate: file with the certificate under which tokens are signed.
        issuer: who they must name as their issuer.
        service: name of the registry, for which they must be meant.
        realm: where the registry sends those who have none.
    """

    certificate: Path
    issuer: str
    service: str
    realm: str


class Registry:
    """A registry on a loopback port that the system picks; its files lie below ``directory``.

    Docker takes registries on 127.0.0.0/8 without TLS. A context manager; ``start`` after ``stop`` brings the same
    registry back with its content and address.

    Args:
        directory: holds configuration, log (``registry.log``) and content (``storage``); the caller removes it.
        htpasswd: passwords by user name; without it everybody may push and pull.
        tls: whether it speaks TLS, with a certificate of a private authority of its own (``ca``).
        tokens: whose tokens it trusts, in place of passwords.
    """

    def __init__(
        self,
        directory: Path,
        htpasswd: Mapping[str, str] | None = None,
        *,
        tls: bool = False,
        tokens: TokenTrust | None = None,
    ) -> None:
        self.directory = directory
        self.storage = directory / "storage"
        self.log = directory / "registry.log"
        self._passwords = dict(htpasswd or {})
        self._tls = tls
        self._tokens = tokens
        self._address: str | None = None
        self._process: subprocess.Popen[str] | None = None
        self._reader: Thread | None = None

    @property
    def address(self) -> str:
        """``127.0.0.1:port``, known once it was started."""
        if self._address is None:
            raise RuntimeError("the registry has not been started")
        return self._address

    @property
    def url(self) -> str:
        """Its address on the web."""
        return f"{'https' if self._tls else 'http'}://{self.address}"

    @property
    def ca(self) -> Path | None:
        """Authority of its certificate; None without TLS."""
        return self.directory / "ca.pem" if self._tls else None

    def start(self) -> None:
        """Return once the registry listens; nothing happens when it already does."""
        if self._process is not None:
            return
        program = shutil.which("docker-registry")
        if program is None:
            raise ConfigurationError(Reason.CONFIGURATION_INVALID, "docker-registry is missing: run scripts/setup")
        self.storage.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [program, "serve", str(self._write_configuration())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
        )
        listening: Future[str] = Future()
        self._reader = Thread(
            target=self._drain, args=(self._process.stdout, listening), name="registry log", daemon=True
        )
        self._reader.start()
        try:
            self._address = listening.result(PATIENCE)
        except NotInTimeError:
            self.stop()
            raise TimeoutError(f"the registry was not ready in {PATIENCE:.0f} s; see {self.log}") from None
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the process; its content stays. Nothing happens when it is not running."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._reader is not None:
            self._reader.join()
        if process.stdout is not None:
            process.stdout.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _write_configuration(self) -> Path:
        configuration: dict[str, Any] = {
            "version": "0.1",
            "log": {"level": "info", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(self.storage)}, "delete": {"enabled": True}},
            # Port 0: the registry says in its log which one it was given, so that nobody can take it in between.
            "http": {"addr": self._address or "127.0.0.1:0", "secret": secrets.token_hex(16)},
        }
        if self._passwords:
            users = self.directory / "htpasswd"
            users.write_text("".join(f"{name}:{_bcrypt(password)}\n" for name, password in self._passwords.items()))
            configuration["auth"] = {"htpasswd": {"realm": "vantage-test", "path": str(users)}}
        if self._tokens is not None:
            trust = self._tokens
            configuration["auth"] = {
                "token": {
                    "realm": trust.realm,
                    "service": trust.service,
                    "issuer": trust.issuer,
                    "rootcertbundle": str(trust.certificate),
                }
            }
        if self._tls:
            key = self.directory / "tls-key.pem"
            files = TlsFiles(self.directory / "ca.pem", self.directory / "tls.pem", key)
            if not key.exists():
                files = create_tls(self.directory)
            configuration["http"]["tls"] = {"certificate": str(files.certificate), "key": str(files.key)}
        path = self.directory / "registry.yml"
        path.write_text(json.dumps(configuration))  # JSON is YAML
        return path

    def _drain(self, output: IO[str], listening: Future[str]) -> None:
        """Copy the output to the log until the process ends: a full pipe would stop it."""
        with self.log.open("a") as log:
            last = ""
            for last in output:
                log.write(last)
                log.flush()
                if not listening.done() and (found := _LISTENING.search(last)):
                    listening.set_result(found[1])
        if not listening.done():
            listening.set_exception(RuntimeError(f"the registry does not start: {last.strip() or 'it said nothing'}"))


def _bcrypt(password: str) -> str:
    """The one hash that the registry accepts, from the system's libcrypt (Python's module for it is deprecated)."""
    library = ctypes.CDLL("libcrypt.so.1")
    library.crypt_gensalt.restype = library.crypt.restype = ctypes.c_char_p
    seed = secrets.token_bytes(16)
    salt = library.crypt_gensalt(b"$2b$", ctypes.c_ulong(5), seed, ctypes.c_int(len(seed)))
    hashed: bytes | None = library.crypt(password.encode(), ctypes.c_char_p(salt))
    if hashed is None:
        raise RuntimeError("libcrypt knows no bcrypt")
    return hashed.decode()
