"""An authority that was elsewhere before comes here: a root's certificate, or an issuing CA with its key, what it has
signed, and what of that is revoked.

Nothing that its old CRL lists is forgotten (I-16): where the certificate is not at hand, its serial alone stands in the
inventory, revoked. CRL numbers go on above the old one's (I-17). A serial that is in neither is unknown to OCSP, never
good (I-27): so the whole inventory belongs into the import.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID
from sqlalchemy import Connection

from rootward.ca import certified, founding, freeze, publish
from rootward.ca.access import Caller
from rootward.ca.authorities import check_own_label, check_own_name, refuse_single_tier, require_system_admin
from rootward.ca.certified import Certified
from rootward.ca.filing import Filer, Recalled, file, recall
from rootward.ca.founding import Beginning
from rootward.ca.installation import Authority, AuthoritySettings, Installation, settings_of
from rootward.ca.publish import FULL
from rootward.core import answer, der
from rootward.core.crl import BadCrl, Crl, parse_crl
from rootward.core.crl_entries import serial_is_valid
from rootward.core.foreign import Foreign, read_foreign
from rootward.core.links import Link
from rootward.core.problems import Problem, Reason, shown
from rootward.core.pubkey import public_key_of
from rootward.core.signed import signature_fault
from rootward.keys import check_fits
from rootward.keys.incoming import Incoming
from rootward.store import authorities, events, facts
from rootward.store.failpoint import failpoint

_MOST_NUMBER = 1 << 62  # what the store can count on from
_PARTS = 500  # certificates in one transaction
_READ = frozenset({ExtensionOID.ISSUING_DISTRIBUTION_POINT})  # what a critical extension of a CRL may be


@dataclass(frozen=True)
class Arriving:
    """What comes. `chain` begins with the CA's own certificate and ends with its root. `key` is its key, or None: then
    it is in the key store `store` under `label`, or, of a root, stays offline (`store` None). `inventory` is DER.
    """

    name: str
    chain: tuple[x509.Certificate, ...]
    key: Incoming | None = None
    store: str | None = None
    label: str = ""
    parents: tuple[str, ...] = ()
    crl: bytes | None = None
    inventory: Sequence[bytes] = ()


@dataclass(frozen=True)
class Adopted:
    """What came of it: names of new authorities; how many certificates were taken in, how many are revoked by the old
    CRL, and of how many of these only the serial is known; why some were not taken in.
    """

    authorities: tuple[str, ...]
    certificates: int
    revoked: int
    unknown: int
    refused: tuple[str, ...]


async def adopt(
    inst: Installation, arriving: Arriving, caller: Caller, *, beginning: Beginning | None = None
) -> Adopted:
    """Take it in; an issuing CA founds the installation with `beginning`, a root does not: what it certifies will. The
    authority comes with all that is revoked, in one transaction; its certificates follow, and the same call again goes
    on where it was cut off.

    Problems: RW-FORBIDDEN, RW-FIELD, RW-CONFLICT, RW-CERTIFICATE and RW-KEY-MISMATCH with every reason, RW-KEY-MISSING,
    RW-CONFIG, RW-KEY-TYPE.
    """
    require_system_admin(caller)
    await refuse_single_tier(inst)
    check_own_name(arriving.name)
    certificate, now = arriving.chain[0], inst.clock()
    old = _judged(arriving, now)
    parts = [arriving.inventory[at : at + _PARTS] for at in range(0, len(arriving.inventory), _PARTS)]
    read = [await asyncio.to_thread(_read, part, certificate) for part in parts]
    known = inst.authorities.get(arriving.name)
    fresh = known is None or known.issuer.certificate != certificate
    made = await _new(inst, arriving) if fresh else []
    there = {found.serial: found for good, _ in read for found in good}

    def begin(conn: Connection) -> Recalled:
        if made:
            _begin(conn, inst, made, old, beginning, caller)
        return Recalled() if old is None else _take_list(conn, inst, arriving.name, old, there, caller)

    try:
        recalled = await inst.db.write(begin)
    finally:
        inst.process.told += 1  # its list may have revoked something, also where it failed
    failpoint("authority.adopted")
    taken = 0
    for good, _ in read:
        taken += await inst.db.write(partial(_take, inst=inst, name=arriving.name, good=good, caller=caller))
    await certified.begin(inst)
    await freeze.look_again(inst)
    refused = tuple(why for _, bad in read for why in bad)
    return Adopted(tuple(one.name for one in made), taken, recalled.revoked, recalled.unknown, refused)


def _judged(arriving: Arriving, now: datetime) -> Crl | None:
    """Everything that can be said without the store; the old CRL, read."""
    certificate = arriving.chain[0]
    link = Link(certificate)
    if link.fault is not None:
        raise Problem("RW-CERTIFICATE", link.fault, field="certificate")
    reasons = [*answer.may_certify(link)]
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        reasons.append(Reason("RW-CERTIFICATE", f"{link.title} is not valid now.", "certificate"))
    online = arriving.key is not None or arriving.store is not None
    if link.self_issued:
        if signature_fault(certificate, certificate) is not None:
            reasons.append(Reason("RW-CERTIFICATE", f"{link.title} is not well signed by itself.", "certificate"))
        if online:
            detail = "A root's key never comes online: import the certificate alone, and keep the key for ceremonies."
            reasons.append(Reason("RW-CEREMONY", detail, "key"))
    else:
        reasons += answer.check_above(arriving.chain, now=now)
        if not online:
            detail = "An issuing CA comes with its key: --key FILE, or --key-store NAME."
            reasons.append(Reason("RW-KEY-MISSING", detail, "key"))
        if arriving.crl is None:
            detail = "It comes with its newest CRL: what that lists stays revoked, and numbers go on above it."
            reasons.append(Reason("RW-CERTIFICATE", detail, "crl"))
    if arriving.key is not None and arriving.key.public.id != public_key_of(certificate.public_key()).id:
        reasons.append(Reason("RW-KEY-MISMATCH", "The key is another one than the certificate's.", "key"))
    old = None
    if arriving.crl is not None:
        try:
            old = parse_crl(arriving.crl)
            reasons += _about_list(old, certificate)
            if not online and (old.next_update is None or not old.this_update <= now):
                detail = "The CRL has no nextUpdate, or is from the future: it could not be published here."
                reasons.append(Reason("RW-CERTIFICATE", detail, "crl"))
        except BadCrl as error:
            reasons.append(Reason("RW-CERTIFICATE", str(error), "crl"))
    if reasons:
        raise Problem.of(reasons)
    return old


def _about_list(old: Crl, certificate: x509.Certificate) -> list[Reason]:
    reasons = []
    if old.list.issuer != certificate.subject or signature_fault(old.list, certificate) is not None:
        reasons.append(Reason("RW-CERTIFICATE", "The CRL is not this CA's.", "crl"))
    if old.number is None or old.number >= _MOST_NUMBER:
        reasons.append(Reason("RW-CERTIFICATE", "The CRL has no number, or one that cannot be gone on from.", "crl"))
    if any(not serial_is_valid(entry.serial) for entry in old):
        detail = "The CRL lists a serial that is none (RFC 5280 4.1.2.2): no CRL made here could list it."
        reasons.append(Reason("RW-CERTIFICATE", detail, "crl"))
    if any(_is_partial(one.value) or (one.critical and one.oid not in _READ) for one in old.list.extensions):
        detail = "The CRL is a delta, or has only some certificates or reasons: what it leaves out would be forgotten."
        reasons.append(Reason("RW-CERTIFICATE", f"{detail} Bring the full one.", "crl"))
    return reasons


def _is_partial(extension: x509.ExtensionType) -> bool:
    """Whether a CRL with this extension does not have all that is revoked (RFC 5280 5.2.4, 5.2.5)."""
    if isinstance(extension, x509.IssuingDistributionPoint):
        kinds = extension.only_contains_user_certs, extension.only_contains_ca_certs
        return any(
            (*kinds, extension.only_contains_attribute_certs, extension.only_some_reasons, extension.indirect_crl)
        )
    return isinstance(extension, x509.DeltaCRLIndicator)


async def _new(inst: Installation, arriving: Arriving) -> list[Certified]:
    """The authorities that are new, the root first, with the key where it belongs."""
    certificate = arriving.chain[0]
    if len(arriving.chain) == 1:
        return [Certified(arriving.name, "root", None, certificate)]
    above, fresh = certified.named(inst, arriving.chain[1:], arriving.parents)
    store, label = arriving.store or inst.keys.name, arriving.label or arriving.name
    check_own_label(label, field="key_label")
    settings = AuthoritySettings(key_label="" if label == arriving.name else label, adopted=True)
    made = [*reversed(fresh), Certified(arriving.name, "issuing", above, certificate, store, settings)]
    await inst.db.read(partial(certified.check_free, made=made))  # before the key is put anywhere
    backend, key = inst.key_store(store), public_key_of(certificate.public_key())
    check_fits(backend, key.algorithm)
    if arriving.key is not None:
        await asyncio.to_thread(arriving.key.put, backend, label)
    await asyncio.to_thread(backend.load, label, key.id)  # Problem where it is not there, or another one
    return made


def _begin(
    conn: Connection,
    inst: Installation,
    made: Sequence[Certified],
    old: Crl | None,
    beginning: Beginning | None,
    caller: Caller,
) -> None:
    founded = facts.get(conn, founding.FOUNDED) is not None
    if founded and beginning is not None:
        raise Problem("RW-CONFLICT", "This installation is founded already.")
    for each in made:
        certified.keep(conn, inst, each, caller)
    one = made[-1]
    events.record(
        "authority.adopted",
        actor=caller.principal.id,
        authority=one.name,
        request_id=caller.request_id,
        data={"key": one.key_id, "store": one.backend, "crl": None if old is None else old.number},
        at=inst.clock(),
    ).run(conn)
    if beginning is not None and one.backend is not None:
        wanted = founding.first_profiles(one.name, beginning.domains)
        founding.begin(conn, inst, wanted, title=f"{one.name} came here", lab=False, token_hash=beginning.token_hash)


def _take_list(
    conn: Connection, inst: Installation, name: str, old: Crl, there: Mapping[bytes, Foreign], caller: Caller
) -> Recalled:
    """What the old CRL lists is revoked here, and numbers go on above its own. That of an offline authority is served
    until a ceremony makes the next one.
    """
    row, issuer = authorities.by_name(conn, name), authorities.list_issuers(conn, name)[-1]
    if row is None or old.number is None:
        raise Problem("RW-NOT-FOUND", "There is no such authority, or its CRL has no number.")
    last = authorities.last_number(conn, issuer.n)
    ours = issuer.backend is None and not settings_of(row).external
    if ours and old.next_update is not None and authorities.crl_head(conn, issuer.n) is None:
        crl = authorities.Crl(issuer.n, FULL, old.number, old.this_update, old.next_update, len(old), 0, old.der)
        publish.keep(conn, name, crl, actor=caller.principal.id, at=inst.clock())
    elif last is None or last < old.number:
        authorities.claim_number(conn, issuer.n, FULL, at_least=old.number)
    by, newer = Filer(caller, inst.clock(), inst.db.lease), last is None or last < old.number
    return recall(conn, issuer, old, by, there, newer=newer)


def _read(part: Sequence[bytes], issuer: x509.Certificate) -> tuple[list[Foreign], list[str]]:
    """Those that this CA signed, and why the others are none."""
    good, bad = list[Foreign](), list[str]()
    for data in part:
        try:
            found, parsed = read_foreign(data), x509.load_der_x509_certificate(data)
            signed = parsed.issuer == issuer.subject and signature_fault(parsed, issuer) is None
        except (der.DerError, ValueError) as error:
            bad.append(f"It is no certificate: {shown(str(error))}.")
            continue
        if signed:
            good.append(found)
        else:
            bad.append(f"{shown(found.subject)} is not signed by this CA.")
    return good, bad


def _take(conn: Connection, *, inst: Installation, name: str, good: Sequence[Foreign], caller: Caller) -> int:
    """Into the inventory, those whose serials are new; how many."""
    issuer, count = authorities.list_issuers(conn, name)[-1], 0
    for found in good:
        _, new = file(conn, issuer, found, Filer(caller, inst.clock(), inst.db.lease))
        count += new
    return count


def is_from_before(authority: Authority, found: Foreign) -> bool:
    """Whether it says that this authority issued it before it came here; who signed it is another question."""
    return (
        authority.settings.adopted
        and found.issuer_der == authority.issuer.name_der
        and found.not_before < authority.created_at
    )


def crl_der(data: bytes) -> bytes:
    """A CRL as DER, from PEM or DER; Problem RW-CERTIFICATE."""
    if b"-----BEGIN X509 CRL-----" not in data:
        return data
    try:
        return x509.load_pem_x509_crl(data).public_bytes(Encoding.DER)
    except ValueError:
        raise Problem("RW-CERTIFICATE", "The CRL cannot be read.", field="crl") from None
