"""The external account binding of a newAccount (RFC 8555 7.3.4): a JWS by the MAC key, over the account's own key."""

from __future__ import annotations

from typing import Any

from rootward.ca import bindings as verbs
from rootward.core import strict
from rootward.core.jose import MACS, authentic, jws_of
from rootward.core.jwk import JoseError, read_jwk
from rootward.protocols.acme.call import Call
from rootward.protocols.acme.problems import AcmeError, of_jose
from rootward.store import bindings
from rootward.store.bindings import Binding

_NOBODYS = bytes(32)  # so that an unknown kid costs what a known one does


async def read_binding(call: Call, value: dict[str, Any]) -> Binding:
    """The binding that proves itself here, open and for this directory. AcmeError unauthorized where it is not, in the
    same words for an unknown kid and a wrong MAC.
    """
    try:
        jws = jws_of(value, algorithms=MACS)
    except JoseError as error:
        raise of_jose(error, MACS) from None
    kid = jws.kid
    if kid is None or jws.jwk is not None:
        raise AcmeError("malformed", "An external account binding has a kid in its header and no jwk.")
    found = await call.inst.db.look(lambda conn: bindings.by_id(conn, kid))
    secret = _NOBODYS if found is None else verbs.secret_of(call.inst, found)
    if not authentic(jws, secret) or found is None:
        raise _refusal("The external account binding is not valid.")
    if jws.nonce is not None:
        raise _refusal("An external account binding has no nonce (RFC 8555 7.3.4).")
    if jws.url != call.directory_url("new-account"):
        raise _refusal("The url of the external account binding is not that of this request.")
    if not _is_key(call, jws.payload):
        raise _refusal("The external account binding is for another key than the one that signed the request.")
    status = found.status(call.inst.clock())
    if status != "open":
        raise spent(status)
    if found.profile not in (None, call.directory or found.profile):
        raise _refusal("The external account binding is for another profile.")
    return found


def spent(status: str = "used") -> AcmeError:
    """What makes no more accounts."""
    return _refusal(f"The external account binding is {status}; ask for another one.")


def _is_key(call: Call, payload: bytes) -> bool:
    try:
        return read_jwk(strict.read(payload)).text == call.jwk.text
    except (JoseError, strict.NotStrict):
        return False


def _refusal(detail: str) -> AcmeError:
    return AcmeError("unauthorized", detail)
