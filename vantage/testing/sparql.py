"""A SPARQL endpoint on a loopback port: rdflib's engine behind the SPARQL 1.1 Protocol (queries by POST)."""

from __future__ import annotations

import base64
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs

import rdflib


class SparqlEndpoint:
    """Answers while the context lasts.

    Args:
        turtle: what it knows.
        username: who may ask; with the password.
        password: see there.

    Attributes:
        queries: what it was asked.
    """

    def __init__(self, turtle: str, username: str, password: str) -> None:
        self.queries: list[str] = []
        graph = rdflib.Graph().parse(data=turtle, format="turtle")
        expected = "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                status, answer = 401, b""
                if self.headers["Authorization"] == expected:
                    (query,) = parse_qs(body)["query"]
                    endpoint.queries.append(query)
                    status, answer = 200, graph.query(query).serialize(format="json") or b""
                self.send_response(status)
                self.send_header("Content-Type", "application/sparql-results+json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
