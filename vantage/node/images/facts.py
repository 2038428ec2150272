"""What is known about an image once its evidence was examined: true for ever, whatever the policy says of it today."""

from __future__ import annotations

from dataclasses import dataclass

from vantage.common.declaration import Declaration
from vantage.common.oci import ImageReference


@dataclass(frozen=True)
class Proven:
    """A statement about the image under the signature of a key of the policy.

    Attributes:
        fingerprint: of the key.
        predicate: predicate type of the statement.
        repositories: names under which the signer knew the image; empty when they wrote none.
    """

    fingerprint: str
    predicate: str
    repositories: frozenset[str]


@dataclass(frozen=True)
class ImageFacts:
    """What an image is and who has signed what about it; only ``examine`` builds it.

    Attributes:
        reference: by digest.
        image_id: digest of its config, by which the container is created.
        declaration: what it says of itself.
        proven: statements about it by keys of the policy.
        signatures: how many signatures about it there are, also by others.
        foreign: how many statements lie with it that are about other images, or malformed.
    """

    reference: ImageReference
    image_id: str
    declaration: Declaration
    proven: frozenset[Proven]
    signatures: int
    foreign: int
