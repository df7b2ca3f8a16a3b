"""ACME rows for `tools/fill.py`: for a certificate the order that it came by, and the authorization that the order had.

They belong to the ACME accounts that are there, in turn; where there is none, a thousand are made up, with keys that
nobody has.
"""

from __future__ import annotations

import json
import random
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from typing import Any

from rootward.ca.accounts import name_of
from rootward.store.schema_acme import accounts, authorizations, orders
from tools.fill_store import Store

ACCOUNTS = 1_000
DAY = 86_400
_ORDER = tuple(column.name for column in orders.columns)
_AUTHORIZATION = tuple(column.name for column in authorizations.columns)
_OFFERED = '["http-01","dns-01","tls-alpn-01"]'


class Acme:
    """Takes certificates in, `most` at most."""

    def __init__(self, store: Store, chance: random.Random, most: int, now: int) -> None:
        self._store, self._chance, self._left = store, chance, most
        self._order, self._authorization = (store.highest(table.name) for table in (orders, authorizations))
        found = store.all("SELECT id FROM acme_accounts WHERE deactivated_at IS NULL ORDER BY n LIMIT 10000")
        self._accounts = [str(row[0]) for row in found] or self._make_accounts(now)

    def take(self, certificates: Iterable[dict[str, Any]]) -> None:
        """Write the orders of these, and say in them who asked."""
        made, proved = list[tuple[Any, ...]](), list[tuple[Any, ...]]()
        for row in certificates:
            if not self._left or row["issued_at"] is None:
                continue
            self._left -= 1
            self._order, self._authorization = self._order + 1, self._authorization + 1
            account = row["requester"] = self._accounts[self._order % len(self._accounts)]
            proof, at = self._text(16), row["intended_at"]
            found = dict.fromkeys(_ORDER) | {
                "n": self._order,
                "id": self._text(16),
                "account": account,
                "profile": row["profile"],
                "identifiers": row["names"],
                "authorizations": json.dumps([proof]),
                "created_at": at - 2,
                "expires_at": at + 7 * DAY,
                "csr": self._chance.randbytes(260),
                "finalized_at": at,
                "certificate": row["id"],
                "settled_at": at,
            }
            made.append(tuple(found.values()))
            found = dict.fromkeys(_AUTHORIZATION) | {
                "n": self._authorization,
                "id": proof,
                "account": account,
                "name": row["names"][2:-2],
                "wildcard": 0,
                "token": self._text(32),
                "created_at": at - 2,
                "expires_at": at + 30 * DAY,
                "offered": _OFFERED,
                "challenge": "http-01",
                "chosen_at": at - 1,
                "tries": 1,
                "validated_at": at - 1,
            }
            proved.append(tuple(found.values()))
        self._store.put(orders.name, _ORDER, made)
        self._store.put(authorizations.name, _AUTHORIZATION, proved)

    def _make_accounts(self, now: int) -> list[str]:
        ids = [self._text(16) for _ in range(ACCOUNTS)]
        self._store.put(
            "principals",
            ("id", "kind", "name", "created_at"),
            [(id, "account", name_of(id), now - 90 * DAY) for id in ids],
        )
        columns = ("id", "thumbprint", "jwk", "contacts", "names", "preauthorized", "address", "created_at")
        self._store.put(
            accounts.name,
            columns,
            [(id, self._text(32), self._jwk(), "[]", "[]", "[]", "127.0.0.1", now - 90 * DAY) for id in ids],
        )
        return ids

    def _jwk(self) -> str:
        return json.dumps({"crv": "P-256", "kty": "EC", "x": self._text(32), "y": self._text(32)})

    def _text(self, size: int) -> str:
        return urlsafe_b64encode(self._chance.randbytes(size)).rstrip(b"=").decode()
