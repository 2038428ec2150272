"""gRPC at the edges: channels, trust in a server's certificate, errors on the wire."""

from __future__ import annotations

import asyncio
import hashlib
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NoReturn

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from vantage.common.errors import DOMAIN, ROWS, Reason, VantageError, error, from_wire

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""Largest message in either direction: several inline payloads fit into one task."""

CHANNEL_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # The default of two minutes would keep a client away long after the server is back.
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
)

CLIENT_WINDOW = 8 * 1024 * 1024
"""Bytes of a stream that come to a client before it reads them: 80 MB/s at a round trip of 0.1 s."""
SERVER_WINDOW = 4 * 1024 * 1024
"""The same for a server, which has many clients."""


def fixed_window(size: int) -> tuple[tuple[str, int], ...]:
    """Options of a channel or server by which no more of a stream comes before it is read.

    Without them the library lets the window grow with what it measures of the connection: on a fast one hundreds of
    MiB of a payload wait in memory whenever the reader's disk or processor is busy for a moment.
    """
    return ("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", size)


METADATA_RETRY = "retry_after_seconds"
"""Metadata key of an error that also travels as ``google.rpc.RetryInfo``."""
_CONNECT_TIMEOUT = 10.0


@dataclass(frozen=True)
class ServerTrust:
    """How a client recognises its server.

    Attributes:
        roots: PEM certificates to trust, or None for those of the system.
        name_override: name to expect in the certificate when it differs from the address: set for a certificate that is
            pinned as a whole, where the name says nothing more.
        client: private key and certificate chain that the server is shown, PEM, where it asks for them (mutual TLS).
    """

    roots: bytes | None = None
    name_override: str | None = None
    client: tuple[bytes, bytes] | None = field(default=None, repr=False)

    @classmethod
    def system(cls) -> ServerTrust:
        """Trust the certificate authorities of the operating system."""
        return cls()

    @classmethod
    def from_pem(cls, pem: bytes | str, *, name_override: str | None = None) -> ServerTrust:
        """Trust certificates, or the authorities of certificates, in PEM."""
        return cls(pem.encode() if isinstance(pem, str) else pem, name_override)

    @classmethod
    async def from_fingerprint(cls, target: str, fingerprint: str) -> ServerTrust:
        """Fetch the server's certificate and trust it when it has this fingerprint.

        Args:
            target: ``host:port``.
            fingerprint: ``sha256:`` and 64 hexadecimal digits; colons between bytes are allowed.

        Raises:
            UnauthenticatedError: SERVER_CERTIFICATE_MISMATCH.
            UnavailableError: the server cannot be reached.
        """
        pem, actual, name = await fetch_certificate(target)
        if normalize_fingerprint(fingerprint) != actual:
            raise error(
                Reason.SERVER_CERTIFICATE_MISMATCH,
                f"the server at {target} shows the certificate {actual}, not {fingerprint}: ask its operator "
                "('vantage server fingerprint'); somebody may be in between",
                target=target,
                actual=actual,
            )
        return cls(pem, name)


def normalize_fingerprint(text: str) -> str:
    """``sha256:`` and 64 lower-case digits, from what tools print."""
    digits = text.strip().lower().removeprefix("sha256:").replace(":", "")
    if len(digits) != 64 or any(digit not in "0123456789abcdef" for digit in digits):
        raise error(Reason.INVALID_ARGUMENT, "a fingerprint is sha256: and 64 hexadecimal digits", field="fingerprint")
    return f"sha256:{digits}"


async def fetch_certificate(target: str) -> tuple[bytes, str, str | None]:
    """Ask a server for its certificate without trusting it.

    Args:
        target: ``host:port``.

    Returns:
        The certificate in PEM, its fingerprint, and its first DNS name or address, which a channel must expect.

    Raises:
        UnavailableError: the server cannot be reached, or does not speak TLS.
    """
    host, port = split_target(target)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT):
            _reader, writer = await asyncio.open_connection(host, port, ssl=context)
    except (OSError, TimeoutError) as problem:
        raise error(
            Reason.UNAVAILABLE,
            f"cannot reach a server with TLS at {target}: {str(problem) or 'time-out'}",
            target=target,
        ) from problem
    try:
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.transport.abort()
    return ssl.DER_cert_to_PEM_cert(der).encode(), f"sha256:{hashlib.sha256(der).hexdigest()}", _first_name(der)


def _first_name(der: bytes) -> str | None:
    from cryptography import x509  # here, so that an algorithm image needs no cryptography

    try:
        names = (
            x509.load_der_x509_certificate(der)
            .extensions.get_extension_for_class(x509.SubjectAlternativeName)
            .value.get_values_for_type(x509.DNSName)
        )
    except (ValueError, x509.ExtensionNotFound):
        return None
    return names[0] if names else None


def split_target(target: str) -> tuple[str, int]:
    """Split ``host:port`` (``[v6]:port``).

    Raises:
        InvalidArgumentError: when it is not of that form.
    """
    host, _, port = target.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise error(Reason.INVALID_ARGUMENT, f"the server's address must be HOST:PORT, got {target!r}", field="server")
    return host.strip("[]"), int(port)


def open_channel(
    target: str,
    trust: ServerTrust | None,
    *,
    interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
    options: Sequence[tuple[str, int | str]] = (),
) -> grpc.aio.Channel:
    """Open a channel.

    Args:
        target: ``host:port`` or ``unix:PATH``.
        trust: how to recognise the server; None for a connection without TLS.
        interceptors: see grpc.aio.
        options: channel arguments in addition to ``CHANNEL_OPTIONS``.
    """
    arguments = [*CHANNEL_OPTIONS, *fixed_window(CLIENT_WINDOW), *options]
    if trust is None:
        return grpc.aio.insecure_channel(target, options=arguments, interceptors=list(interceptors))
    if trust.name_override is not None:
        arguments.append(("grpc.ssl_target_name_override", trust.name_override))
    key, chain = trust.client or (None, None)
    credentials = grpc.ssl_channel_credentials(trust.roots, key, chain)
    return grpc.aio.secure_channel(target, credentials, options=arguments, interceptors=list(interceptors))


def bearer(token: str) -> tuple[str, str]:
    """Metadata that carries a token."""
    return ("authorization", f"Bearer {token}")


def status_of(problem: VantageError) -> status_pb2.Status:
    """The error as ``google.rpc.Status`` with ErrorInfo, and RetryInfo when it says when to come back."""
    details: list[any_pb2.Any] = [any_pb2.Any()]
    details[0].Pack(error_details_pb2.ErrorInfo(reason=problem.reason.name, domain=DOMAIN, metadata=problem.metadata))
    if METADATA_RETRY in problem.metadata:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(int(float(problem.metadata[METADATA_RETRY]) * 1000))
        details.append(any_pb2.Any())
        details[1].Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    code: int = grpc.StatusCode[ROWS[problem.reason].status].value[0]
    return status_pb2.Status(code=code, message=problem.message, details=details)


async def abort(context: grpc.aio.ServicerContext[object, object], problem: VantageError) -> NoReturn:
    """End an RPC with an error."""
    rich = rpc_status.to_status(status_of(problem))
    try:
        await context.abort(rich.code, rich.details, rich.trailing_metadata)
    except grpc.aio.AbortError as aborted:
        context.add_done_callback(partial(_let_go, aborted, problem))  # type: ignore[arg-type]  # a function will do
        raise
    raise AssertionError("abort returns never")


def _let_go(aborted: grpc.aio.AbortError, problem: VantageError, _context: object) -> None:
    """Forget the ways that errors took through a call, once it is over.

    gRPC keeps the abortion with the call, and the frames on its way hold the call; whoever hands a problem on may hold
    it in a frame on its own way. The requests in such rings would lie there until the garbage collector comes, which
    counts objects and not bytes.
    """
    aborted.__traceback__ = aborted.__context__ = problem.__traceback__ = None


def told_by_server(problem: grpc.aio.AioRpcError) -> bool:
    """Whether the error is by the server's own word, and not by what a lost connection or a proxy looks like."""
    return any(key == "grpc-status-details-bin" for key, _value in problem.trailing_metadata() or ())


