"""What the processes do that are killed: ask, approve, revoke, publish. Each scene is `scene(made, say, ...)`."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from rootward.ca import freeze
from rootward.ca.approve import approve
from rootward.ca.issue import Ask, Idempotency, Issued, Pending, issue
from rootward.ca.publish import publish
from rootward.ca.revoke import release, revoke
from rootward.ca.sequence import sequence, settle
from rootward.core.csr import parse_csr
from rootward.core.problems import Problem
from rootward.core.revocation import RevocationReason
from rootward.home import renew_admin_token
from rootward.store import events, heads, jobs
from rootward.store.certificates import Certificate
from rootward.store.errors import Lost, Taken
from tests.support.faults import AUTHORITY, CAREFUL, NAMED, Open, Say, trapped, watch

PROFILES = {"plain": "server", "keyed": "server", "approved": CAREFUL, "named": NAMED}


@dataclass(frozen=True)
class Wish:
    """What somebody wants, `csr` in DER. `plain` has nothing to tell a retry by, the others have an idempotency key;
    `approved` needs a yes to its plan (which issues at once), `named` one to its names.
    """

    kind: str
    csr: bytes
    key: str

    @property
    def ask(self) -> Ask:
        """As the road takes it."""
        return Ask(PROFILES[self.kind], parse_csr(self.csr))

    @property
    def idempotency(self) -> Idempotency | None:
        """Its key, where it has one."""
        if self.kind == "plain":
            return None
        return Idempotency(self.key, hashlib.sha256(self.csr).digest())


def wish(kind: str = "plain") -> Wish:
    """A wish with a key and a name of its own."""
    name = f"n{secrets.token_hex(8)}.internal"
    san = x509.SubjectAlternativeName([x509.DNSName(name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(san, critical=False)
    csr = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return Wish(kind, csr.public_bytes(Encoding.DER), f"key-{name}")


async def attempt(made: Open, wanted: Wish) -> Issued | Pending:
    """Ask once."""
    return await issue(made.inst, wanted.ask, made.admin, idempotency=wanted.idempotency)


async def park(made: Open, wanted: Wish) -> str | None:
    """Bring the wish to where one step more issues it; the id of the request that waits for the last yes, if any."""
    if wanted.kind in {"plain", "keyed"}:
        return None
    parked = await attempt(made, wanted)
    assert isinstance(parked, Pending)
    if wanted.kind == "named":
        await approve(made.inst, parked.request.id, None, made.admin)
        return None
    return parked.request.id


async def ask(made: Open, say: Say, wanted: Wish, request: str | None) -> None:
    """The last step of a wish; says the certificate."""
    if request is not None:
        say((await approve(made.inst, request, None, made.admin)).certificate)
        return
    done = await attempt(made, wanted)
    say(done.certificate.id if isinstance(done, Issued) else done.request.id)


async def ask_many(made: Open, say: Say, askers: int, each: int) -> None:
    """Many askers at once; says each TBS before the key gets it, and each DER as it is given out."""

    def told(tbs: bytes, sign: Callable[[], bytes]) -> bytes:
        say(("signed", tbs))
        return trapped(tbs, sign)

    watch(made.inst, told)

    async def one() -> None:
        for _ in range(each):
            done = await attempt(made, wish("keyed"))
            assert isinstance(done, Issued)
            say(("released", done.certificate.der))

    await asyncio.gather(*(one() for _ in range(askers)))


async def ask_or_say_why(made: Open, say: Say, wanted: Wish) -> None:
    """One ask; says the certificate's id, or the problem's code."""
    try:
        done = await attempt(made, wanted)
    except Problem as problem:
        say(problem.code)
        return
    assert isinstance(done, Issued)
    say(done.certificate.id)


async def revoke_one(made: Open, say: Say, id: str, reason: str) -> None:
    """Revoke; says its status."""
    row: Certificate = await revoke(made.inst, id, RevocationReason(reason), made.admin)
    say(row.status(made.inst.clock()))


async def release_one(made: Open, say: Say, id: str) -> None:
    """Take off hold; says its status."""
    row = await release(made.inst, id, made.admin)
    say(row.status(made.inst.clock()))


async def publish_one(made: Open, say: Say) -> None:
    """Make a CRL; says its number."""
    crl = await publish(made.inst, made.inst.authority(AUTHORITY))
    say(crl.number)


async def take_in(made: Open, say: Say, times: int) -> None:
    """An event and a run of the sequencer, so many times; says the newest signed head each time."""
    for number in range(times):
        await made.inst.db.write(
            events.record("test.happened", actor="p", request_id=f"r{number}", at=made.inst.clock(), data={"x": number})
        )
        await settle(made.inst)
        say(await newest_note(made))


async def take_in_leased(made: Open, say: Say, fence: int) -> None:
    """One run of the sequencer as the holder of a lease; says how it went."""
    try:
        await sequence(made.inst, jobs.fenced("sequence", fence=fence))
    except (Lost, Taken) as error:
        say(type(error).__name__)
    else:
        say(await newest_note(made))


async def newest_note(made: Open) -> str | None:
    """The newest signed head."""
    head = await made.inst.db.read(heads.newest_signed)
    return None if head is None else head.note


async def freeze_one(made: Open, say: Say) -> None:
    """Freeze the issuing authority; says its state."""
    await freeze.freeze(made.inst, AUTHORITY, "a drill", made.admin)
    say(made.inst.authority(AUTHORITY).state)


async def approve_one(made: Open, say: Say, request: str) -> None:
    """A yes; says what became of the request."""
    done = await approve(made.inst, request, None, made.admin)
    say(done.status(made.inst.clock()))


async def renew_token(made: Open, say: Say, home: Path, later: timedelta) -> None:
    """The administrator's token, so much later; says that it is done."""
    real = made.inst.clock
    made.inst.clock = lambda: real() + later
    await renew_admin_token(made.inst, home)
    say("renewed")
