"""An ACME client of our own: it signs with any key and algorithm, and may be wrong in every way. It speaks to the
door's ASGI application, so that a test decides every octet.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from starlette.routing import Router

from rootward.ca.installation import Installation
from rootward.egress import Egress, make_rules
from rootward.protocols.acme.app import Settings, routes
from rootward.protocols.acme.challenges import Ways
from rootward.protocols.acme.validator import Validator

ADDRESS = "127.0.0.1"
_DIGESTS = {"ES256": hashes.SHA256(), "ES384": hashes.SHA384(), "ES512": hashes.SHA512()}
_CURVES = {"secp256r1": ("P-256", "ES256"), "secp384r1": ("P-384", "ES384"), "secp521r1": ("P-521", "ES512")}
Nothing: Any = object()  # as a header's value: leave it out


def b64(data: bytes) -> str:
    """base64url without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    """The octets of base64url without padding."""
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def new_key(kind: str = "P-256") -> Any:
    """A private key: P-256, P-384, P-521, Ed25519 or RSA-2048."""
    if kind == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind.startswith("RSA"):
        return rsa.generate_private_key(65537, int(kind.removeprefix("RSA-") or 2048))
    curves = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
    return ec.generate_private_key(curves[kind])


def jwk_of(key: Any) -> dict[str, str]:
    """The public key as JSON."""
    match key:
        case ec.EllipticCurvePrivateKey():
            numbers, size = key.public_key().public_numbers(), (key.key_size + 7) // 8
            name = _CURVES[key.curve.name][0]
            return {"kty": "EC", "crv": name, "x": b64(numbers.x.to_bytes(size)), "y": b64(numbers.y.to_bytes(size))}
        case ed25519.Ed25519PrivateKey():
            return {"kty": "OKP", "crv": "Ed25519", "x": b64(key.public_key().public_bytes_raw())}
        case _:
            numbers = key.public_key().public_numbers()
            return {"kty": "RSA", "n": b64(_octets(numbers.n)), "e": b64(_octets(numbers.e))}


def _octets(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8)


def algorithm_of(key: Any) -> str:
    """The algorithm that a key signs with."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return _CURVES[key.curve.name][1]
    return "EdDSA" if isinstance(key, ed25519.Ed25519PrivateKey) else "RS256"


def thumbprint(jwk: Mapping[str, str]) -> str:
    """RFC 7638."""
    names = {"EC": "crv kty x y", "OKP": "crv kty x", "RSA": "e kty n"}[jwk["kty"]].split()
    return b64(hashlib.sha256(json.dumps({n: jwk[n] for n in names}, separators=(",", ":")).encode()).digest())


def signature_of(key: Any, message: bytes) -> bytes:
    """A signature by a private key, or a MAC by a secret (bytes, HS256)."""
    match key:
        case bytes():
            return hmac.digest(key, message, "sha256")
        case ec.EllipticCurvePrivateKey():
            size = (key.key_size + 7) // 8
            r, s = decode_dss_signature(key.sign(message, ec.ECDSA(_DIGESTS[algorithm_of(key)])))
            return r.to_bytes(size) + s.to_bytes(size)
        case ed25519.Ed25519PrivateKey():
            return key.sign(message)
        case _:
            signed: bytes = key.sign(message, padding.PKCS1v15(), hashes.SHA256())
            return signed


def flattened(key: Any, header: Mapping[str, Any], payload: object) -> dict[str, str]:
    """A JWS (RFC 7515 7.2.2). `payload` is JSON, or octets as they are; "" is that of a POST-as-GET."""
    raw = payload if isinstance(payload, bytes) else b"" if payload == "" else json.dumps(payload).encode()
    protected, text = b64(json.dumps(dict(header)).encode()), b64(raw)
    return {
        "protected": protected,
        "payload": text,
        "signature": b64(signature_of(key, f"{protected}.{text}".encode())),
    }


@dataclass(frozen=True)
class Reply:
    """What came back. `links` are the targets by relation."""

    status: int
    header_list: list[tuple[str, str]]
    body: bytes

    @cached_property
    def headers(self) -> dict[str, str]:
        return dict(self.header_list)

    @cached_property
    def json(self) -> Any:
        return json.loads(self.body)

    @cached_property
    def links(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name, value in self.header_list:
            if name == "link":
                target, _, relation = value.partition(">;rel=")
                found.setdefault(relation.strip('"'), []).append(target[1:])
        return found

    @property
    def problem(self) -> str:
        """The type of the problem document that this must be, without its URN."""
        assert self.headers["content-type"] == "application/problem+json", self
        assert self.headers["cache-control"] == "no-store"
        assert self.json["status"] == self.status, self
        assert self.json["detail"]
        assert self.json["request_id"] == self.headers["x-request-id"]
        prefix, _, name = str(self.json["type"]).rpartition(":")
        assert prefix == "urn:ietf:params:acme:error"
        return name


@dataclass
class Wire:
    """The door of one installation. `address` is where its clients come from."""

    inst: Installation
    app: Any
    validator: Validator

    @classmethod
    def of(
        cls,
        inst: Installation,
        settings: Settings | None = None,
        *,
        validator: Validator | None = None,
        ways: Ways | None = None,
    ) -> Wire:
        """Without a `validator` or `ways`, with one that nothing can prove a name to."""
        nowhere = Ways(Egress(rules=make_rules(allow=()), resolvers=()))
        validator = validator or Validator(inst, ways or nowhere)
        made = routes(inst, settings or Settings(), validator)
        return cls(inst, Router(made, redirect_slashes=False), validator)

    @property
    def external_url(self) -> str:
        """What URLs of the door begin with."""
        return self.inst.external_url

    async def send(
        self,
        method: str,
        url: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        address: str = ADDRESS,
    ) -> Reply:
        """One request; `url` is a path or begins with the installation's own."""
        path = url.removeprefix(self.inst.external_url)
        bare, _, query = path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "https",
            "path": bare,
            "raw_path": bare.encode("latin-1"),
            "root_path": "",
            "query_string": query.encode("latin-1"),
            "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
            "client": (address, 40000),
            "server": ("localhost", 8443),
            "extensions": {},
        }
        sent: list[Any] = []
        waiting = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:
            return waiting.pop(0) if waiting else {"type": "http.disconnect"}

        async def take(message: Any) -> None:
            sent.append(message)

        await self.app(scope, receive, take)
        found = [(name.decode(), value.decode()) for name, value in sent[0]["headers"]]
        content = b"".join(bytes(message.get("body", b"")) for message in sent[1:])
        return Reply(sent[0]["status"], found, content)


