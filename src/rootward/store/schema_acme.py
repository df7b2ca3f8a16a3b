"""The tables of the ACME door: accounts, the keys that bind them, nonces, orders, authorizations. As in `schema.py`:
facts are NULL until they happen, every status of RFC 8555 7.1.6 is derived from them (core/acme.py).

Ids of accounts, orders and authorizations are random and unguessable (I-48): they stand in URLs. Challenges are no
rows: an authorization has one token, and the challenge that its client chose is a fact of it.
"""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, LargeBinary, Table, Text

from rootward.store.columns import Moment, key, metadata

accounts = Table(
    "acme_accounts",
    metadata,
    key(),
    Column("id", Text, nullable=False, unique=True),  # principals.id as well
    Column("thumbprint", Text, nullable=False, unique=True),  # RFC 7638, base64url: a key has one account (I-51)
    Column("jwk", Text, nullable=False),  # canonical JSON (RFC 7638)
    Column("contacts", Text, nullable=False, server_default="[]"),  # JSON array of mailto URLs
    Column("terms_at", Moment),  # when its owner agreed to the terms of service
    Column("binding", Text),  # acme_bindings.id that it came with
    Column("owner", Text),  # of its certificates, from the binding
    Column("made_by", Text),  # principals.id of the person who made the binding
    Column("profile", Text),  # the one profile that it may use; NULL: those that are open
    Column("names", Text, nullable=False, server_default="[]"),  # JSON patterns it is limited to; []: the profile's
    Column("preauthorized", Text, nullable=False, server_default="[]"),  # JSON patterns for which nothing is asked
    Column("address", Text, nullable=False),  # where it was made from, for the limits
    Column("created_at", Moment, nullable=False),
    Column("deactivated_at", Moment),
)
Index("acme_accounts_address", accounts.c.address, accounts.c.created_at)

# External account binding (RFC 8555 7.3.4): MAC keys that are handed to those who may make accounts.
bindings = Table(
    "acme_bindings",
    metadata,
    key(),
    Column("id", Text, nullable=False, unique=True),  # the kid
    Column("secret", LargeBinary, nullable=False),  # the MAC key, sealed with the KEK
    Column("owner", Text, nullable=False),
    Column("profile", Text),
    Column("names", Text, nullable=False, server_default="[]"),
    Column("preauthorized", Text, nullable=False, server_default="[]"),
    Column("uses", Integer, nullable=False),  # how many accounts it may make
    Column("used", Integer, nullable=False, server_default="0"),
    Column("created_at", Moment, nullable=False),
    Column("created_by", Text, nullable=False),  # principals.id
    Column("expires_at", Moment, nullable=False),
    Column("revoked_at", Moment),
)

# Nonces that were used, until they would be too old anyway. One that was only handed out is no row.
nonces = Table(
    "acme_nonces",
    metadata,
    Column("nonce", LargeBinary, primary_key=True),
    Column("expires_at", Moment, nullable=False),
)
Index("acme_nonces_expires_at", nonces.c.expires_at)

orders = Table(
    "acme_orders",
    metadata,
    key(),
    Column("id", Text, nullable=False, unique=True),
    Column("account", Text, nullable=False),
    Column("profile", Text, nullable=False),
    Column("identifiers", Text, nullable=False),  # JSON array of "dns:a.internal", as the client ordered them
    Column("authorizations", Text, nullable=False),  # JSON array of ids, one for each identifier
    Column("not_after", Moment),  # asked for
    Column("replaces", Text),  # certificates.id
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
    Column("csr", LargeBinary),  # DER, with finalized_at
    Column("finalized_at", Moment),
    Column("request", Text),  # requests.id, where a person must agree
    Column("certificate", Text),  # certificates.id of the attempt under way, or of what came of it
    Column("settled_at", Moment),  # it is valid or invalid for good
    Column("error", Text),  # JSON problem document, where it is invalid
)
_o = orders.c
Index("acme_orders_account", _o.account, _o.n)

authorizations = Table(
    "acme_authorizations",
    metadata,
    key(),
    Column("id", Text, nullable=False, unique=True),
    Column("account", Text, nullable=False),
    Column("name", Text, nullable=False),  # "dns:a.internal", without the star of a wildcard
    Column("wildcard", Integer, nullable=False),  # 0 or 1
    Column("token", Text, nullable=False),  # 256 random bits, base64url
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),  # a valid one's end is moved when it becomes valid
    Column("offered", Text, nullable=False),  # JSON array of challenge types
    Column("challenge", Text),  # the type that the client chose; "preauthorized" where nothing was asked
    Column("chosen_at", Moment),
    Column("thumbprint", Text),  # of the account's key at that moment: what is to be proved is made of it
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("next_try_at", Moment),  # while it is being validated
    Column("lease", Text),  # of the process that tries
    Column("lease_until", Moment),
    Column("error", Text),  # JSON problem document of the last try
    Column("validated_at", Moment),
    Column("failed_at", Moment),
    Column("deactivated_at", Moment),
)
_a = authorizations.c
_valid = _a.validated_at.is_not(None) & _a.deactivated_at.is_(None)
Index("acme_authorizations_valid", _a.account, _a.name, sqlite_where=_valid, postgresql_where=_valid)
Index(
    "acme_authorizations_trying",
    _a.account,
    _a.next_try_at,
    sqlite_where=_a.next_try_at.is_not(None),
    postgresql_where=_a.next_try_at.is_not(None),
)
Index("acme_authorizations_account", _a.account, _a.n)
_failed = _a.failed_at.is_not(None)
Index("acme_authorizations_failed", _a.account, _a.failed_at, sqlite_where=_failed, postgresql_where=_failed)
