"""The directory (RFC 8555 7.1.1), one for each profile and one for all, with the profiles extension
(draft-ietf-acme-profiles); and fresh nonces (7.2).
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

from rootward.ca.installation import Installation
from rootward.core.profile import Profile
from rootward.protocols.acme.call import Answer, Served, Visit
from rootward.store import profiles

_KEPT = 1024


class Meta(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """About this CA. `profiles` has what each is for, by name."""

    website: str
    external_account_required: bool
    profiles: dict[str, str]
    terms_of_service: str = ""


class Directory(msgspec.Struct, frozen=True, rename="camel"):
    """The address of everything else."""

    new_nonce: str
    new_account: str
    new_order: str
    revoke_cert: str
    key_change: str
    renewal_info: str
    meta: Meta


async def directory(visit: Visit, _path: dict[str, str]) -> Answer:
    """What is where. External binding is required where nobody gets far without: no profile here is open."""
    found = [visit.served] if visit.served is not None else await offered(visit.inst)
    return Answer(
        200,
        Directory(
            new_nonce=visit.directory_url("new-nonce"),
            new_account=visit.directory_url("new-account"),
            new_order=visit.directory_url("new-order"),
            revoke_cert=visit.directory_url("revoke-cert"),
            key_change=visit.directory_url("key-change"),
            renewal_info=visit.directory_url("renewal-info"),
            meta=Meta(
                website=visit.inst.external_url,
                external_account_required=needs_binding(found),
                profiles={one.profile.name: one.profile.description or one.profile.name for one in found},
                terms_of_service=visit.settings.terms,
            ),
        ),
    )


async def new_nonce(visit: Visit, _path: dict[str, str]) -> Answer:
    """Nothing but the header that the door adds (RFC 8555 7.2)."""
    return Answer(200 if visit.method == "HEAD" else 204)


def needs_binding(found: list[Served]) -> bool:
    """Whether an account without external binding is of no use under these profiles."""
    return not any(one.profile.acme.accounts == "open" for one in found)


async def served(inst: Installation, name: str) -> Served | None:
    """The profile's current version; None where there is none or it takes no ACME accounts."""
    found = await inst.db.look(lambda conn: profiles.current(conn, name))
    return None if found is None else _taking(*found)


async def offered(inst: Installation) -> list[Served]:
    """Every profile that takes ACME accounts, by name."""
    rows = await inst.db.look(profiles.list)
    found = (_taking(row.version, row.body) for row in rows if row.retired_at is None)
    return [one for one in found if one is not None]


@lru_cache(maxsize=_KEPT)
def _taking(version: int, body: str) -> Served | None:
    profile = msgspec.json.decode(body, type=Profile)
    return None if profile.acme.accounts == "none" else Served(version, profile)
