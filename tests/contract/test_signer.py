"""The signer process against whoever owns the web process: every row of the database is theirs, and every order that
they can think of. Nothing is signed but what is pinned on the signer's host; what is refused is in its journal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import text

from rootward.ca import profiles, publish, revoke
from rootward.ca.founding import first_profiles
from rootward.ca.issue import issue
from rootward.core import grounds as words
from rootward.core.capture import capture_tbs
from rootward.core.crl import draft_crl, parse_crl
from rootward.core.crl_entries import Entry
from rootward.core.csr import parse_csr
from rootward.core.grounds import Grounds, SignCertificate
from rootward.core.issuer import Issuer
from rootward.core.names import parse_name
from rootward.core.own import responder_profile, tls_profile
from rootward.core.plan import Ask, Policy, make_serial
from rootward.core.problems import Problem
from rootward.core.profile import Profile
from rootward.core.revocation import RevocationReason
from rootward.core.signature import verifies
from rootward.core.times import whole_second
from tests.support.signer import SignerLab, signer_lab
from tests.support.world import ask, issued
from tests.vectors.csr_parts import good_csr, spki_of

HOLD = RevocationReason.CERTIFICATE_HOLD
COMPROMISE = RevocationReason.KEY_COMPROMISE
SERVER = next(one for one in first_profiles("issuing") if one.name == "server")
WIDE = msgspec.structs.replace(
    SERVER,
    names=msgspec.structs.replace(
        SERVER.names, dns=msgspec.structs.replace(SERVER.names.dns, allow=(".example.com", ".internal"))
    ),
    lifetime=msgspec.structs.replace(SERVER.lifetime, maximum="1000d"),
    extended_key_usage=("server_auth", "client_auth", "code_signing"),
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SignerLab]:
    """Shared: what is refused changes nothing."""
    with signer_lab(tmp_path_factory.mktemp("signer")) as made:
        yield made


def now() -> datetime:
    return whole_second(datetime.now(UTC))


def hand_in(lab: SignerLab, message: Any, *more: bytes) -> words.Reply:
    """What the signer says to a message of the web process's."""
    store: Any = lab.inst.stores["vault"]
    return words.read_reply(store._lines.crls.ask(words.frame(message), *more))


def refusal(reply: words.Reply) -> str:
    assert isinstance(reply, words.Refused), reply
    return " ".join(said.detail for said in reply.reasons)


def sealed(lab: SignerLab, tbs: bytes, signature: bytes) -> bool:
    return verifies(lab.inst.authority("issuing").issuer.key, signature, tbs)


@dataclass
class Made:
    """An order, as an honest web process makes it of an ask under this profile; or with whatever is changed."""

    profile: Profile = SERVER
    version: int = 1
    names: tuple[str, ...] = ("dns:a.internal",)
    serial: bytes = b""
    at: datetime = field(default_factory=now)
    lifetime: timedelta | None = None
    key: Any = None
    issuer: Issuer | None = None

    def order(self, lab: SignerLab) -> SignCertificate:
        issuer = self.issuer or lab.inst.authority("issuing").issuer
        csr_names = None if self.profile.name in ("ocsp-responder",) else self.names
        key = self.key or ec.generate_private_key(ec.SECP256R1())
        request = parse_csr(good_csr(names=list(csr_names or ()), key=key))
        wanted = Ask(self.profile.name, request, self.lifetime)
        identity = lab.admin.principal.identity()
        plan = Policy(self.profile, self.version, issuer).admit(wanted, identity)
        draft = plan.draft(make_serial(self.serial or lab.inst.new_serial()), self.at)
        grounds = words.grounds_of(wanted, plan, draft, identity, self.at)
        return SignCertificate(lab.inst.authority("issuing").issuer.key_id, draft.tbs, grounds)


def changed(order: SignCertificate, **grounds: Any) -> SignCertificate:
    return msgspec.structs.replace(order, grounds=msgspec.structs.replace(order.grounds, **grounds))


def test_an_honest_order_is_signed_and_written_down(lab: SignerLab) -> None:
    order = Made().order(lab)
    reply = hand_in(lab, order)
    assert isinstance(reply, words.Signed)
    assert sealed(lab, order.tbs, reply.signature)
    entry = lab.signer.journal("certificate")[0]
    assert (entry.what, entry.tbs) == (order.grounds.serial.hex(), hashlib.sha256(order.tbs).digest())


