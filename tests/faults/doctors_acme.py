"""Records of the kill loop that were right, spoilt in what is about ACME: the doctors of `test_oracle.py`."""
# ruff: noqa: S608  # the statements are constants of this file

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

DONE = "settled_at IS NOT NULL AND certificate IS NOT NULL"
ONE = f"(SELECT certificate FROM acme_orders WHERE {DONE} ORDER BY n LIMIT 1)"
OTHER = f"(SELECT certificate FROM acme_orders WHERE {DONE} ORDER BY n DESC LIMIT 1)"


def nonce_accepted_twice(r: Any) -> None:
    line = next(line for line in r.lines("wire-*.jsonl") if line["path"] == "/acme/server/new-order" and line["whole"])
    r.add("wire-x.jsonl", line | {"client": "x"})


def lost_account(r: Any) -> None:
    r.sql("DELETE FROM acme_accounts")


def lost_order(r: Any) -> None:
    r.sql(f"DELETE FROM acme_orders WHERE certificate = {ONE}")


def order_that_was_valid_before(r: Any) -> None:
    """An answer that was right, kept by somebody for too long."""
    said = [one for one in r.seen() if one.path.startswith("/acme/order/") and one.status == 200]
    valid = {one.path for one in said if one.json["status"] == "valid"}
    old = next(one for one in said if one.path in valid and one.json["status"] != "valid")
    (line,) = [ln for ln in r.lines("wire-*.jsonl") if (ln["client"], ln["began"]) == (old.client, old.began)]
    last = max(one.ended for one in r.seen()) + 1
    r.add("wire-x.jsonl", line | {"client": "x", "began": last, "ended": last})


def another_certificate(r: Any) -> None:
    r.sql(f"UPDATE acme_orders SET certificate = {OTHER} WHERE certificate = {ONE}")


def two_certificates(r: Any) -> None:
    same = ", ".join(f"{what} = (SELECT {what} FROM certificates WHERE id = {ONE})" for what in ("key_id", "requester"))
    r.sql(f"UPDATE certificates SET {same} WHERE id = {OTHER}")


def order_without_an_end(r: Any) -> None:
    r.sql(f"UPDATE acme_orders SET settled_at = NULL WHERE certificate = {ONE}")


def look_without_an_end(r: Any) -> None:
    r.sql("UPDATE acme_authorizations SET lease = 'x' WHERE validated_at IS NOT NULL")


def lost_proof(r: Any) -> None:
    r.sql("DELETE FROM events WHERE kind = 'acme.authorization-valid'")


def lost_acme_revocation(r: Any) -> None:
    """One that ACME acknowledged."""
    known = next(one for one in r.seen() if one.path.endswith("/revoke-cert") and one.status == 200)
    assert json.loads(known.body)["protected"]
    r.sql(
        "UPDATE certificates SET revoked_at = NULL, reason = NULL WHERE revoked_at IS NOT NULL AND id IN "
        "(SELECT certificate FROM acme_orders)"
    )


DOCTORS: list[tuple[Callable[[Any], None], set[str]]] = [
    (nonce_accepted_twice, {"nonce"}),
    (lost_account, {"acme-lost", "event"}),
    (lost_order, {"acme-lost", "acme-state", "acme-certificate"}),
    (order_that_was_valid_before, {"acme-state"}),
    (another_certificate, {"acme-certificate"}),
    (two_certificates, {"acme-twice"}),
    (order_without_an_end, {"acme-stuck", "acme-state"}),
    (look_without_an_end, {"acme-stuck"}),
    (lost_proof, {"event"}),
    (lost_acme_revocation, {"lost", "event", "last"}),
]
