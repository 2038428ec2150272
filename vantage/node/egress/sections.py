"""The egress rules in a node's configuration."""

from __future__ import annotations

from pydantic import Field, field_validator

from vantage.common.hosts import normal_host
from vantage.node.fields import Section


class EgressRule(Section):
    """A host and port that algorithms of matching images may be connected with."""

    host: str
    port: int = Field(ge=1, le=65535)
    tls_server_name: str | None = None
    images: str | None = None
    allow_private: bool = False

    @field_validator("host", "tls_server_name")
    @classmethod
    def _normal(cls, value: str | None) -> str | None:
        return None if value is None else normal_host(value)
