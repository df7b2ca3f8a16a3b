"""The tables. One SQL for SQLite and PostgreSQL; what differs (search, identity columns) is in the migrations.

Times are whole Unix seconds in the database and aware UTC in Python (`Moment`). Facts are columns that are NULL until
they happen; every state (active, held, orphan, waiting …) is derived from them. Rows of `events` are never changed but
for their leaf and its hash.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, LargeBinary, Table, Text, UniqueConstraint

from rootward.store import schema_acme
from rootward.store.columns import Moment, Serial64, key, metadata

__all__ = [
    "Moment",
    "Serial64",
    "authorities",
    "blocked_keys",
    "ceremonies",
    "certificates",
    "crl_numbers",
    "crls",
    "cross_certificates",
    "events",
    "facts",
    "grants",
    "heads",
    "idempotency",
    "issuers",
    "jobs",
    "metadata",
    "offline_requests",
    "principals",
    "profiles",
    "proposals",
    "requests",
    "schema_acme",
    "tokens",
    "watermark",
]

facts = Table(
    "facts",
    metadata,
    # Things that are true once and for all of this installation: its id, the second person, the last clock reading.
    Column("name", Text, primary_key=True),
    Column("at", Moment, nullable=False),
    Column("data", Text, nullable=False, server_default=""),
)

authorities = Table(
    "authorities",
    metadata,
    Column("name", Text, primary_key=True),
    Column("kind", Text, nullable=False),  # root | policy | issuing
    Column("parent", Text, ForeignKey("authorities.name")),
    Column("settings", Text, nullable=False),  # JSON: lifetimes of CRL and OCSP, the key's backend
    Column("created_at", Moment, nullable=False),
    Column("frozen_at", Moment),
    Column("retired_at", Moment),
    # One authority has one key for good; a new key is a new authority. Until it is certified it is these facts only.
    Column("spec", Text),  # JSON: core.hierarchy.AuthoritySpec
    Column("backend", Text),  # the store of its key; NULL: offline
    Column("key_id", Text),  # SHA-256 of the SPKI, hex, once there is a key
    Column("csr", LargeBinary),  # DER: what its parent is asked for
    Column("requested_at", Moment),
    Column("successor", Text),  # authorities.name of what takes its place
    Column("compromised_at", Moment),
    Column("waves_until", Moment),  # by when all its certificates are told to be renewed
    Column("destroyed_at", Moment),  # its key is no more
)

# One row for each CA certificate that we hold; `n` is what certificates, CRLs and answers are filed under with its
# key (I-23).
issuers = Table(
    "issuers",
    metadata,
    key(),
    Column("authority", Text, ForeignKey("authorities.name"), nullable=False),
    Column("key_id", Text, nullable=False, unique=True),  # SHA-256 of the SPKI, hex
    Column("certificate", LargeBinary, nullable=False),  # DER
    Column("backend", Text),  # of keys.BACKENDS; NULL: its key is offline
    Column("created_at", Moment, nullable=False),
)

# CA certificates of an authority's key that another CA signed: further chains for those who trust that one.
cross_certificates = Table(
    "cross_certificates",
    metadata,
    key(),
    Column("authority", Text, ForeignKey("authorities.name"), nullable=False),
    Column("chain", LargeBinary, nullable=False),  # PEM: the cross-signed certificate first, then what is above it
    Column("sha256", Text, nullable=False, unique=True),  # of the first one's DER, hex
    Column("created_at", Moment, nullable=False),
    Column("removed_at", Moment),
)

# What two people must agree to and is no certificate: proposed by one, carried out when another one agrees.
proposals = Table(
    "proposals",
    metadata,
    key(),
    Column("id", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),  # such as ca.compromise
    Column("authority", Text, nullable=False),
    Column("body", Text, nullable=False),  # JSON: what is done, whole
    Column("digest", Text, nullable=False),  # SHA-256 of kind, authority and body, hex: what is agreed to
    Column("proposed_by", Text, nullable=False),
    Column("proposed_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
    Column("approved_by", Text),
    Column("approved_at", Moment),
    Column("denied_by", Text),
    Column("denied_at", Moment),
    Column("comment", Text),
    Column("done_at", Moment),
    Column("failure", Text),  # why what was agreed to could not be done
    Column("closed_at", Moment),  # denied, done, failed or expired: the same may be proposed anew
)
_undecided = proposals.c.closed_at.is_(None)
Index("proposals_open", proposals.c.digest, unique=True, sqlite_where=_undecided, postgresql_where=_undecided)

# Ceremonies whose results were taken in.
ceremonies = Table(
    "ceremonies",
    metadata,
    key(),
    Column("id", Text, nullable=False, unique=True),
    Column("script_sha256", Text, nullable=False),
    Column("transcript_sha256", Text, nullable=False, unique=True),
    Column("title", Text, nullable=False),
    Column("lab", Integer, nullable=False),  # 1: nobody watched
    Column("held_at", Moment, nullable=False),
    Column("imported_at", Moment, nullable=False),
    Column("imported_by", Text, nullable=False),
    Column("result", LargeBinary, nullable=False),  # the file, whole: transcript and signatures in it
)

# What offline authorities are asked to sign: files that travel to a ceremony (core/paperwork.py).
offline_requests = Table(
    "offline_requests",
    metadata,
    key(),
    Column("id", Text, nullable=False, unique=True),
    Column("authority", Text, nullable=False),  # whose key is to sign
    Column("kind", Text, nullable=False),  # of core.paperwork.Wanted
    Column("subject", Text, nullable=False),  # what it is about: the authority to be certified, or whose CRL
    Column("body", LargeBinary, nullable=False),  # the file, whole
    Column("made_by", Text, nullable=False),
    Column("made_at", Moment, nullable=False),
    Column("answered_at", Moment),
    Column("ceremony", Text),  # ceremonies.id
    Column("withdrawn_at", Moment),  # another one took its place
)

profiles = Table(
    "profiles",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("authority", Text, nullable=False),
    Column("body", Text, nullable=False),  # core.profile.Profile as JSON
    Column("created_at", Moment, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("retired_at", Moment),  # on the last version: the profile issues no more
)

# A certificate is one row from its intent on: `tbs` first, `signature` when it was made; the DER is the two together.
certificates = Table(
    "certificates",
    metadata,
    key(),
    Column("id", Text, nullable=False, unique=True),
    Column("issuer", Serial64, nullable=False),  # issuers.n; negative for certificates of others
    Column("serial", LargeBinary, nullable=False),  # DER content octets
    Column("source", Text, nullable=False),  # issued | imported | discovered
    Column("authority", Text),
    Column("profile", Text),
    Column("profile_version", Integer),
    Column("tbs", LargeBinary, nullable=False),  # exact bytes; the whole DER for certificates of others
    Column("algorithm", LargeBinary, nullable=False),  # AlgorithmIdentifier, DER
    Column("signature", LargeBinary),
    Column("sha256", Text),  # of the DER, hex; known once it is signed
    Column("key_id", Text, nullable=False),  # SHA-256 of the SPKI, hex
    Column("subject", Text, nullable=False),  # RFC 4514
    Column("names", Text, nullable=False),  # JSON array of "dns:…"
    Column("not_before", Moment, nullable=False),
    Column("not_after", Moment, nullable=False),
    Column("owner", Text),
    Column("labels", Text, nullable=False, server_default="{}"),
    Column("requester", Text, nullable=False),  # principals.id, or "system:…"
    Column("request_id", Text, nullable=False),
    Column("replaces", Text),  # certificates.id
    Column("retry_of", Text),  # certificates.id of an orphan or a failure
    Column("lease", Text, nullable=False),  # the process that holds the intent
    Column("lease_until", Moment),  # on PostgreSQL, by the database's clock
    Column("intended_at", Moment, nullable=False),
    Column("issued_at", Moment),
    Column("failed_at", Moment),
    Column("orphaned_at", Moment),
    Column("revoked_at", Moment),
    Column("reason", Text),  # RFC 5280 name, where revoked_at is set; certificateHold is a hold
    Column("indexed_at", Moment),  # when the search job took it in
    UniqueConstraint("serial", "issuer", name="certificates_serial_issuer"),
)
_c = certificates.c
Index("certificates_key_id", _c.key_id, _c.requester)
Index("certificates_not_after", _c.not_after, _c.n)
Index("certificates_owner", _c.owner, _c.n)
Index("certificates_owner_expiry", _c.owner, _c.not_after, _c.n)
Index("certificates_authority", _c.authority, _c.n)
Index("certificates_profile", _c.profile, _c.n)
Index("certificates_source", _c.source, _c.n)
_renewal = _c.replaces.is_not(None)
Index("certificates_replaces", _c.replaces, sqlite_where=_renewal, postgresql_where=_renewal)
_open = _c.issued_at.is_(None) & _c.failed_at.is_(None) & _c.orphaned_at.is_(None)
Index("certificates_open", _c.n, sqlite_where=_open, postgresql_where=_open)
_revoked = _c.revoked_at.is_not(None)
_listed = (_c.issuer, _c.revoked_at, _c.n, _c.serial, _c.reason, _c.not_after)
Index("certificates_listed", *_listed, sqlite_where=_revoked, postgresql_where=_revoked)
Index("certificates_revoked_expiry", _c.not_after, _c.n, sqlite_where=_revoked, postgresql_where=_revoked)
Index("certificates_revoked_owner", _c.owner, _c.n, sqlite_where=_revoked, postgresql_where=_revoked)
Index("certificates_reason", _c.reason, _c.n, sqlite_where=_revoked, postgresql_where=_revoked)
_orphan = _c.orphaned_at.is_not(None)
Index("certificates_orphan", _c.n, sqlite_where=_orphan, postgresql_where=_orphan)
_unindexed = _c.indexed_at.is_(None)
Index("certificates_unindexed", _c.n, sqlite_where=_unindexed, postgresql_where=_unindexed)

events = Table(
    "events",
    metadata,
    key(),
    Column("at", Moment, nullable=False),
    Column("kind", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("authority", Text),
    Column("certificate", Text),  # certificates.id
    Column("request_id", Text, nullable=False),
    Column("data", Text, nullable=False),  # JSON
    Column("leaf", Serial64, unique=True),  # place in the audit tree; NULL until the sequencer took it
    Column("leaf_hash", LargeBinary),  # RFC 6962 hash of the leaf, with `leaf`
)
Index("events_certificate", events.c.certificate, events.c.n)
_unsequenced = events.c.leaf.is_(None)
Index("events_unsequenced", events.c.n, sqlite_where=_unsequenced, postgresql_where=_unsequenced)

# Heads of the audit tree, one for each time the sequencer took events in; the newest is the tree's state. No nodes are
# kept: the frontier is what the next leaves are added to.
heads = Table(
    "heads",
    metadata,
    Column("size", Serial64, primary_key=True, autoincrement=False),
    Column("root", LargeBinary, nullable=False),  # RFC 6962 2.1
    Column("frontier", LargeBinary, nullable=False),  # hashes of the full subtrees, the largest first, 32 octets each
    Column("at", Moment, nullable=False),  # of its last event
    Column("was", Serial64),  # the head before it; each has one successor
    Column("note", Text),  # the head as a signed note (C2SP); NULL until it was signed
)
Index("heads_was", heads.c.was, unique=True)

# Asks that wait for a person.
requests = Table(
    "requests",
    metadata,
    key(),
    Column("id", Text, nullable=False, unique=True),
    Column("principal", Text, nullable=False),
    Column("authority", Text, nullable=False),
    Column("profile", Text, nullable=False),
    Column("profile_version", Integer, nullable=False),
    Column("names", Text, nullable=False),
    Column("binds", Text, nullable=False),  # plan | names
    Column("binding", Text, nullable=False),  # hash of what an approval is bound to
    Column("plan", Text, nullable=False),  # the plan's canonical hash
    Column("summary", Text, nullable=False),  # JSON: what the approver sees
    Column("ask", Text, nullable=False),  # JSON
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
    Column("approved_at", Moment),
    Column("approved_by", Text),
    Column("denied_at", Moment),
    Column("denied_by", Text),
    Column("comment", Text),
    Column("used_at", Moment),  # the approval went into a certificate's intent
    Column("certificate", Text),
    Column("asked_by", Text),  # principals.id of the person who asked for it in `principal`'s place, before any order
    Column("failed_at", Moment),
    Column("reasons", Text),  # JSON, where it failed or was denied
    Column("closed_at", Moment),  # denied, used or expired: the same may be asked for anew
)
_waiting = requests.c.closed_at.is_(None)
Index("requests_binding", requests.c.binding, unique=True, sqlite_where=_waiting, postgresql_where=_waiting)

principals = Table(
    "principals",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),  # person, later workload, account, device
    Column("name", Text, nullable=False, unique=True),
    Column("created_at", Moment, nullable=False),
    Column("disabled_at", Moment),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("principal", Text, ForeignKey("principals.id"), nullable=False),
    Column("label", Text, nullable=False),
    Column("hash", LargeBinary, nullable=False, unique=True),  # SHA-256 of a 256-bit random value
    Column("scopes", Text, nullable=False),  # JSON: grants that it is cut down to; "*" for all of its person's
    Column("made_by", Text),  # another person's id, where it is an invitation; NULL: its person's own
    Column("parent", Text),  # tokens.id of the token that it was made with
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
    Column("revoked_at", Moment),
)

grants = Table(
    "grants",
    metadata,
    Column("id", Text, primary_key=True),
    Column("principal", Text, ForeignKey("principals.id"), nullable=False),
    Column("role", Text, nullable=False),
    Column("authority", Text),  # NULL: every authority
    Column("profile", Text),  # NULL: every profile
    Column("created_at", Moment, nullable=False),
    Column("removed_at", Moment),
)
Index("grants_principal", grants.c.principal)

idempotency = Table(
    "idempotency",
    metadata,
    Column("principal", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("digest", LargeBinary, nullable=False),  # SHA-256 of the method, path and body
    Column("created_at", Moment, nullable=False),
    Column("certificate", Text),  # what it led to
    Column("request", Text),
    Column("answer", Text),  # JSON of what was answered, where it led to neither
)

crls = Table(
    "crls",
    metadata,
    Column("issuer", Serial64, primary_key=True),
    Column("scope", Text, primary_key=True),  # "full"
    Column("number", BigInteger, primary_key=True),
    Column("this_update", Moment, nullable=False),
    Column("next_update", Moment, nullable=False),
    Column("entries", Integer, nullable=False),
    Column("watermark", BigInteger, nullable=False),  # the revocations that it has seen
    Column("der", LargeBinary, nullable=False),
)

# The last CRL number claimed of an issuer and scope (I-17), whether or not a CRL came of it.
crl_numbers = Table(
    "crl_numbers",
    metadata,
    Column("issuer", Serial64, primary_key=True),
    Column("scope", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
)

# One row: how many revocations, holds and releases there were. Every kept OCSP answer names the count that it was made
# under.
watermark = Table(
    "watermark",
    metadata,
    Column("one", Integer, primary_key=True),
    Column("revocations", BigInteger, nullable=False),
    Column("people", BigInteger, nullable=False, server_default="0"),
)

blocked_keys = Table(
    "blocked_keys",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("why", Text, nullable=False),
    Column("at", Moment, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("name", Text, primary_key=True),
    Column("due_at", Moment, nullable=False),
    Column("lease", Text),
    Column("lease_until", Moment),
    Column("fence", BigInteger, nullable=False, server_default="0"),  # rises with every lease
    Column("done_at", Moment),
    Column("failure", Text),
)
