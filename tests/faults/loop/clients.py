"""Clients as real ones are: they speak REST over TLS, ask again with the same idempotency key when the connection is
cut or the server says that it cannot now, and keep every byte that they see. Nobody kills them.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from tests.faults.loop.acme import NAMED, Orders
from tests.faults.loop.wire import OCSP_REQUEST, Reply, Town, Wire, ocsp_request

T = TypeVar("T")
API = "/api/v1"
TRIES = 9000  # three minutes: others use the machine too
PAUSE = 0.02
FINAL = ("keyCompromise", "superseded", "cessationOfOperation")
# What every client does, and how often.
WEIGHTS = {
    "plain": 3,
    "keyed": 6,
    "renewed": 2,
    "approved": 3,
    "named": 2,
    "revoked": 4,
    "revoked_by_serial": 1,
    "held": 2,
    "ordered": 3,
    "agreed": 1,
    "token": 1,
    "grant": 1,
    "status": 4,
    "crl": 2,
}


class Stopped(Exception):
    """The episode ends."""


@dataclass
class Mine:
    """A certificate of one client."""

    id: str
    serial: int
    names: list[str]
    live: bool = True


class Client(threading.Thread):
    """Does one thing after the other until the episode ends."""

    def __init__(self, town: Town, number: int, seed: int) -> None:
        super().__init__(name=f"client-{number}", daemon=True)
        self._town, self._rng = town, random.Random(seed)
        self._wire = Wire(town, f"c{number}")
        self._wire.replica = number % len(town.doors)
        self._label = f"c{number}-{seed}"
        self._orders = Orders(town, self._wire, lambda ask: self._ask(ask, "an order"))
        self._count = 0
        self._mine: list[Mine] = []
        self._later: list[tuple[float, int]] = []  # when to look at a revoked serial once more

    def run(self) -> None:
        try:
            while True:
                wanted = self._town.favoured
                if not wanted or self._rng.random() < 0.4:
                    (wanted,) = self._rng.choices(list(WEIGHTS), list(WEIGHTS.values()))
                getattr(self, f"_{wanted}")()
                while self._later and self._later[0][0] <= time.monotonic():
                    self._ocsp(self._later.pop(0)[1])
                if self._town.stopping.is_set():
                    return
        except Stopped:
            return
        except Exception as error:  # noqa: BLE001  # a thread's failure is the episode's
            self._town.stuck.append(f"{self.name}: {type(error).__name__}: {error}")
        finally:
            self._wire.close()

    # ── asking ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _next(self, what: str) -> str:
        self._count += 1
        return f"{what}-{self._label}-{self._count}"

    def _until(self, ask: Callable[[], Reply | None], what: str = "") -> Reply:
        """Ask until there is an answer that is one."""

        def answered() -> Reply | None:
            reply = ask()
            if reply is None or reply.status >= 500 or reply.status == 429 or reply.code == "RW-IN-PROGRESS":
                return None
            return reply

        return self._ask(answered, what)

    def _ask(self, ask: Callable[[], T | None], what: str) -> T:
        """Until there is something; else the client is stuck."""
        for _ in range(TRIES):
            found = ask()
            if found is not None:
                return found
            time.sleep(PAUSE)
        self._town.stuck.append(f"{self.name} got nowhere with {what}")
        raise Stopped

    def _post(self, path: str, body: object, *, who: str, key: str = "") -> Reply:
        data = json.dumps(body).encode()
        return self._until(lambda: self._wire.ask("POST", API + path, data, who=who, key=key), path)

    def _csr(self, names: list[str]) -> str:
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        san = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        made = builder.add_extension(san, critical=False).sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
        return made.public_bytes(Encoding.PEM).decode()

    def _issue(self, profile: str, names: list[str], key: str, **more: str) -> tuple[Reply, dict[str, str]]:
        body = {"profile": profile, "csr": self._csr(names), **more}
        reply = self._post("/certificates", body, who="requester", key=key)
        self._keep(reply, names)
        return reply, body

    def _keep(self, reply: Reply, names: list[str]) -> None:
        if reply.status == 201:
            made = reply.json
            if all(one.id != made["id"] for one in self._mine):
                self._mine.append(Mine(made["id"], int(made["serial"], 16), names))
                self._town.known.append(int(made["serial"], 16))

    def _names(self) -> list[str]:
        return [f"{self._next('n')}.internal"]

    # ── what they do ────────────────────────────────────────────────────────────────────────────────────────────

    def _plain(self) -> None:
        """Nothing to tell a retry by: it may get two."""
        self._issue("server", self._names(), "")

    def _keyed(self) -> None:
        names, key = self._names(), self._next("key")
        reply, body = self._issue("server", names, key)
        if reply.status == 201 and self._rng.random() < 0.3:
            self._post("/certificates", body, who="requester", key=key)

    def _renewed(self) -> None:
        old = self._pick()
        if old is not None:
            self._issue("server", old.names, self._next("key"), replaces=old.id)

    def _approved(self) -> None:
        names, key = self._names(), self._next("key")
        reply, body = self._issue("careful", names, key)
        if reply.status == 202 and self._rng.random() < 0.15:
            self._post(f"/requests/{reply.json['id']}/deny", {}, who="approver")
            return
        for _ in range(5):
            if reply.status != 202:
                return
            self._post(f"/requests/{reply.json['id']}/approve", {"comment": "yes"}, who="approver")
            reply = self._post("/certificates", body, who="requester", key=key)
            self._keep(reply, names)

    def _named(self) -> None:
        """One yes to the names, whatever key comes: it is good for one certificate, and the third ask waits again."""
        names = self._names()
        reply, _ = self._issue("named", names, self._next("key"))
        if reply.status != 202:
            return
        self._issue("named", names, self._next("key"))
        self._post(f"/requests/{reply.json['id']}/approve", {}, who="approver")
        for _ in range(2):
            reply, _ = self._issue("named", names, self._next("key"))
        if reply.status == 202:
            self._once(f"/requests/{reply.json['id']}/deny", {}, who="approver")

    def _revoked(self) -> None:
        mine = self._pick()
        if mine is None:
            self._keyed()
            return
        body = {"reason": self._rng.choice(FINAL)}
        path = f"/certificates/{mine.id}/revoke"
        if self._rng.random() < 0.5:
            self._once(path, body, who="requester")
        else:
            self._post(path, body, who="requester")
        self._gone(mine)

    def _once(self, path: str, body: object, *, who: str) -> None:
        """With a key; one that a dead process took is given up for another, as the reference says."""
        data = json.dumps(body).encode()
        for _ in range(20):
            key = self._next("once")
            for _ in range(5):
                reply = self._wire.ask("POST", API + path, data, who=who, key=key)
                if reply is not None and reply.status < 500 and reply.code != "RW-IN-PROGRESS":
                    return
                time.sleep(PAUSE)
        self._post(path, body, who=who)

    def _revoked_by_serial(self) -> None:
        mine = self._pick()
        if mine is None:
            return
        width = (mine.serial.bit_length() + 8) // 8 * 2
        body = {"serial": f"{mine.serial:0{width}x}", "authority": "issuing", "reason": "superseded"}
        self._post("/revocations", body, who="requester")
        self._gone(mine)

    def _held(self) -> None:
        mine = self._pick()
        if mine is None:
            return
        self._post(f"/certificates/{mine.id}/revoke", {"reason": "certificateHold"}, who="requester")
        self._ocsp(mine.serial)
        if self._rng.random() < 0.3:
            self._gone(mine)
            return
        self._post(f"/certificates/{mine.id}/release", {}, who="requester")
        self._ocsp(mine.serial)

    def _ordered(self) -> None:
        """By ACME; some are revoked so, too."""
        one = self._orders.customer(*self._names())
        serial = self._orders.obtain(one)
        self._town.known.append(serial)
        if self._rng.random() < 0.3:
            self._orders.revoke(one, self._rng.choice([1, 4, 5]))
            self._ocsp(serial)
            self._later.append((time.monotonic() + 1.05, serial))

    def _agreed(self) -> None:
        """By ACME, when a person has agreed; at times one does not."""
        one = self._orders.customer(*self._names(), NAMED)
        self._orders.wait(one, "processing")
        body = {"account": self._orders.account(one), "profile": NAMED, "names": [f"dns:{one.disk.name}"]}
        reply = self._post("/requests", body, who="requester")  # the same one: nobody needs to look for its id
        agreed = self._rng.random() < 0.6
        self._post(f"/requests/{reply.json['id']}/{'approve' if agreed else 'deny'}", {}, who="approver")
        if agreed:
            self._town.known.append(self._orders.obtain(one))
        else:
            self._orders.wait(one, "invalid")

    def _token(self) -> None:
        key = self._next("token") if self._rng.random() < 0.5 else ""
        data = json.dumps({"label": self._next("t"), "lifetime": "1h"}).encode()
        for _ in range(20):
            reply = self._wire.ask("POST", f"{API}/tokens", data, who="requester", key=key)
            if reply is not None and reply.status == 201:
                value = reply.json["token"]
                if value:
                    self._until(lambda: self._wire.ask("GET", f"{API}/me", who=value))  # noqa: B023  # the loop ends here
                return
            time.sleep(PAUSE)

    def _grant(self) -> None:
        reply = self._post("/principals", {"name": self._next("p")}, who="admin")
        if reply.status == 201:
            self._post("/grants", {"principal": reply.json["id"], "role": "auditor"}, who="admin")

    def _status(self) -> None:
        if self._town.known:
            self._ocsp(self._rng.choice(self._town.known[-200:]))

    def _crl(self) -> None:
        self._wire.ask("GET", "/crl/issuing.crl", door="http")

    def _ocsp(self, serial: int) -> None:
        self._wire.ask("POST", "/ocsp/issuing", ocsp_request(self._town.issuer, serial), door="http", kind=OCSP_REQUEST)

    def _pick(self) -> Mine | None:
        living = [one for one in self._mine[-50:] if one.live]
        return self._rng.choice(living) if living else None

    def _gone(self, mine: Mine) -> None:
        mine.live = False
        self._ocsp(mine.serial)
        self._later.append((time.monotonic() + 1.05, mine.serial))
