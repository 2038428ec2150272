"""The rules of permissions: more never means less, narrower never means wider, nobody reaches more by giving."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Column, Engine, MetaData, String, Table, create_engine, insert, select

from vantage.server.domain.membership import may_answer
from vantage.server.domain.permissions import (
    Operation,
    Owner,
    Permission,
    Reach,
    Resource,
    Scope,
    decide,
    may_grant,
    reach,
    rights_of,
)
from vantage.server.domain.principals import UserPrincipal
from vantage.server.domain.roles import BUILTIN, ROLES, Role
from vantage.server.services.roles import visible
from vantage.server.storage.reach_filter import in_reach

ORGANIZATIONS = (None, "organizations/alpha", "organizations/beta")
COLLABORATIONS = ("collaborations/one", "collaborations/two")
MEMBERSHIPS = {
    None: frozenset[str](),
    "organizations/alpha": frozenset({"collaborations/one"}),
    "organizations/beta": frozenset({"collaborations/one", "collaborations/two"}),
}
NAMES = ("users/ann", "users/bob", "users/cid")

THING = Table("thing", MetaData(), *(Column(each, String) for each in ("organization", "collaboration", "creator")))

permissions = st.frozensets(
    st.builds(
        Permission,
        st.sampled_from([Resource.USER, Resource.TASK, Resource.ROLE]),
        st.sampled_from([Operation.VIEW, Operation.CREATE, Operation.EDIT]),
        st.sampled_from(Scope),
    ),
    max_size=6,
)
owners = st.builds(
    Owner,
    st.sampled_from(ORGANIZATIONS),
    st.frozensets(st.sampled_from(COLLABORATIONS)),
    st.sampled_from((None, *NAMES)),
)
targets = st.tuples(st.sampled_from(Resource), st.sampled_from(Operation), owners)
OWNERS = [
    Owner(organization, frozenset(collaborations), creator)
    for organization, collaborations, creator in product(
        ORGANIZATIONS, ((), COLLABORATIONS[:1], COLLABORATIONS[1:], COLLABORATIONS), (None, *NAMES)
    )
]


def like(held: frozenset[Permission]) -> st.SearchStrategy[frozenset[Permission]]:
    """Permissions for the same as those that are held, in any scope: of others few could be given."""
    some = [replace(each, scope=scope) for each in sorted(held, key=str) for scope in Scope]
    return st.frozensets(st.sampled_from(some), max_size=3) if some else st.just(frozenset())


grants = permissions.flatmap(lambda held: st.tuples(st.just(held), like(held)))
"""What somebody holds, and what they would like to give."""


def somebody(held: frozenset[Permission], organization: str | None, name: str = NAMES[0]) -> UserPrincipal:
    return UserPrincipal(name, organization, frozenset(), "session", MEMBERSHIPS[organization], rights_of(held))


@given(permissions, permissions, st.sampled_from(ORGANIZATIONS), targets)
def test_more_permissions_never_take_access_away(
    held: frozenset[Permission],
    more: frozenset[Permission],
    organization: str | None,
    target: tuple[Resource, Operation, Owner],
) -> None:
    if decide(somebody(held, organization), *target).allowed:
        assert decide(somebody(held | more, organization), *target).allowed


@given(permissions, st.sampled_from(ORGANIZATIONS), targets, st.data())
def test_a_narrower_scope_never_gives_more(
    held: frozenset[Permission],
    organization: str | None,
    target: tuple[Resource, Operation, Owner],
    data: st.DataObject,
) -> None:
    narrower = frozenset(replace(each, scope=Scope(data.draw(st.integers(1, each.scope)))) for each in held)
    if decide(somebody(narrower, organization), *target).allowed:
        assert decide(somebody(held, organization), *target).allowed


def reaches_no_more(giver: UserPrincipal, taker: UserPrincipal, given_: frozenset[Permission]) -> None:
    """Whatever the taker reaches, the giver reaches: but for what the taker makes, which is theirs alone."""
    for each, owner in product(given_, OWNERS):
        if owner.creator != taker.name and decide(taker, each.resource, each.operation, owner).allowed:
            assert decide(giver, each.resource, each.operation, owner).allowed


@given(grants, st.sampled_from(ORGANIZATIONS), st.sampled_from(ORGANIZATIONS))
def test_nobody_reaches_more_through_whom_they_make(
    grant: tuple[frozenset[Permission], frozenset[Permission]], organization: str | None, home: str | None
) -> None:
    held, given_ = grant
    maker = somebody(held, organization)
    if may_grant(maker, given_, home).allowed:
        reaches_no_more(maker, somebody(given_, home, NAMES[1]), given_)


@given(grants, st.sampled_from(ORGANIZATIONS), st.sampled_from(ORGANIZATIONS))
def test_a_role_for_anywhere_is_within_reach_everywhere(
    grant: tuple[frozenset[Permission], frozenset[Permission]], organization: str | None, home: str | None
) -> None:
    """A role of the server may end up with anybody: its maker reaches whatever any holder of it reaches."""
    held, role = grant
    maker = somebody(held, organization)
    if may_grant(maker, role, None, anywhere=True).allowed:
        reaches_no_more(maker, somebody(role, home, NAMES[1]), role)


@given(grants, st.data(), st.sampled_from(ORGANIZATIONS), st.sampled_from(ORGANIZATIONS))
def test_giving_in_two_steps_gives_no_more(
    grant: tuple[frozenset[Permission], frozenset[Permission]],
    data: st.DataObject,
    organization: str | None,
    home: str | None,
) -> None:
    held, between = grant
    last = data.draw(like(between))
    first = somebody(held, organization)
    if may_grant(first, between, home).allowed and may_grant(somebody(between, home, NAMES[1]), last, home).allowed:
        assert may_grant(first, last, home).allowed


@pytest.fixture(scope="module")
def engine() -> Engine:
    """A table with a row per owner of one collaboration."""
    made = create_engine("sqlite://")
    THING.metadata.create_all(made)
    with made.begin() as connection:
        for organization, collaboration, creator in product(ORGANIZATIONS, COLLABORATIONS, (None, *NAMES)):
            connection.execute(
                insert(THING).values(organization=organization, collaboration=collaboration, creator=creator)
            )
    return made


@given(held=permissions, organization=st.sampled_from(ORGANIZATIONS))
def test_lists_show_what_single_reads_show(
    engine: Engine, held: frozenset[Permission], organization: str | None
) -> None:
    reached = reach(somebody(held, organization), Resource.TASK, Operation.VIEW)
    columns = THING.c
    condition = in_reach(
        reached, organization=columns.organization, collaboration=columns.collaboration, creator=columns.creator
    )
    with engine.connect() as connection:
        shown = {tuple(row) for row in connection.execute(select(THING).where(condition))}
        rows = {tuple(row) for row in connection.execute(select(THING))}
    assert shown == {row for row in rows if reached.covers(Owner(row[0], frozenset({row[1]}), row[2]))}


@given(permissions, st.sampled_from(ORGANIZATIONS), st.sampled_from(ORGANIZATIONS[1:]))
def test_only_an_organizations_own_users_speak_for_it(
    held: frozenset[Permission], organization: str | None, spoken_for: str | None
) -> None:
    assert spoken_for is not None
    if may_answer(somebody(held, organization), spoken_for, trial=False).allowed:
        assert organization == spoken_for
    root = somebody(ROLES["roles/root"].permissions, None)
    assert not may_answer(root, spoken_for, trial=False).allowed
    assert may_answer(root, spoken_for, trial=True).allowed


def test_a_lack_of_permission_reaches_nothing() -> None:
    assert Reach().empty
    assert not Reach().covers(Owner(None, frozenset(), None))
    role = Role("roles/custom", "", frozenset(), None, "users/ann", datetime.now(UTC))
    assert not visible(role, Reach())


def test_whoever_manages_an_organization_can_give_what_its_people_need() -> None:
    admin = somebody(ROLES["roles/organization-admin"].permissions, "organizations/alpha")
    for name in ("roles/organization-admin", "roles/researcher", "roles/viewer"):
        assert may_grant(admin, ROLES[name].permissions, "organizations/alpha").allowed
        assert not may_grant(admin, ROLES[name].permissions, "organizations/beta").allowed
    assert not may_grant(admin, ROLES["roles/root"].permissions, "organizations/alpha").allowed
    root = somebody(ROLES["roles/root"].permissions, None)
    assert all(may_grant(root, role.permissions, "organizations/beta").allowed for role in BUILTIN.values())
