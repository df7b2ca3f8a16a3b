"""What the judge of the kill loop knows of ACME. Like `oracle.py` it shares no code with the product.

A nonce was accepted once; what was said of an order stands, its certificate is its own and the only one; nothing of an
order is unfinished; accounts and proofs have their events.
"""

from __future__ import annotations

import hashlib
import json
import re
from base64 import urlsafe_b64decode
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.faults.loop.evidence import Exchange, Store

FINAL = ("valid", "invalid")
REASONS = {1: "keyCompromise", 4: "superseded", 5: "cessationOfOperation"}  # RFC 5280 5.3.1
_ORDER = re.compile(r"/acme/order/([^/]+)")
_CERTIFICATE = re.compile(r"/acme/certificate/([^/]+)")
Found = tuple[str, str]  # a code, and the particulars


def unpadded(text: str) -> bytes:
    """base64url without padding."""
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass(frozen=True)
class Post:
    """A signed request, and the whole answer to it."""

    exchange: Exchange

    @cached_property
    def _jws(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self.exchange.body)
        return found

    @cached_property
    def header(self) -> dict[str, Any]:
        """What is protected."""
        found: dict[str, Any] = json.loads(unpadded(self._jws["protected"]))
        return found

    @cached_property
    def payload(self) -> Any:
        """None for a POST-as-GET."""
        return json.loads(unpadded(self._jws["payload"]) or b"null")

    @property
    def resource(self) -> str:
        """The last part of the path."""
        return self.exchange.path.rpartition("/")[2]


class Acme:
    """All that ACME clients saw."""

    def __init__(self, store: Store, seen: list[Exchange]) -> None:
        self.store = store
        self.counts: Counter[str] = Counter()
        said = [one for one in seen if one.path.startswith("/acme/") and one.method == "POST"]
        self.good = [Post(one) for one in said if one.content is not None and 200 <= one.status < 300]
        self.orders = {row["id"]: row for row in store.orders}

    def findings(self) -> Iterator[Found]:
        yield from self.nonces()
        yield from self.said()
        yield from self.downloads()
        yield from self.once()
        yield from self.unfinished()
        yield from self.events()

    def nonces(self) -> Iterator[Found]:
        """I-47, over all replicas and restarts."""
        used = Counter(post.header["nonce"] for post in self.good)
        self.counts["nonces accepted"] = len(used)
        for nonce, times in used.items():
            if times > 1:
                yield "nonce", f"{nonce} was accepted {times} times"

    def said(self) -> Iterator[Found]:
        """What an answer said of an account or an order is so in the store, and a final state is never left."""
        thumbprints = {row["id"] for row in self.store.accounts}
        final: dict[str, tuple[float, str]] = {}
        for post in self.good:
            one = post.exchange
            if post.resource == "new-account" and one.location.rpartition("/")[2] not in thumbprints:
                yield "acme-lost", f"the account {one.location} was promised"
            if post.resource == "new-order" and one.location.rpartition("/")[2] not in self.orders:
                yield "acme-lost", f"the order {one.location} was promised"
            match = _ORDER.fullmatch(one.path)
            if match is None:
                continue
            id, state = match[1], one.json["status"]
            self.counts[f"orders said to be {state}"] += 1
            before = final.get(id)
            if before is not None and before[0] < one.began and state != before[1]:
                yield "acme-state", f"order {id} was {before[1]}, and {state} after that"
            if state in FINAL and id not in final:
                final[id] = one.ended, state
        for id, (_, state) in final.items():
            row = self.orders.get(id, {})
            made = self.store.by_id.get(row.get("certificate") or "", {})
            settled, issued = row.get("settled_at") is not None, made.get("issued_at") is not None
            refused = row.get("error") is not None
            if (settled, issued, refused) != ((True, True, False) if state == "valid" else (True, False, True)):
                yield "acme-state", f"order {id} was said to be {state}: settled {settled}, issued {issued}"

    def downloads(self) -> Iterator[Found]:
        """An order's certificate is the one of its row, each time."""
        for post in self.good:
            match = _CERTIFICATE.fullmatch(post.exchange.path)
            if match is None:
                continue
            self.counts["ACME certificates seen"] += 1
            leaf = x509.load_pem_x509_certificates(post.exchange.content or b"")[0]
            row = self.store.by_id.get(self.orders.get(match[1], {}).get("certificate") or "")
            if row is None or row["sha256"] != hashlib.sha256(leaf.public_bytes(Encoding.DER)).hexdigest():
                yield "acme-certificate", f"order {match[1]} gave {leaf.serial_number:x}, which is not its certificate"

    def once(self) -> Iterator[Found]:
        """One order, one certificate, however often it was tried (I-07, I-50): each of them has a key of its own."""
        issued: dict[tuple[str, str], list[str]] = defaultdict(list)
        for row in self.store.mine:
            if row["issued_at"] is not None:
                issued[row["requester"], row["key_id"]].append(row["id"])
        for order in self.store.orders:
            if order["csr"] is None:
                continue
            spki = x509.load_der_x509_csr(bytes(order["csr"])).public_key()
            key = hashlib.sha256(spki.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
            made = issued[order["account"], key]
            if len(made) > 1:
                yield "acme-twice", f"order {order['id']} has {len(made)} certificates"
            if made and made != [order["certificate"]]:
                yield "acme-certificate", f"order {order['id']} has another certificate than was issued for it"

    def unfinished(self) -> Iterator[Found]:
        """Every client has come to its end, so nothing waits (I-50)."""
        for order in self.store.orders:
            if order["finalized_at"] is not None and order["settled_at"] is None:
                yield "acme-stuck", f"order {order['id']} is still processing"
        for one in self.store.authorizations:
            decided = one["validated_at"] or one["failed_at"] or one["deactivated_at"]
            if one["challenge"] is not None and (decided is None or one["next_try_at"] or one["lease"]):
                yield "acme-stuck", f"authorization {one['id']} is still looked at"

    def events(self) -> Iterator[Found]:
        """Accounts and proofs have one event each, and no event is without (I-56)."""
        told: Counter[tuple[str, str]] = Counter()
        for event in self.store.events:
            if event["kind"].startswith("acme."):
                told[event["kind"], event["data"].get("authorization") or event["data"].get("account") or ""] += 1
        wanted: Counter[tuple[str, str]] = Counter()
        for row in self.store.accounts:
            wanted["acme.account-created", row["id"]] += 1
        for row in self.store.authorizations:
            wanted["acme.authorization-valid", row["id"]] += row["validated_at"] is not None
            wanted["acme.authorization-invalid", row["id"]] += row["failed_at"] is not None
        for which in +(told - wanted) + +(wanted - told):
            yield "event", f"{which} has {told[which]} events, and its row says {wanted[which]}"

    def revocations(self) -> Iterator[tuple[str, float, str]]:
        """Those that were acknowledged: certificate, when, reason."""
        ids = {row["sha256"]: row["id"] for row in self.store.certificates if row["sha256"]}
        for post in self.good:
            if post.resource == "revoke-cert":
                sha256 = hashlib.sha256(unpadded(post.payload["certificate"])).hexdigest()
                self.counts["ACME revocations acknowledged"] += 1
                yield ids.get(sha256, sha256), post.exchange.ended, REASONS[post.payload["reason"]]
