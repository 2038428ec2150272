"""``vantage image``, put together."""

from vantage.client.cli import image_attest, image_review, image_transfer
from vantage.client.cli.images import image

__all__ = ["image", "image_attest", "image_review", "image_transfer"]
