"""keyChange (RFC 8555 7.3.5): the old key signs that the new one may, and the new key signs that it belongs to the
account.
"""

from __future__ import annotations

from typing import Any

import msgspec

from rootward.ca import accounts as verbs
from rootward.core.jose import read_jws
from rootward.core.jwk import ALGORITHMS, JoseError, Jwk, read_jwk
from rootward.protocols.acme.account import answer
from rootward.protocols.acme.call import Answer, Call, decode
from rootward.protocols.acme.problems import AcmeError, of_jose
from rootward.store import accounts
from rootward.store.errors import Lost, Taken


class KeyChange(msgspec.Struct, frozen=True, rename="camel"):
    """The payload of the inner JWS."""

    account: str
    old_key: dict[str, Any]


async def key_change(call: Call, _path: dict[str, str]) -> Answer:
    """The account, which has the new key from now on; 409 and its address where the new key has an account."""
    try:
        new = _read(call)
        if new.thumbprint == call.account.thumbprint:
            raise await _conflict(call, new)
        await verbs.change_key(call.inst, call.account, new, call.caller, call.write)
    except JoseError as error:
        raise of_jose(error, ALGORITHMS) from None
    except Lost:
        raise AcmeError("malformed", "The account's key was changed by another request just now.", 409) from None
    except Taken as error:
        if error.table != accounts.TABLE:
            raise
        raise await _conflict(call, new) from None
    return answer(call, call.account, 200)


def _read(call: Call) -> Jwk:
    """The new key, once the steps 2 to 8 of section 7.3.5 are done. AcmeError, JoseError."""
    inner = read_jws(call.payload)
    if inner.jwk is None or inner.kid is not None:
        raise AcmeError("malformed", "The inner JWS has the new key as jwk in its header, and no kid.")
    if inner.nonce is not None:
        raise AcmeError("malformed", "The inner JWS has no nonce.")
    if not inner.jwk.verifies(inner.signature, inner.message):
        raise AcmeError("malformed", "The signature of the inner JWS is not right.")
    asked = decode(inner.payload, KeyChange)
    if inner.url != call.directory_url("key-change"):
        raise AcmeError("malformed", "The url of the inner JWS is not that of the outer one.")
    if asked.account != call.url(f"/acme/account/{call.account.id}"):
        raise AcmeError("malformed", "The inner JWS names another account than the one that signed.")
    if read_jwk(asked.old_key).thumbprint != call.account.thumbprint:
        raise AcmeError("malformed", "The inner JWS names another old key than the account's.")
    return inner.jwk


async def _conflict(call: Call, new: Jwk) -> AcmeError:
    found = await call.inst.db.look(lambda conn: accounts.by_thumbprint(conn, new.thumbprint))
    where = () if found is None else ((b"location", call.url(f"/acme/account/{found.id}").encode()),)
    return AcmeError("malformed", "The new key has an account already.", 409, headers=where)
