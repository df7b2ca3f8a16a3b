"""Roles and grants: who may do what, as values. A role on one authority gives nothing on another (I-43)."""

from __future__ import annotations

import enum

import msgspec


class Role(enum.StrEnum):
    """Roles are per authority, or per profile of it; `system-admin` is for the installation, and for people only."""

    SYSTEM_ADMIN = "system-admin"
    ADMIN = "admin"
    OFFICER = "officer"
    APPROVER = "approver"
    REQUESTER = "requester"
    AUDITOR = "auditor"


class Grant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`authority` and `profile` are None where the role holds for every one."""

    role: Role
    authority: str | None = None
    profile: str | None = None

    def covers(self, role: Role, authority: str | None, profile: str | None) -> bool:
        return self.role is role and self.authority in (None, authority) and self.profile in (None, profile)

    def within(self, other: Grant) -> bool:
        """Whether `other` gives at least as much."""
        return (
            self.role is other.role
            and other.authority in (None, self.authority)
            and other.profile in (None, self.profile)
        )
