"""What may be asked."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from vantage.common.errors import Reason, VantageError
from vantage.server.domain.membership import Standing
from vantage.server.domain.tasks import Target, TaskSpec, check_members, deadline_of, validate_spec

TARGET = Target("organizations/alpha", "", None, (("data", "lungs"),))
SPEC = TaskSpec(
    "collaborations/lungs",
    "Ages",
    "127.0.0.1:5000/examples/summary@sha256:" + "ab" * 32,
    "summary",
    (TARGET,),
    timedelta(0),
    "",
    b"",
)


def test_a_good_one_passes() -> None:
    validate_spec(SPEC)
    validate_spec(replace(SPEC, timeout=timedelta(days=30)))
    validate_spec(replace(SPEC, targets=(replace(TARGET, node="organizations/alpha/nodes/one"),)))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"collaboration": "lungs"}, Reason.INVALID_ARGUMENT),
        ({"title": "x" * 201}, Reason.INVALID_ARGUMENT),
        ({"title": "two\nlines"}, Reason.INVALID_ARGUMENT),
        ({"image": "registry/summary:1.0"}, Reason.IMAGE_NOT_BY_DIGEST),
        ({"image": "registry/summary@sha256:abc"}, Reason.IMAGE_NOT_BY_DIGEST),
        ({"image": "registry/summary:1.0@sha256:" + "ab" * 32}, Reason.IMAGE_NOT_BY_DIGEST),
        ({"function": "rm -rf"}, Reason.INVALID_ARGUMENT),
        ({"timeout": timedelta(days=30, seconds=1)}, Reason.INVALID_ARGUMENT),
        ({"timeout": -timedelta(seconds=1)}, Reason.INVALID_ARGUMENT),
        ({"targets": ()}, Reason.INVALID_ARGUMENT),
        ({"targets": (TARGET, TARGET)}, Reason.INVALID_ARGUMENT),
        ({"targets": (replace(TARGET, node="organizations/beta/nodes/one"),)}, Reason.INVALID_ARGUMENT),
        ({"targets": (replace(TARGET, datasets=(("a", "x"), ("a", "y"))),)}, Reason.INVALID_ARGUMENT),
        ({"targets": (replace(TARGET, datasets=(("a", "../x"),)),)}, Reason.INVALID_ARGUMENT),
        ({"parent_run": "tasks/t/runs/r"}, Reason.INVALID_ARGUMENT),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], reason: Reason) -> None:
    with pytest.raises(VantageError) as caught:
        validate_spec(replace(SPEC, **change))
    assert caught.value.reason is reason


def test_everybody_is_a_member() -> None:
    alpha, beta = "organizations/alpha", "organizations/beta"
    check_members({alpha: Standing.ACTIVE}, SPEC, None)
    for members, asking, reason in (
        ({beta: Standing.ACTIVE}, None, Reason.ORGANIZATION_NOT_MEMBER),
        ({alpha: Standing.ACTIVE}, "o/x", Reason.ORGANIZATION_NOT_MEMBER),
        ({alpha: Standing.SUSPENDED}, None, Reason.MEMBERSHIP_SUSPENDED),
        ({alpha: Standing.ACTIVE, beta: Standing.SUSPENDED}, beta, Reason.MEMBERSHIP_SUSPENDED),
    ):
        with pytest.raises(VantageError) as caught:
            check_members(members, SPEC, asking)
        assert caught.value.reason is reason


def test_a_subtask_ends_with_its_parent() -> None:
    now = datetime(2026, 11, 1, tzinfo=UTC)
    assert deadline_of(SPEC, now, None) == now + timedelta(hours=1)
    parent = now + timedelta(minutes=1)
    assert deadline_of(SPEC, now, parent) == parent
