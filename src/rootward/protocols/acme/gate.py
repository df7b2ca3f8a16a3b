"""From the body of a POST to a `Call` (RFC 8555 6.2 to 6.5), and the use of its nonce.

In this order: the JWS, its url, its nonce, whose it is, the signature. Nothing is written before all of it is right, so
that nobody without an account costs a commit; failures are counted by no limit.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, Literal

from rootward.ca.access import Caller, Principal
from rootward.ca.accounts import principal
from rootward.core.jose import Jws, check_algorithm, read_jws
from rootward.core.jwk import ALGORITHMS, JoseError, Jwk, stored_jwk
from rootward.core.problems import Kind, Problem
from rootward.protocols.acme.call import Answer, Call, Visit
from rootward.protocols.acme.nonces import Nonces, bad_nonce
from rootward.protocols.acme.problems import AcmeError, account_ended, of_jose
from rootward.store import accounts, nonces
from rootward.store.accounts import Account
from rootward.store.errors import Taken

Signer = Literal["jwk", "kid", "either"]
ID: Final = "[A-Za-z0-9_-]{22}"  # 128 random bits


async def admit(visit: Visit, path: str, signer: Signer, body: bytes, handed: Nonces) -> Call:
    """The call that `body` is. `path` is the request's own, with its query. AcmeError for everything that is wrong."""
    jws = read(body)
    if jws.url != visit.url(path):
        raise AcmeError("unauthorized", "The header's url is not the address that this was sent to (RFC 8555 6.4).")
    nonce = handed.check(jws.nonce, visit.inst.clock())
    if visit.settings.chaos and nonce.unlucky:
        raise bad_nonce("This server is in its test mode and refuses some good nonces.")
    who, key = await _signer(visit, jws, signer)
    try:
        check_algorithm(key, jws.algorithm)
    except JoseError as error:
        raise of_jose(error, (key.algorithm,)) from None
    if not key.verifies(jws.signature, jws.message):
        raise AcmeError("malformed", "The signature is not right.")
    if who is not None and who.status != "valid":
        raise account_ended(who.status)
    return Call(
        **vars(visit),
        jwk=key,
        who=who,
        caller=Caller(_nobody(key) if who is None else principal(who), visit.request_id),
        payload=jws.payload,
        nonce=nonce,
    )


def read(data: bytes) -> Jws:
    """A signed object whose key is asymmetric. AcmeError."""
    try:
        return read_jws(data)
    except JoseError as error:
        raise of_jose(error, ALGORITHMS) from None


def account_id(visit: Visit, kid: str) -> str:
    """The account that a kid names. AcmeError malformed where it is no account URL of ours."""
    match = re.fullmatch(re.escape(visit.url("/acme/account/")) + f"({ID})", kid)
    if match is None:
        raise AcmeError("malformed", "The header's kid is not the URL of an account of this server.")
    return match[1]


async def _signer(visit: Visit, jws: Jws, signer: Signer) -> tuple[Account | None, Jwk]:
    """The account that is named, and the key that must have signed."""
    if (jws.jwk is None) == (jws.kid is None):
        raise AcmeError("malformed", "The header has either jwk or kid (RFC 8555 6.2).")
    if jws.jwk is not None:
        if signer == "kid":
            raise AcmeError("malformed", "This address wants the kid of an account in the header (RFC 8555 6.2).")
        return None, jws.jwk
    if signer == "jwk":
        raise AcmeError("malformed", "This address wants the key itself in the header: a jwk (RFC 8555 6.2).")
    id = account_id(visit, jws.kid or "")
    found = await visit.inst.db.look(lambda conn: accounts.by_id(conn, id))
    if found is None:
        raise AcmeError("accountDoesNotExist", "There is no such account.")
    return found, stored_jwk(found.jwk)


def _nobody(key: Jwk) -> Principal:
    """Who signed with a key that is no account's, or is not asked as one."""
    return Principal(f"acme-key:{key.thumbprint}", "key", f"acme-key:{key.thumbprint}", ())


async def carry_out(call: Call, handler: Callable[[], Awaitable[Answer]]) -> Answer:
    """The handler's answer, with the nonce used: also where it refused, since the signed request is spent then too.
    AcmeError badNonce where somebody was first; of the handler, nothing has happened then.
    """
    try:
        answer = await handler()
    except Taken as error:
        raise _first(error) from None
    except (AcmeError, Problem) as refusal:
        if isinstance(refusal, AcmeError) or refusal.kind not in (Kind.UNAVAILABLE, Kind.INTERNAL):
            with suppress(Problem):  # where the store is away now, the refusal still stands
                await _use(call)
        raise
    await _use(call)
    return answer


async def _use(call: Call) -> None:
    if call.nonce is not None:
        try:
            await call.inst.db.write(call.nonce_rows())
        except Taken as error:
            raise _first(error) from None
        call.spent()


def _first(error: Taken) -> Exception:
    return bad_nonce("The nonce was used before.") if error.table == nonces.TABLE else error
