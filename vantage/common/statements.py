"""What is signed besides images: orders, results, lists of keys. Typed, versioned JSON; unknown fields are refused.

A statement is made of the bytes that its signer wrote; whoever reads it parses those bytes and nothing else. Every
schema
name ends in its version: a reader that does not know the version says so instead of guessing.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, ValidationError

from vantage.common.errors import Reason, error

_PREFIX = "application/vnd.vantage."


def _utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("a time must have a time zone")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("there is no such moment") from None


Time = Annotated[
    datetime,
    Field(strict=False),
    AfterValidator(_utc),
    PlainSerializer(lambda value: value.astimezone(UTC).isoformat().replace("+00:00", "Z"), when_used="json"),
]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Text = Annotated[str, Field(max_length=500)]
Recipient = Annotated[str, Field(max_length=200)]
Recipients = Annotated[tuple[Recipient, ...], Field(min_length=1, max_length=16, strict=False)]


class Part(BaseModel):
    """A part of a statement."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Statement(Part):
    """A statement. Subclasses set ``KIND`` and a ``schema_`` field with its one value."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)
    KIND: ClassVar[str]

    @classmethod
    def payload_type(cls) -> str:
        """Media type under which the statement is signed."""
        return f"{_PREFIX}{cls.KIND}+json"

    def encode(self) -> bytes:
        """The bytes to sign."""
        return self.model_dump_json(by_alias=True, exclude_none=True).encode()

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Parse signed bytes.

        Raises:
            RefusedError: ORDER_INVALID: of an unknown version, malformed, or with a field that is not known.
        """
        try:
            found: Any = json.loads(payload)
        except (ValueError, RecursionError):
            found = None
        known = cls.model_fields["schema_"].default
        if isinstance(found, dict) and found.get("schema") != known:
            raise error(
                Reason.ORDER_INVALID,
                f"a signed statement has the schema {str(found.get('schema'))[:80]!r}, this version knows {known!r}: "
                "update the older side",
            )
        try:
            return cls.model_validate_json(payload)
        except ValidationError as problem:
            where = ".".join(str(step) for step in problem.errors()[0]["loc"])[:100]
            raise error(
                Reason.ORDER_INVALID, f"a signed statement is not valid: {where}: {problem.errors()[0]['type']}"
            ) from None


class Content(Part):
    """Bytes by digest, as they are transported (sealed)."""

    digest: Digest
    size: int = Field(ge=0)
    media_type: Text


class OrderTarget(Part):
    """Whom an order asks, and for what.

    Attributes:
        node: "" for any node of the organization.
        arguments: absent for none.
        datasets: dataset of each data parameter.
    """

    organization: Text
    node: Text = ""
    arguments: Content | None = None
    datasets: dict[str, str] = Field(default_factory=dict, max_length=100)


class Delegation(Part):
    """What the runs of an order may ask others in its name.

    Attributes:
        organizations: whom they may ask.
        functions: which functions; absent for all that the image declares.
        datasets: which datasets; absent for all.
        max_tasks: how many orders below this one, all together.
        max_depth: how deep they may nest; 1: those of the runs of this order only.
    """

    organizations: tuple[Text, ...] = Field(max_length=1000, strict=False)
    functions: tuple[Text, ...] | None = Field(default=None, max_length=100, strict=False)
    datasets: tuple[Text, ...] | None = Field(default=None, max_length=100, strict=False)
    max_tasks: int = Field(ge=1, le=100_000)
    max_depth: int = Field(ge=1, le=4)


class Parent(Part):
    """The order, and the run of it, in whose name another one is given."""

    order: Digest
    run: Text


class Order(Statement):
    """A task, as the one who asks has signed it.

    Attributes:
        id: UUID, new for each order; a node takes each once.
        requester: who asks, by the name in the certificate: ``organizations/{organization}/users/{user}`` or
            ``organizations/{organization}/nodes/{node}``.
        recipients: age recipients that the results are sealed to.
        max_runtime: seconds that a run may take; absent for as long as the order is valid.
        created, expires: from when to when the order may be begun, and by when its runs end.
        delegation: absent when runs may not ask others.
        parent: for the order of a running algorithm.
    """

    KIND: ClassVar[str] = "order"

    schema_: Literal["vantage.order/1"] = Field(default="vantage.order/1", alias="schema")
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
    requester: Text
    collaboration: Text
    study: Text = ""
    image: Text
    function: Text
    targets: tuple[OrderTarget, ...] = Field(min_length=1, max_length=1000, strict=False)
    recipients: Recipients
    max_runtime: int | None = Field(default=None, ge=1)
    created: Time
    expires: Time
    delegation: Delegation | None = None
    parent: Parent | None = None


class ResultFailure(Part):
    """Why there is no result."""

    reason: Text
    message: str = Field(max_length=10_000)


class ResultStatement(Statement):
    """How a run ended, as its node has signed it.

    Attributes:
        order: digest of the order's payload.
        result: the sealed answer, for outcome "succeeded".
        failure: for the others.
    """

    KIND: ClassVar[str] = "result"

    schema_: Literal["vantage.result/1"] = Field(default="vantage.result/1", alias="schema")
    order: Digest
    run: Text
    node: Text
    outcome: Literal["succeeded", "failed", "refused"]
    result: Content | None = None
    failure: ResultFailure | None = None
    finished: Time


class KeyBundle(Statement):
    """Keys to which payloads for somebody are sealed, as the holder has signed them.

    Attributes:
        holder: name in the certificate.
        version: grows with each new bundle; readers refuse one that is older than what they have seen.
        recipients: age recipients, the preferred one first.
    """

    KIND: ClassVar[str] = "keys"

    schema_: Literal["vantage.keys/1"] = Field(default="vantage.keys/1", alias="schema")
    holder: Text
    version: int = Field(ge=1)
    recipients: Recipients
    created: Time
    expires: Time
