"""A token service as registries have them (Docker registry token protocol): passwords in, bearer tokens out."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from vantage.common import pki
from vantage.testing.registry import TokenTrust

_SERVICE, _ISSUER = "test-registry", "test-tokens"


class TokenService:
    """A context manager; whoever knows a password may pull and push anything.

    Args:
        directory: for its certificate.
        passwords: by user name.

    Attributes:
        asked: the questions, with who asked.
    """

    def __init__(self, directory: Path, passwords: Mapping[str, str]) -> None:
        self.asked: list[tuple[str, dict[str, list[str]]]] = []
        self._certificate = directory / "tokens.crt"
        self._key = pki.create_key()
        self._certificate.write_text(pki.to_pem(pki.self_signed(self._key, "organizations/tokens", datetime.now(UTC))))
        known = {
            f"Basic {base64.b64encode(f'{name}:{word}'.encode()).decode()}": name for name, word in passwords.items()
        }
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = known.get(self.headers.get("authorization", ""))
                query = parse_qs(urlsplit(self.path).query)
                service.asked.append((name or "", query))
                body = b"{}" if name is None else json.dumps({"token": service._issue(name, query)}).encode()
                self.send_response(401 if name is None else 200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, name="token service", daemon=True)

    @property
    def trust(self) -> TokenTrust:
        """What a registry is told to trust its tokens."""
        realm = f"http://127.0.0.1:{self._server.server_port}/token"
        return TokenTrust(self._certificate, _ISSUER, _SERVICE, realm)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _issue(self, name: str, query: Mapping[str, list[str]]) -> str:
        scopes = [each.split(":") for each in query.get("scope", [])]
        now = datetime.now(UTC)
        claims = {
            "iss": _ISSUER,
            "sub": name,
            "aud": query["service"][0],
            "iat": now,
            "nbf": now - timedelta(seconds=5),
            "exp": now + timedelta(minutes=1),
            "jti": secrets.token_hex(8),
            "access": [{"type": kind, "name": path, "actions": actions.split(",")} for kind, path, actions in scopes],
        }
        certificate = x509.load_pem_x509_certificate(self._certificate.read_bytes())
        der = certificate.public_bytes(serialization.Encoding.DER)
        return jwt.encode(claims, self._key, "ES256", headers={"x5c": [base64.b64encode(der).decode()]})
