"""A participant's key in a token, such as a PIV card, and a token's PIN: the little of PKCS#11 that ceremonies need
beside the keys of authorities.

The URI (RFC 7512) names the module by its whole path (`module-path`), the token by `token` or `serial`, and the key by
`object` or `id`; a PIN is never in it. What cannot be read is said without the value.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import unquote_to_bytes

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from rootward.core.minutes import Signature, signed_bytes
from rootward.core.participants import Role
from rootward.core.problems import Problem
from rootward.keys.participant import Algorithm, checked
from rootward.keys.token_uri import TokenUri, parse_token_uri

_CODE = "RW-KEY-UNAVAILABLE"
_OF_KEYS = frozenset({"object", "id"})


def sign_in_token(uri: str, pin: str, transcript: str, *, name: str, role: Role) -> Signature:
    """The participant's signature by the key that the URI names. Problem RW-CONFIG for the URI, RW-KEY-UNAVAILABLE."""
    message = signed_bytes(transcript, name=name, role=role)
    with _session(uri, pin.encode(), writing=False) as (session, parts), _told():
        algorithm, spki, value = _sign(session, parts, message)
    return checked(name, role, algorithm, spki, value, transcript)


def set_pin(uri: str, old: bytes, new: bytes) -> None:
    """C_SetPIN: the token's user PIN is `new` when this returns. Problem RW-KEY-UNAVAILABLE where it is `old` still;
    any other exception where nobody can know.
    """
    import pkcs11

    refusals = (pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange, pkcs11.PinLocked, pkcs11.SessionReadOnly)
    with _session(uri, old, writing=True) as (session, _):
        try:
            session.set_pin(old.decode(), new.decode())
        except refusals as error:
            raise _refused(error) from None


def pin_works(uri: str, pin: bytes) -> bool:
    """Whether the token takes this PIN; each wrong one counts against its limit. Problem RW-CONFLICT where this process
    is logged in already: then the token would take any.
    """
    try:
        with _session(uri, pin, writing=False, alone=True):
            return True
    except Problem as problem:
        if problem.code == "RW-CONFLICT":
            raise
        return False


def _parts(uri: str) -> tuple[TokenUri, dict[str, bytes]]:
    """The token that the URI means, and which key in it: `object` and `id` (RFC 7512 2.3)."""
    path, mark, query = uri.partition("?")
    named: dict[str, bytes] = {}
    kept = []
    for part in path.removeprefix("pkcs11:").split(";"):
        name, _, value = part.partition("=")
        if name in _OF_KEYS and name not in named:
            named[name] = unquote_to_bytes(value)
        else:
            kept.append(part)
    return parse_token_uri(f"pkcs11:{';'.join(kept)}{mark}{query}"), named


@contextmanager
def _session(uri: str, pin: bytes, *, writing: bool, alone: bool = False) -> Iterator[tuple[Any, dict[str, bytes]]]:
    """A logged-in session, and which key is meant. What the caller does with it raises as the library does. A login is
    the process's: with `alone` it must be a new one.
    """
    token_uri, parts = _parts(uri)
    with ExitStack() as stack:
        with _told():
            import pkcs11

            from rootward.keys.cryptoki import Token

            slot = stack.enter_context(Token(token_uri, None).slot())
            try:
                session = slot.get_token().open(rw=writing, user_pin=pin.decode())
            except pkcs11.UserAlreadyLoggedIn:
                if alone:
                    raise Problem("RW-CONFLICT", "This process is logged in to the token already.") from None
                session = slot.get_token().open(rw=writing)
        stack.callback(session.close)
        yield session, parts


@contextmanager
def _told() -> Iterator[None]:
    """Why a token cannot be had, as a Problem."""
    try:
        import pkcs11

        from rootward.keys.cryptoki import Away
    except ImportError:
        raise Problem(_CODE, "The package python-pkcs11 is not installed: keys in tokens need it.") from None
    try:
        yield
    except pkcs11.exceptions.PKCS11Error as error:
        raise _refused(error) from None
    except Away as error:
        raise Problem(_CODE, f"The token cannot be asked: {error}.") from None
    except UnicodeDecodeError:
        raise Problem(_CODE, "A PIN is text in UTF-8, and this one is not.") from None
    except OSError as error:
        raise Problem(_CODE, f"The token's module cannot be loaded: {error}.") from None


def _refused(error: Exception) -> Problem:
    said = f" ({error})" if str(error) else ""
    return Problem(_CODE, f"The token refused: {type(error).__name__}{said}.")


def _sign(session: Any, parts: dict[str, bytes], message: bytes) -> tuple[Algorithm, bytes, bytes]:
    """(algorithm, SubjectPublicKeyInfo, signature). EC is hashed here: not every token does (PKCS#11 3.0, 2.3.6)."""
    import pkcs11
    from pkcs11.util.ec import encode_ec_public_key
    from pkcs11.util.rsa import encode_rsa_public_key

    template: dict[Any, Any] = {}
    if "object" in parts:
        template[pkcs11.Attribute.LABEL] = parts["object"].decode()
    if "id" in parts:
        template[pkcs11.Attribute.ID] = parts["id"]
    private = _one(session, template | {pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY}, "private")
    public = _one(session, template | {pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PUBLIC_KEY}, "public")
    if private.key_type is pkcs11.KeyType.RSA:
        value = private.sign(message, mechanism=pkcs11.Mechanism.SHA256_RSA_PKCS)
        return "rsa-sha256", _spki(encode_rsa_public_key(public)), value
    if private.key_type is not pkcs11.KeyType.EC:
        raise Problem(_CODE, "The key is neither RSA nor ECDSA.")
    spki = encode_ec_public_key(public)
    key = serialization.load_der_public_key(spki)
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in ("secp256r1", "secp384r1"):
        raise Problem(_CODE, "Of elliptic curves, P-256 and P-384 sign transcripts.")
    large = key.curve.name == "secp384r1"
    digest = (hashlib.sha384 if large else hashlib.sha256)(message).digest()
    raw = private.sign(digest, mechanism=pkcs11.Mechanism.ECDSA)
    half = len(raw) // 2
    value = encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))
    return "ecdsa-sha384" if large else "ecdsa-sha256", _spki(spki), value


def _one(session: Any, template: dict[Any, Any], what: str) -> Any:
    found = list(session.get_objects(template))
    if len(found) != 1:
        raise Problem(
            _CODE, f"The URI names {len(found)} {what} keys in the token, and it must be one: add object or id."
        )
    return found[0]


def _spki(encoded: bytes) -> bytes:
    """The SubjectPublicKeyInfo of what the library encodes: of RSA, PKCS#1 (RFC 8017 A.1.1)."""
    try:
        key = serialization.load_der_public_key(encoded)
    except ValueError:
        raise Problem(_CODE, "The public key in the token cannot be read.") from None
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
        raise Problem(_CODE, "The key in the token is of a kind that signs no transcripts.")
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
