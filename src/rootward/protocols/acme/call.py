"""What a handler of the ACME door gets and gives: a `Visit`, which anybody may make, or a `Call`, which is one
authenticated POST.

The nonce of a POST is used with the handler's first write, in its transaction, so that a POST whose nonce cannot be
used has no effect at all (I-47); where the handler writes nothing, the gate uses it before the answer goes out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar, cast, overload

import msgspec
from sqlalchemy import Connection

from rootward.ca.access import Caller
from rootward.ca.installation import Installation
from rootward.core import strict
from rootward.core.jwk import Jwk
from rootward.core.profile import Profile
from rootward.protocols.acme.nonces import Nonce
from rootward.protocols.acme.problems import AcmeError
from rootward.protocols.acme.validator import Validator
from rootward.protocols.problems import Header
from rootward.store import nonces
from rootward.store.accounts import Account
from rootward.store.rows import Rows

T = TypeVar("T")
_DEPTH = 8


@dataclass(frozen=True)
class Settings:
    """The door's part of `rootward.toml`: the URL of the terms of service, "" where there are none; the profile of an
    order that names none; the test mode; what one account, or one address, may ask for.
    """

    terms: str = ""
    profile: str = "server"
    chaos: bool = False
    orders_per_hour: int = 3000
    failures_per_hour: int = 300
    accounts_per_hour: int = 100


@dataclass(frozen=True)
class Served:
    """A profile that takes ACME accounts, in the version that issues now."""

    version: int
    profile: Profile


@dataclass(frozen=True)
class Answer:
    """What goes back. `body` is a Struct, or bytes of `media_type`."""

    status: int
    body: msgspec.Struct | bytes = b""
    headers: tuple[Header, ...] = ()
    media_type: str = "application/json"


@dataclass
class Visit:
    """One request. `directory` is the profile in its path and `served` that profile, both None at /acme/…; `query` has
    the parameters that the resource takes.
    """

    inst: Installation
    settings: Settings
    validator: Validator
    request_id: str
    method: str
    directory: str | None
    served: Served | None
    address: str
    query: dict[str, str]

    def url(self, path: str) -> str:
        """The URL of a path of this server, such as /acme/order/…."""
        return self.inst.external_url + path

    def directory_url(self, resource: str) -> str:
        """The URL of a resource that each directory has, such as new-nonce, in the directory of this request."""
        return self.url(f"/acme/{resource}" if self.directory is None else f"/acme/{self.directory}/{resource}")


@dataclass
class Call(Visit):
    """One POST whose signature is right. `jwk` is the key that made it, `who` the account where a kid named one, which
    is active then, and `principal` of `caller` what that is. `payload` is b"" in a POST-as-GET.
    """

    jwk: Jwk
    who: Account | None
    caller: Caller
    payload: bytes
    nonce: Nonce | None = field(repr=False)  # None once it is used

    @property
    def account(self) -> Account:
        """The account that signed; only resources that want a kid may ask."""
        if self.who is None:
            raise TypeError("this resource is not for accounts only")
        return self.who

    def is_get(self) -> bool:
        """Whether it is a POST-as-GET (RFC 8555 6.3)."""
        return not self.payload

    def require_get(self) -> None:
        """AcmeError malformed where there is a payload: `{}` too is one."""
        if self.payload:
            raise AcmeError("malformed", "This address is only read: by a POST with an empty payload (RFC 8555 6.3).")

    def decode(self, type: type[T]) -> T:
        """The payload; unknown fields are ignored (RFC 8555 7.1). AcmeError malformed."""
        return decode(self.payload, type)

    def nonce_rows(self) -> Rows:
        """What uses the nonce, for the first transaction of whoever writes by himself; `spent` when that is written."""
        return Rows() if self.nonce is None else nonces.use(self.nonce.value, expires_at=self.nonce.expires_at)

    def spent(self) -> None:
        """The nonce is used, for good."""
        self.nonce = None

    async def use_nonce(self) -> None:
        """Use it now, for a handler whose first write is not in its own hands."""
        if self.nonce is not None:
            await self.write(Rows())

    @overload
    async def write(self, work: Rows) -> None: ...
    @overload
    async def write(self, work: Callable[[Connection], T]) -> T: ...
    async def write(self, work: Any) -> Any:
        """One transaction; the nonce's row goes with the first. `Taken` of `nonces.TABLE` is the gate's business."""
        using = self.nonce_rows()

        def both(conn: Connection) -> Any:
            using.run(conn)
            return work(conn)

        result: Any = await self.inst.db.write(using + work if isinstance(work, Rows) else both)
        self.spent()
        return result


Handler = Callable[[Any, dict[str, str]], Awaitable[Answer]]  # of a Call where the resource wants one, else of a Visit


def decode(payload: bytes, type: type[T]) -> T:
    """Strict JSON as a Struct that ignores what it does not know. AcmeError malformed."""
    try:
        strict.read(payload, depth=_DEPTH)
        found: T = _decoder(cast(Hashable, type)).decode(payload)
    except strict.NotStrict as error:
        raise AcmeError("malformed", f"The payload: {error}") from None
    except msgspec.ValidationError as error:
        # msgspec's sentences name types and our own fields, and repeat nothing but a wrong value of an enumeration.
        detail = str(error) if not str(error).startswith("Invalid enum value") else "A field has none of its values"
        raise AcmeError("malformed", f"The payload: {detail}.") from None
    except msgspec.DecodeError:
        raise AcmeError("malformed", "The payload is not JSON.") from None
    return found


@lru_cache(maxsize=64)
def _decoder(kind: Hashable) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)
