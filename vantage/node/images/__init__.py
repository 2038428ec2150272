"""Which images may run: signatures, policy, and that what runs is what was verified."""

from vantage.node.images.verifier import ImageVerifier, VerifiedImage

__all__ = ["ImageVerifier", "VerifiedImage"]