def ca_certificate(lab: SignerLab) -> bytes:
    """A TBS of a CA's certificate, for a key of the attacker's."""
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "evil")]))
        .issuer_name(lab.inst.authority("issuing").issuer.certificate.subject)
        .public_key(key)
        .serial_number(int.from_bytes(lab.inst.new_serial(), "big"))
        .not_valid_before(now())
        .not_valid_after(now() + timedelta(days=30))
        .add_extension(x509.BasicConstraints(True, None), critical=True)
    )
    return capture_tbs(builder, lab.inst.authority("issuing").issuer.key.algorithm)[0]


def foreign_key(lab: SignerLab) -> SignCertificate:
    """The certificate of a key of the attacker's, on the grounds of somebody else's CSR."""
    order = Made().order(lab)
    victim = good_csr(names=["dns:a.internal"], key=ec.generate_private_key(ec.SECP256R1()))
    return changed(order, csr=victim)


def broken_csr(lab: SignerLab) -> SignCertificate:
    """The CSR's key exchanged for another, its signature kept."""
    one, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    order = Made(key=one).order(lab)
    return changed(order, csr=order.grounds.csr.replace(spki_of(one), spki_of(other)))


def other_issuer(lab: SignerLab) -> SignCertificate:
    issuer = lab.inst.authority("issuing").issuer
    return Made(issuer=Issuer("issuing", issuer.certificate, issuer.chain, "http://evil.example")).order(lab)


def as_server(lab: SignerLab, order: SignCertificate) -> SignCertificate:
    return changed(order, profile="server", version=1)


def responder(lifetime: str) -> Profile:
    return responder_profile("issuing", lifetime)


LIES: dict[str, tuple[Callable[[SignerLab], SignCertificate], str]] = {
    "a CA": (lambda lab: msgspec.structs.replace(Made().order(lab), tbs=ca_certificate(lab)), "is not the one"),
    "other bytes": (lambda lab: msgspec.structs.replace(Made().order(lab), tbs=b"to be signed"), "is not the one"),
    "another's TBS": (
        lambda lab: msgspec.structs.replace(Made().order(lab), tbs=Made(names=("dns:b.internal",)).order(lab).tbs),
        "is not the one",
    ),
    "a name that the profile lacks": (
        lambda lab: Made(profile=WIDE, names=("dns:www.example.com",)).order(lab),
        "example.com",
    ),
    "a longer lifetime": (lambda lab: Made(profile=WIDE, lifetime=timedelta(days=1000)).order(lab), "lifetime"),
    "more key usages": (lambda lab: Made(profile=WIDE).order(lab), "is not the one"),
    "OCSP signing as a server's": (lambda lab: as_server(lab, Made(profile=responder("48h")).order(lab)), "name"),
    "another version": (lambda lab: Made(version=2).order(lab), "Version 2 of the profile server"),
    "no version": (lambda lab: Made(version=0).order(lab), "Version 0"),
    "a profile that nobody accepted": (
        lambda lab: Made(profile=msgspec.structs.replace(SERVER, name="evil")).order(lab),
        "not accepted",
    ),
    "a responder of a month": (lambda lab: Made(profile=responder("30d"), version=0).order(lab), "lifetime"),
    "the server's own with other names": (
        lambda lab: Made(profile=tls_profile("issuing", ("evil.internal",)), version=0, names=()).order(lab),
        "as signer.toml has it",
    ),
    "a key that is not the CSR's": (foreign_key, "is not the one"),
    "a CSR whose key was exchanged": (broken_csr, "signature"),
    "another address for its CRL": (other_issuer, "is not the one"),
    "an hour ago": (lambda lab: Made(at=now() - timedelta(hours=1)).order(lab), "clock"),
    "in an hour": (lambda lab: Made(at=now() + timedelta(hours=1)).order(lab), "clock"),
    "a short serial": (lambda lab: changed(Made().order(lab), serial=b"\x01"), "serial"),
    "no serial": (lambda lab: changed(Made().order(lab), serial=b""), "serial"),
    "another lifetime on its grounds": (lambda lab: changed(Made().order(lab), lifetime=3600), "is not the one"),
    "an absurd lifetime": (lambda lab: changed(Made().order(lab), lifetime=1 << 62), "lifetime"),
    "no key of the signer's": (lambda lab: msgspec.structs.replace(Made().order(lab), key="0" * 64), "no such key"),
}