_BY_CODE = {
    grpc.StatusCode.UNAVAILABLE: Reason.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: Reason.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNAUTHENTICATED: Reason.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED: Reason.PERMISSION_DENIED,
    grpc.StatusCode.INVALID_ARGUMENT: Reason.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND: Reason.NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED: Reason.UNIMPLEMENTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Reason.RATE_LIMITED,
    grpc.StatusCode.CANCELLED: Reason.CANCELLED,
    grpc.StatusCode.OUT_OF_RANGE: Reason.OUT_OF_RANGE,
}


_PROXY = re.compile(r"Received http2 header with status: (\d+)")
"""How gRPC tells of an answer that is not gRPC."""
_PROXY_MEANS_IT = ("413",)
"""Too large for the proxy: to send it again is of no use."""


def error_from_rpc(problem: grpc.aio.AioRpcError) -> VantageError:
    """The same error that the other side raised; by status code alone when something in between ended the call."""
    try:
        status = rpc_status.from_call(problem)
    except ValueError:  # a proxy's own status that contradicts its details
        status = None
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Is(info.DESCRIPTOR) and detail.Unpack(info) and info.domain == DOMAIN:
            return from_wire(info.reason, status.message, dict(info.metadata))
    reason = _BY_CODE.get(problem.code(), Reason.INTERNAL)
    text = problem.details() or problem.code().name
    if (answer := _PROXY.match(text)) is not None and answer[1] not in _PROXY_MEANS_IT:
        # It says nothing about the caller: the server behind it has not been asked.
        return error(
            Reason.UNAVAILABLE,
            f"something between here and the server answered in its place, with HTTP status {answer[1]}: look at the "
            "proxy's configuration if that does not pass",
        )
    if reason is Reason.UNAVAILABLE:
        text = f"the server cannot be reached: {text}"
    return error(reason, text)
