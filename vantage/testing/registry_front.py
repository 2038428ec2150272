"""Stands before a real registry: adds the referrers API, which Debian's lacks, and lies when told to."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Any, Self

from vantage.common.oci import INDEX_TYPES, digest_of

Change = Callable[[str, bytes], bytes]
"""From a path and the registry's answer to what is sent in its place."""

_PASSED = ("content-type", "location", "docker-content-digest", "www-authenticate", "docker-upload-uuid", "range")


class RegistryFront:
    """A context manager; everything but the referrers API is the registry's own answer.

    Args:
        behind: address of the registry.
        referrers: whether it knows the referrers API; without, it is the registry as it is.
    """

    def __init__(self, behind: str, *, referrers: bool = True) -> None:
        self.change: Change = lambda _path, content: content
        self.referrers = referrers
        self.asked: list[str] = []
        self._referrers: dict[str, list[dict[str, Any]]] = {}
        front = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                front._answer(self, behind)

            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):  # clients go when they have what they want
                    super().handle()

            do_PUT = do_POST = do_HEAD = do_PATCH = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=lambda: self._server.serve_forever(0.02), name="registry front", daemon=True)

    @property
    def address(self) -> str:
        """``127.0.0.1:port``."""
        return f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, asked: BaseHTTPRequestHandler, behind: str) -> None:
        self.asked.append(asked.path)
        body = asked.rfile.read(int(asked.headers.get("content-length", 0)))
        if self.referrers and "/referrers/" in asked.path:
            entries = self._referrers.get(asked.path.rpartition("/")[2], [])
            index = {"schemaVersion": 2, "mediaType": INDEX_TYPES[0], "manifests": entries}
            _send(asked, 200, {"content-type": INDEX_TYPES[0]}, self.change(asked.path, json.dumps(index).encode()))
            return
        connection = http.client.HTTPConnection(behind, timeout=30)
        try:
            # The Host is kept: the registry makes links of it, which come back here.
            connection.putrequest(asked.command, asked.path, skip_host=True, skip_accept_encoding=True)
            for name, value in asked.headers.items():  # engines send some of them more than once
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        headers = {name: value for name, value in answer.headers.items() if name.lower() in _PASSED}
        if asked.command == "PUT" and "/manifests/" in asked.path and answer.status < 300 and self.referrers:
            headers |= self._note(body)
        if asked.command == "GET":
            content = self.change(asked.path, content)
        _send(asked, answer.status, headers, content)

    def _note(self, manifest: bytes) -> dict[str, str]:
        document = json.loads(manifest)
        if "subject" not in document:
            return {}
        subject: str = document["subject"]["digest"]
        kept = {name: document[name] for name in ("mediaType", "artifactType", "annotations") if name in document}
        self._referrers.setdefault(subject, []).append({**kept, "digest": digest_of(manifest), "size": len(manifest)})
        return {"OCI-Subject": subject}


def _send(asked: BaseHTTPRequestHandler, status: int, headers: dict[str, str], content: bytes) -> None:
    asked.send_response(status)
    for name, value in headers.items():
        asked.send_header(name, value)
    asked.send_header("content-length", str(len(content)))
    asked.end_headers()
    if asked.command != "HEAD":
        asked.wfile.write(content)