@pytest.mark.invariant("I-38")
@pytest.mark.parametrize("lie", LIES)
def test_what_is_not_pinned_is_refused_and_written_down(lab: SignerLab, lie: str) -> None:
    make, says = LIES[lie]
    order = make(lab)
    why = refusal(hand_in(lab, order))
    assert says in why
    entry = lab.signer.journal()[0]
    assert entry.kind == "refused"
    assert entry.tbs == hashlib.sha256(order.tbs).digest()
    assert entry.why is not None
    assert says in entry.why


@pytest.mark.invariant("I-03", "I-38")
def test_no_serial_is_signed_twice_not_even_for_the_same_order(lab: SignerLab) -> None:
    order = Made().order(lab)
    assert isinstance(hand_in(lab, order), words.Signed)
    assert "signed before" in refusal(hand_in(lab, order))
    assert "signed before" in refusal(hand_in(lab, Made(serial=order.grounds.serial).order(lab)))


@pytest.mark.invariant("I-38")
async def test_a_profile_that_was_widened_in_the_database_widens_nothing(lab: SignerLab) -> None:
    """Every row is the attacker's: the version's text, grants, whatever; the signer compiles its own."""
    db = lab.inst.db
    body = msgspec.json.encode(WIDE).decode()

    def widen(conn: Any) -> None:
        conn.execute(text("UPDATE profiles SET body = :body WHERE name = 'server'"), {"body": body})

    before = await db.read(lambda conn: conn.execute(text("SELECT body FROM profiles WHERE name = 'server'")).scalar())
    await db.write(widen)
    kept = dict(lab.inst._policies)
    lab.inst._policies.clear()
    try:
        with pytest.raises(Problem) as caught:
            await issue(lab.inst, ask("www.example.com"), lab.admin)
        assert caught.value.code == "RW-SIGNER-REFUSED", caught.value
        failed = await db.read(
            lambda conn: conn.execute(
                text("SELECT failed_at, signature FROM certificates WHERE names LIKE '%www.example.com%'")
            ).one()
        )
        assert failed[0] is not None
        assert failed[1] is None
        assert lab.inst.authority("issuing").state == "active"
    finally:

        def narrow(conn: Any) -> None:
            conn.execute(text("UPDATE profiles SET body = :body WHERE name = 'server'"), {"body": before})

        await db.write(narrow)
        lab.inst._policies.clear()
        lab.inst._policies.update(kept)
    issued(await issue(lab.inst, ask("a.internal"), lab.admin))


async def test_a_new_version_is_signed_under_once_it_is_accepted(lab: SignerLab) -> None:
    new = msgspec.structs.replace(SERVER, name="later", description="made while the signer runs")
    await profiles.create(lab.inst, new, lab.admin)
    with pytest.raises(Problem) as caught:
        await issue(lab.inst, ask("a.internal", profile="later"), lab.admin)
    assert caught.value.code == "RW-SIGNER-REFUSED"
    assert "rootward signer accept" in caught.value.detail
    lab.signer.accept(new, 1)
    lab.signer.wait_for("pinned", "later")
    issued(await issue(lab.inst, ask("a.internal", profile="later"), lab.admin))


# CRLs


def crl_order(lab: SignerLab, entries: list[Entry], **changes: Any) -> tuple[words.SignCrl, bytes]:
    issuer = lab.inst.authority("issuing").issuer
    at = now()
    number = int(datetime.now(UTC).timestamp() * 1000)
    fields = {"number": number, "this_update": at, "next_update": at + timedelta(hours=24)} | changes
    tbs = draft_crl(issuer, entries=sorted(entries, key=lambda one: one.serial), **fields).tbs
    return words.SignCrl(issuer.key_id, len(tbs)), tbs


async def listed(lab: SignerLab) -> list[Entry]:
    current = await publish.current_crl(lab.inst, "issuing")
    assert current is not None
    return list(parse_crl(current.der))