class Door(Protocol):
    """Where a client's requests go: `Wire`, or a server's socket."""

    @property
    def external_url(self) -> str: ...

    async def send(
        self, method: str, url: str, body: bytes = b"", headers: Mapping[str, str] | None = None, address: str = ADDRESS
    ) -> Reply: ...


@dataclass
class Client:
    """A client with a key, and an account once it has one. `directory` is a profile's name, or "" for the common one.

    `post` takes what is to be wrong: `header` overrides parts of the protected header (`Nothing` leaves one out),
    `key` signs in place of the client's own, `nonce` is used instead of a fresh one, `raw` is sent as it is.
    """

    wire: Door
    key: Any = field(default_factory=new_key)
    directory: str = ""
    kid: str | None = None
    address: str = ADDRESS
    nonces: list[str] = field(default_factory=list)

    def path(self, resource: str) -> str:
        """The URL of a resource of the client's directory."""
        base = f"{self.wire.external_url}/acme"
        return f"{base}/{self.directory}/{resource}" if self.directory else f"{base}/{resource}"

    async def nonce(self) -> str:
        """One that was handed out and not used."""
        if not self.nonces:
            await self.get("new-nonce", method="HEAD")
        return self.nonces.pop()

    async def get(self, url: str, *, method: str = "GET") -> Reply:
        """Without a signature. A name without a slash is one of the directory's resources."""
        reply = await self.wire.send(method, self._url(url), address=self.address)
        return self._kept(reply)

    async def header(self, url: str, changes: Mapping[str, Any] | None = None, *, jwk: bool = False) -> dict[str, Any]:
        """The protected header of a POST."""
        changes = changes or {}
        found: dict[str, Any] = {"alg": algorithm_of(self.key), "url": url}
        if "nonce" not in changes:
            found["nonce"] = await self.nonce()
        if jwk or self.kid is None:
            found["jwk"] = jwk_of(self.key)
        else:
            found["kid"] = self.kid
        found |= changes
        return {name: value for name, value in found.items() if value is not Nothing}

    async def post(
        self,
        url: str,
        payload: object = "",
        *,
        header: Mapping[str, Any] | None = None,
        key: Any = None,
        jwk: bool = False,
        raw: bytes | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/jose+json",
    ) -> Reply:
        """A signed POST; without a payload, a POST-as-GET. `body` are members added to the JWS, or put in its place."""
        url = self._url(url)
        if raw is None:
            signed: dict[str, Any] = dict(flattened(key or self.key, await self.header(url, header, jwk=jwk), payload))
            raw = json.dumps(signed | dict(body or {})).encode()
        headers = {"content-type": content_type} if content_type else {}
        return self._kept(await self.wire.send("POST", url, raw, headers, self.address))

    async def register(self, **payload: Any) -> Reply:
        """newAccount; what comes of it is this client's account from then on."""
        reply = await self.post("new-account", payload, jwk=True)
        if reply.status in (200, 201):
            self.kid = reply.headers["location"]
        return reply

    def _url(self, url: str) -> str:
        return url if "/" in url else self.path(url)

    def _kept(self, reply: Reply) -> Reply:
        fresh = reply.headers.get("replay-nonce")
        if fresh is not None:
            self.nonces.append(fresh)
        return reply


def bound(kid: str, secret: bytes, jwk: object, url: str, header: Mapping[str, Any] | None = None) -> dict[str, str]:
    """An externalAccountBinding (RFC 8555 7.3.4); `header` overrides parts of its own (`Nothing` leaves one out)."""
    found = {"alg": "HS256", "kid": kid, "url": url} | dict(header or {})
    return flattened(secret, {name: value for name, value in found.items() if value is not Nothing}, jwk)
