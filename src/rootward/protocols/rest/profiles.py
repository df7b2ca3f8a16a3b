"""`/profiles`: what may be issued, version by version. Making and changing one is decided in `ca`."""

from __future__ import annotations

import msgspec

from rootward.ca import profiles as verbs
from rootward.core.problems import Problem
from rootward.core.profile import Profile, check_profile
from rootward.core.times import rfc3339
from rootward.protocols.rest.certificate import may_see
from rootward.protocols.rest.operation import API, Answer, Call, Moment, Operation, Page
from rootward.store import profiles as rows
from rootward.store.profiles import ProfileRow


class ProfileBody(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a profile. `state` is active or retired."""

    name: str
    version: int
    authority: str
    state: str
    created_at: Moment
    created_by: str
    profile: Profile


def body(row: ProfileRow) -> ProfileBody:
    """A profile's version as the API says it."""
    return ProfileBody(
        name=row.name,
        version=row.version,
        authority=row.authority,
        state="active" if row.retired_at is None else "retired",
        created_at=rfc3339(row.created_at),
        created_by=row.created_by,
        profile=msgspec.json.decode(row.body, type=Profile),
    )


async def listed(call: Call) -> Answer:
    """A page of the last versions, by name."""
    found = await call.inst.db.read(rows.list)
    page = call.cut([row for row in found if may_see(call.principal, row.authority)], lambda row: row.name)
    return Answer(Page([body(row) for row in page.items], page.next_cursor))


async def shown(call: Call) -> Answer:
    """The last version of one profile, retired or not."""
    name = call.path["name"]
    return _visible(call, await call.inst.db.look(lambda conn: rows.latest(conn, name)))


async def version(call: Call) -> Answer:
    """One version as it was."""
    name, number = call.path["name"], int(call.path["version"])
    return _visible(call, await call.inst.db.look(lambda conn: rows.at_version(conn, name, number)))


def _visible(call: Call, row: ProfileRow | None) -> Answer:
    if row is None or not may_see(call.principal, row.authority):
        raise Problem("RW-NOT-FOUND", "There is no such profile.")
    return Answer(body(row))


async def create(call: Call) -> Answer:
    """A new profile, version 1."""
    wanted: Profile = call.body
    check_profile(wanted)
    made = await verbs.create(call.inst, wanted, call.caller)
    return Answer(body(made), 201, ((b"location", f"{API}/profiles/{made.name}".encode()),))


async def update(call: Call) -> Answer:
    """A new version of a profile; the old ones stay as they were."""
    wanted: Profile = call.body
    if wanted.name != call.path["name"]:
        raise Problem("RW-FIELD", "The profile's name is not the one of the address.", field="name")
    check_profile(wanted)
    return Answer(body(await verbs.update(call.inst, wanted, call.caller)))


async def retire(call: Call) -> Answer:
    """The profile, which issues nothing more."""
    name = call.path["name"]
    await verbs.retire(call.inst, name, call.caller)
    row = await call.inst.db.look(lambda conn: rows.latest(conn, name))
    if row is None:
        raise Problem("RW-NOT-FOUND", "There is no such profile.")
    return Answer(body(row))


_CHANGES = ("RW-FORBIDDEN", "RW-PROFILE-INVALID", "RW-CONFLICT")

OPERATIONS = (
    Operation(
        name="listProfiles",
        method="GET",
        path="/profiles",
        handler=listed,
        summary="The profiles, by name, each in its last version.",
        result=Page[ProfileBody],
        paged=True,
    ),
    Operation(
        name="createProfile",
        method="POST",
        path="/profiles",
        handler=create,
        summary="Make a profile.",
        body=Profile,
        result=ProfileBody,
        status=201,
        idempotent=True,
        problems=(*_CHANGES, "RW-NOT-FOUND"),
    ),
    Operation(
        name="getProfile",
        method="GET",
        path="/profiles/{name}",
        handler=shown,
        summary="A profile in its last version.",
        result=ProfileBody,
    ),
    Operation(
        name="updateProfile",
        method="PUT",
        path="/profiles/{name}",
        handler=update,
        summary="Make a new version of a profile.",
        body=Profile,
        result=ProfileBody,
        idempotent=True,
        problems=_CHANGES,
    ),
    Operation(
        name="retireProfile",
        method="DELETE",
        path="/profiles/{name}",
        handler=retire,
        summary="Let a profile issue nothing more. Its versions stay readable.",
        result=ProfileBody,
        idempotent=True,
        problems=_CHANGES,
    ),
    Operation(
        name="getProfileVersion",
        method="GET",
        path="/profiles/{name}/versions/{version}",
        handler=version,
        summary="A profile as it was in one version.",
        result=ProfileBody,
    ),
)
