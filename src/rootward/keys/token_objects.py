"""What lies in a token: key pairs found, read, judged, made. Each function has a session, and raises PKCS11Error where
the token does not answer.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass

from rootward.core.problems import Problem
from rootward.core.pubkey import KeyAlgorithm, PublicKey, public_key_of
from rootward.keys.backend import missing

RSA = {KeyAlgorithm.RSA_2048: 2048, KeyAlgorithm.RSA_3072: 3072, KeyAlgorithm.RSA_4096: 4096}
EC: dict[KeyAlgorithm, ec.EllipticCurve] = {
    KeyAlgorithm.P256: ec.SECP256R1(),
    KeyAlgorithm.P384: ec.SECP384R1(),
    KeyAlgorithm.P521: ec.SECP521R1(),
}
# CKA_EC_PARAMS: the curve's OID in DER (RFC 5480 2.1.1.1), or its name (PKCS#11 v3.1, section 6.3.4).
_CURVES = {
    KeyAlgorithm.P256: bytes.fromhex("06082a8648ce3d030107"),
    KeyAlgorithm.P384: bytes.fromhex("06052b81040022"),
    KeyAlgorithm.P521: bytes.fromhex("06052b81040023"),
    KeyAlgorithm.ED25519: b"\x13\x0cedwards25519",
}
_LABEL = re.compile(r"[a-z0-9-]{1,64}", re.ASCII)
_JUDGED = ("TOKEN", "SENSITIVE", "EXTRACTABLE", "SIGN", "LOCAL", "ALWAYS_SENSITIVE", "NEVER_EXTRACTABLE")


def generate(session: Any, label: str, algorithm: KeyAlgorithm) -> str:
    """Make a key pair in the token, kept when this returns; its public id. Nothing is left where this fails."""
    about: dict[str, Any] = {
        "label": label,
        "id": secrets.token_bytes(32),  # until the public key is known
        "store": True,
        "capabilities": MechanismFlag.SIGN | MechanismFlag.VERIFY,
        "private_template": {
            Attribute.PRIVATE: True,
            Attribute.SENSITIVE: True,
            Attribute.EXTRACTABLE: False,
            Attribute.SIGN_RECOVER: False,
        },
    }
    if algorithm in RSA:
        pair = session.generate_keypair(KeyType.RSA, RSA[algorithm], **about)
    else:
        kind = KeyType.EC_EDWARDS if algorithm is KeyAlgorithm.ED25519 else KeyType.EC
        curve = {Attribute.EC_PARAMS: _CURVES[algorithm]}
        pair = session.create_domain_parameters(kind, curve, local=True).generate_keypair(**about)
    try:
        public = read_public(pair[0])
        if public is None or public.algorithm is not algorithm:
            raise Problem("RW-KEY-MISMATCH", f"The token made another key than the {algorithm} one that it was asked.")
        for one in pair:
            one[Attribute.ID] = bytes.fromhex(public.id)
        judge(pair[1], label)
    except BaseException:
        for one in pair:
            one.destroy()
        raise
    return public.id


def find(session: Any, label: str, public_id: str, *, where: str) -> tuple[list[Any], PublicKey]:
    """The private objects under the label whose public key has that id (one, unless somebody copied it), and that key.
    Problem `RW-KEY-MISSING`, or `RW-KEY-MISMATCH` where CKA_ID says that it is the one and its public key is another.
    """
    named, found = None, list[tuple[Any, PublicKey]]()
    for private in _privates(session, label):
        publics = list(publics_of(session, private))
        found += [(private, public) for public in publics if public.id == public_id]
        if private[Attribute.ID] == bytes.fromhex(public_id):
            named = "there is no public key beside it" if not publics else f"it is {publics[0].id[:16]}…"
    if found:
        return [private for private, _ in found], found[0][1]
    if named is not None:
        raise Problem(
            "RW-KEY-MISMATCH",
            f"{where} has a key {label} that says that it is {public_id[:16]}…, and of its public key: {named}.",
        )
    raise missing(label, public_id, where=where)


def usable(session: Any, label: str, public_id: str, *, where: str) -> tuple[Any, PublicKey]:
    """The one to sign with, and its public key: as `find`, and each of them must be one that never leaves the token."""
    privates, public = find(session, label, public_id, where=where)
    for private in privates:
        judge(private, label)
    return privates[0], public


def listed(session: Any) -> Iterator[tuple[str, str]]:
    """(label, public id) of every key pair whose label could be ours."""
    for private in _privates(session, None):
        label = private[Attribute.LABEL]
        if _LABEL.fullmatch(label):
            for public in publics_of(session, private):
                yield label, public.id


def beside(session: Any, private: Any) -> list[Any]:
    """The public objects that belong to the private one: those of its CKA_ID, or where it has none those of its label
    that have none either.
    """
    own = private[Attribute.ID]
    same = {Attribute.ID: own} if own else {Attribute.LABEL: private[Attribute.LABEL]}
    found = list(session.get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY} | same))
    return [one for one in found if one[Attribute.ID] == own]


def publics_of(session: Any, private: Any) -> Iterator[PublicKey]:
    """The public keys beside a private object that are of a kind that we know."""
    for one in beside(session, private):
        public = read_public(one)
        if public is not None:
            yield public


def read_public(one: Any) -> PublicKey | None:
    """The public key of a public object; None where it is of no kind that we know, or no good key."""
    said = one.get_attributes(
        [Attribute.KEY_TYPE, Attribute.MODULUS, Attribute.PUBLIC_EXPONENT, Attribute.EC_PARAMS, Attribute.EC_POINT]
    )
    try:
        return public_key_of(_public_numbers(said))
    except (Problem, KeyError, ValueError):
        return None


def _public_numbers(said: dict[Any, Any]) -> object:
    kind = said[Attribute.KEY_TYPE]
    if kind == KeyType.RSA:
        modulus, exponent = (
            int.from_bytes(said[name], "big") for name in (Attribute.MODULUS, Attribute.PUBLIC_EXPONENT)
        )
        return rsa.RSAPublicNumbers(exponent, modulus).public_key()
    point = said[Attribute.EC_POINT]
    if kind == KeyType.EC:
        curve = next(EC[name] for name in EC if _CURVES[name] == said[Attribute.EC_PARAMS])
        return ec.EllipticCurvePublicKey.from_encoded_point(curve, _bare(point, 2 * ((curve.key_size + 7) // 8) + 1))
    return ed25519.Ed25519PublicKey.from_public_bytes(_bare(point, 32)) if kind == KeyType.EC_EDWARDS else None


def _bare(point: bytes, size: int) -> bytes:
    """CKA_EC_POINT is an OCTET STRING around the point; some tokens give the bare one."""
    return point if len(point) == size else point[-size:]


def judge(private: Any, label: str) -> None:
    """Problem `RW-KEY-EXTRACTABLE` for a key that can leave its token, or could at some time since it was made there.

    One that came from elsewhere (CKA_LOCAL is false: restored into a new token, or moved into it by its owner) has no
    such past that the token could tell; what counts is that it does not leave any more.
    """
    is_ = {name: private.get_attributes([getattr(Attribute, name)]).get(getattr(Attribute, name)) for name in _JUDGED}
    faults = []
    if is_["EXTRACTABLE"] is not False:
        faults.append("it is extractable (CKA_EXTRACTABLE)")
    if is_["SENSITIVE"] is not True:
        faults.append("it can be read (CKA_SENSITIVE is not set)")
    if is_["LOCAL"] and is_["NEVER_EXTRACTABLE"] is False:
        faults.append("it was extractable before (CKA_NEVER_EXTRACTABLE)")
    if is_["LOCAL"] and is_["ALWAYS_SENSITIVE"] is False:
        faults.append("it could be read before (CKA_ALWAYS_SENSITIVE)")
    if is_["TOKEN"] is False:
        faults.append("it ends with its session (CKA_TOKEN is not set)")
    if faults:
        raise Problem(
            "RW-KEY-EXTRACTABLE",
            f"The key {label} can leave its token: {', '.join(faults)}. Make a new authority with a key that is made "
            "by rootward, and retire this one.",
        )
    if is_["SIGN"] is False:
        raise Problem("RW-KEY-FILE", f"The key {label} in the token may not sign (CKA_SIGN is not set).")


def algorithms(slot: Any) -> Iterator[KeyAlgorithm]:
    """The algorithms whose keys the token makes and signs with."""
    known = slot.get_mechanisms()
    if {Mechanism.RSA_PKCS_KEY_PAIR_GEN, Mechanism.RSA_PKCS} <= known:
        most = slot.get_mechanism_info(Mechanism.RSA_PKCS_KEY_PAIR_GEN).max_key_length
        yield from (name for name, bits in RSA.items() if bits <= most)
    if {Mechanism.EC_KEY_PAIR_GEN, Mechanism.ECDSA} <= known:
        most = slot.get_mechanism_info(Mechanism.EC_KEY_PAIR_GEN).max_key_length
        yield from (name for name, curve in EC.items() if curve.key_size <= most)
    if {Mechanism.EC_EDWARDS_KEY_PAIR_GEN, Mechanism.EDDSA} <= known:
        yield KeyAlgorithm.ED25519


def _privates(session: Any, label: str | None) -> list[Any]:
    named = {} if label is None else {Attribute.LABEL: label}
    return list(session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY} | named))
