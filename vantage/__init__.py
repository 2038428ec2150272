"""vantage: federated analysis over gRPC."""

__version__ = "0.1.0"
