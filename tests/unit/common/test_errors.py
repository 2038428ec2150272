from __future__ import annotations

import grpc
import pytest

from vantage.common.errors import ROWS, InternalError, Reason, VantageError, error, from_wire
from vantage.common.rpc import normalize_fingerprint, split_target, status_of


def test_every_reason_has_a_row_and_a_status_that_exists() -> None:
    assert set(ROWS) == set(Reason)
    assert {row.status for row in ROWS.values()} <= {code.name for code in grpc.StatusCode}


@pytest.mark.parametrize("reason", list(Reason))
def test_a_reason_comes_back_as_the_same_class(reason: Reason) -> None:
    sent = error(reason, "what happened and what to do", key="value")
    received = from_wire(reason.name, sent.message, sent.metadata)
    assert type(received) is type(sent)
    assert (received.reason, received.message, received.metadata) == (reason, sent.message, {"key": "value"})


def test_a_reason_from_the_future_is_kept_as_text() -> None:
    received = from_wire("SOMETHING_NEW", "text", {})
    assert isinstance(received, InternalError)
    assert "SOMETHING_NEW" in received.message


def test_retry_info_travels() -> None:
    status = status_of(error(Reason.LOCKED_OUT, "wait", retry_after_seconds="2.5"))
    assert [detail.TypeName() for detail in status.details] == ["google.rpc.ErrorInfo", "google.rpc.RetryInfo"]


@pytest.mark.parametrize("text", ["", "host", "host:", "host:x", "host:0", "host:70000", ":1"])
def test_bad_targets(text: str) -> None:
    with pytest.raises(VantageError):
        split_target(text)


def test_targets() -> None:
    assert split_target("localhost:7700") == ("localhost", 7700)
    assert split_target("[::1]:7700") == ("::1", 7700)


def test_fingerprints() -> None:
    digits = "ab" * 32
    assert normalize_fingerprint("SHA256:" + ":".join(["AB"] * 32)) == f"sha256:{digits}"
    with pytest.raises(VantageError):
        normalize_fingerprint("sha256:abc")
