"""The one door of a running algorithm: a gRPC server on a unix socket, one per run."""

from vantage.node.local_api.server import serve

__all__ = ["serve"]