@pytest.mark.invariant("I-16", "I-17", "I-38")
async def test_a_crl_forgets_nobody_and_its_number_rises(lab: SignerLab) -> None:
    authority = lab.inst.authority("issuing")
    gone, held = [issued(await issue(lab.inst, ask(), lab.admin)) for _ in range(2)]
    await revoke.revoke(lab.inst, gone.id, COMPROMISE, lab.admin)
    await revoke.revoke(lab.inst, held.id, HOLD, lab.admin)
    last = await publish.publish(lab.inst, authority)
    entries = await listed(lab)
    assert {gone.serial, held.serial} <= {one.serial for one in entries}

    def without(serial: bytes) -> list[Entry]:
        return [one for one in entries if one.serial != serial]

    def said(order: tuple[words.SignCrl, bytes]) -> str:
        why = refusal(hand_in(lab, *order))
        entry = lab.signer.journal()[0]
        assert (entry.kind, entry.tbs) == ("refused", hashlib.sha256(order[1]).digest())
        return why

    assert gone.serial.hex() in said(crl_order(lab, without(gone.serial)))
    assert "not in the CRL" in said(crl_order(lab, []))
    softened = [*without(gone.serial), Entry(gone.serial, now(), HOLD)]
    assert "on hold in the CRL" in said(crl_order(lab, softened))
    assert "not above" in said(crl_order(lab, entries, number=last.number))
    assert "not above" in said(crl_order(lab, entries, number=1))
    assert "years ahead" in said(crl_order(lab, entries, number=1 << 150))
    far = now() - timedelta(hours=2)
    assert "clock" in said(crl_order(lab, entries, this_update=far))
    assert "valid for over" in said(crl_order(lab, entries, next_update=now() + timedelta(days=30)))
    # What is released, and serials that nobody signed, are fine; and so is the same list again.
    unknown = Entry(lab.inst.new_serial(), now(), COMPROMISE)
    order = crl_order(lab, [*without(held.serial), unknown])
    reply = hand_in(lab, *order)
    assert isinstance(reply, words.Signed)
    assert sealed(lab, order[1], reply.signature)
    assert held.serial.hex() in (lab.signer.journal("crl")[0].why or "")
    assert isinstance(hand_in(lab, *crl_order(lab, without(held.serial))), words.Signed)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[SignerLab]:
    """One whose CRLs are this test's alone: their numbers rise with the clock."""
    with signer_lab(tmp_path) as made:
        yield made


async def test_what_the_administrator_lets_go_of_may_be_missing(own: SignerLab) -> None:
    """As after a restore of an older database: nobody there knows the certificate any more."""
    lab = own
    gone = issued(await issue(lab.inst, ask(), lab.admin))
    await revoke.revoke(lab.inst, gone.id, COMPROMISE, lab.admin)
    await publish.publish(lab.inst, lab.inst.authority("issuing"))
    entries = [one for one in await listed(lab) if one.serial != gone.serial]
    assert gone.serial.hex() in refusal(hand_in(lab, *crl_order(lab, entries)))
    lab.signer.command("let-go", "issuing", gone.serial.hex(), "--yes")
    assert lab.signer.wait_for("let-go", gone.serial.hex()).key == lab.inst.authority("issuing").issuer.key_id
    assert isinstance(hand_in(lab, *crl_order(lab, entries)), words.Signed)
    assert f"0 expired, 1 let go; let go {gone.serial.hex()}" in (lab.signer.journal("crl")[0].why or "")
    assert isinstance(hand_in(lab, *crl_order(lab, entries)), words.Signed)
    assert (lab.signer.journal("crl")[0].why or "").endswith("0 let go")
    assert len(lab.signer.journal("let-go")) == 1


@pytest.mark.parametrize("tbs", [b"\x30\x03\x02\x01\x01", b"\x30\x00", b"garbage", bytes(100_000)], ids=len)
def test_what_is_no_crl_is_refused(lab: SignerLab, tbs: bytes) -> None:
    key = lab.inst.authority("issuing").issuer.key_id
    assert refusal(hand_in(lab, words.SignCrl(key, len(tbs)), tbs))


def test_a_crl_of_another_issuer_is_refused(lab: SignerLab) -> None:
    root = lab.inst.authority("root").issuer
    at = now()
    tbs = draft_crl(root, number=1 << 45, this_update=at, next_update=at + timedelta(hours=1), entries=[]).tbs
    order = words.SignCrl(lab.inst.authority("issuing").issuer.key_id, len(tbs))
    assert refusal(hand_in(lab, order, tbs))


def test_a_csr_of_the_signers_is_had_by_name(lab: SignerLab) -> None:
    store: Any = lab.inst.stores["vault"]
    assert x509.load_der_x509_csr(store.csr("issuing")).is_signature_valid
    with pytest.raises(Problem) as caught:
        store.csr("other")
    assert caught.value.code == "RW-KEY-MISSING"


def test_names_that_the_door_took_from_the_common_name_are_told(lab: SignerLab) -> None:
    order = Made().order(lab)
    assert order.grounds.names is None
    told = changed(order, names=(str(parse_name("dns:a.internal")),))
    assert isinstance(hand_in(lab, told), words.Signed)
    assert isinstance(order.grounds, Grounds)
