"""A double of Azure Key Vault: its REST API over TLS on 127.0.0.1, with the challenge that the vendor's library waits
for, a managed identity's token, and faults on demand.

The product has no switch for it. The vault keeps its real name; here that name is dialled on 127.0.0.1, and its
certificate is trusted because REQUESTS_CA_BUNDLE says so.
"""

from __future__ import annotations

import base64
import json
import secrets
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import urllib3.util.connection
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from rootward.core.pubkey import KeyAlgorithm
from rootward.keys import KeySettings
from tests.support.cloud import Broken, Handler, Script, Stored, new, serving, sign_digest, tls_pair

HOST = "rootward-test.vault.azure.net"
VAULT = f"https://{HOST}"
_CURVES = {"P-256": KeyAlgorithm.P256, "P-384": KeyAlgorithm.P384, "P-521": KeyAlgorithm.P521}
_SIZES = {2048: KeyAlgorithm.RSA_2048, 3072: KeyAlgorithm.RSA_3072, 4096: KeyAlgorithm.RSA_4096}
TOKEN = "a-token-for-tests"
Reply = tuple[int, Any, dict[str, str]]


def _b64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _bytes(number: int, size: int) -> str:
    return _b64(number.to_bytes(size, "big"))


class FakeAzure:
    """`versions` are keys by their path `NAME/VERSION`; `page` is how many one reply lists."""

    def __init__(self) -> None:
        self.script = Script()
        self.versions: dict[str, Stored] = {}
        self.page = 2

    def answer(self, handler: Handler, body: bytes) -> Reply:
        """One request: anonymous ones get the challenge (RFC 6750), as the library wants it."""
        if handler.headers["Authorization"] != f"Bearer {TOKEN}":
            self.script.asked.append("challenge")
            assert not body, "what is to be signed goes to nobody who has not shown that it is the vault"
            challenge = 'Bearer authorization="https://login.microsoftonline.com/t", resource="https://vault.azure.net"'
            return 401, {}, {"WWW-Authenticate": challenge}
        url = urlsplit(handler.path)
        path = url.path.strip("/").split("/")[1:]
        asked = json.loads(body) if body else {}
        name = {"create": "create", "sign": "sign", "versions": "versions"}.get(path[-1] if path else "")
        name = name or (handler.command.lower() if path else "list")
        self.script.asked.append(name)
        if self.script.away:
            raise Broken
        skip = int(parse_qs(url.query).get("skip", ["0"])[0])
        found: Reply = getattr(self, f"_{name}")(path, asked, skip)
        return found

    def _bundle(self, path: str) -> dict[str, Any]:
        key = self.versions[path]
        public = key.private.public_key()
        facts: dict[str, Any] = {"kid": f"{VAULT}/keys/{path}", "key_ops": key.facts["key_ops"]}
        if isinstance(public, rsa.RSAPublicKey):
            numbers = public.public_numbers()
            facts |= {"kty": key.facts["kty"], "n": _bytes(numbers.n, public.key_size // 8), "e": "AQAB"}
        else:
            point = public.public_numbers()
            size = (public.key_size + 7) // 8
            facts |= {"kty": key.facts["kty"], "crv": key.facts["crv"]}
            facts |= {"x": _bytes(point.x, size), "y": _bytes(point.y, size)}
        return {"key": facts, "attributes": self._attributes(path)}

    def _attributes(self, path: str) -> dict[str, Any]:
        return {"enabled": self.versions[path].facts.get("enabled", True), "created": 1, "updated": 1}

    def add(self, name: str, algorithm: KeyAlgorithm, **facts: Any) -> str:
        """A new version; its path."""
        path = f"{name}/{secrets.token_hex(16)}"
        self.versions[path] = new(path, algorithm, **facts)
        return path

    def _create(self, path: list[str], asked: dict[str, Any], _skip: int) -> Reply:
        algorithm = _CURVES[asked["crv"]] if "crv" in asked else _SIZES[asked["key_size"]]
        facts = {name: asked.get(name) for name in ("kty", "crv", "key_ops")}
        return 200, self._bundle(self.add(path[0], algorithm, **facts)), {}

    def _of(self, name: str) -> list[str]:
        return [path for path in self.versions if path.startswith(f"{name}/")]

    def _paged(self, items: list[dict[str, Any]], skip: int, where: str) -> Reply:
        more = f"{VAULT}/{where}?api-version=7.6&skip={skip + self.page}" if skip + self.page < len(items) else None
        return 200, {"value": items[skip : skip + self.page], "nextLink": more}, {}

    def _list(self, _path: list[str], _asked: dict[str, Any], skip: int) -> Reply:
        names = ["theirs", *sorted({path.partition("/")[0] for path in self.versions})]
        items = [{"kid": f"{VAULT}/keys/{name}", "attributes": {"enabled": True}} for name in names]
        return self._paged(items, skip, "keys")

    def _versions(self, path: list[str], _asked: dict[str, Any], skip: int) -> Reply:
        items = [
            {"kid": f"{VAULT}/keys/{one}", "attributes": self._attributes(one)} for one in sorted(self._of(path[0]))
        ]
        return self._paged(items, skip, f"keys/{path[0]}/versions")

    def _get(self, path: list[str], _asked: dict[str, Any], _skip: int) -> Reply:
        found = "/".join(path)
        if found not in self.versions:
            return 404, {"error": {"code": "KeyNotFound", "message": "none"}}, {}
        if not self.versions[found].facts.get("enabled", True):
            return 403, {"error": {"code": "Forbidden", "message": "disabled"}}, {}
        return 200, self._bundle(found), {}

    def _delete(self, path: list[str], _asked: dict[str, Any], _skip: int) -> Reply:
        gone = self._of(path[0])
        if not gone:
            return 404, {"error": {"code": "KeyNotFound", "message": "none"}}, {}
        bundle = self._bundle(gone[-1])
        for one in gone:
            del self.versions[one]
        later = {"deletedDate": 1, "scheduledPurgeDate": 2}
        return 200, bundle | {"recoveryId": f"{VAULT}/deletedkeys/{path[0]}"} | later, {}

    def _sign(self, path: list[str], asked: dict[str, Any], _skip: int) -> Reply:
        fault = self.script.fault()
        if fault in _REFUSED:
            return _REFUSED[fault]
        if fault == "reset-before":
            raise Broken
        where = "/".join(path[:2])
        key = self.versions.get(where)
        if key is None:
            return 404, {"error": {"code": "KeyNotFound", "message": "none"}}, {}
        if not key.facts.get("enabled", True):
            return 403, {"error": {"code": "Forbidden", "message": "disabled"}}, {}
        if fault == "swapped":
            key = new(key.name, key.algorithm)
        digest = base64.urlsafe_b64decode(asked["value"] + "==")
        signature = self._flat(key, digest, asked["alg"])
        self.script.made.append(digest)
        if fault == "reset-after":
            raise Broken
        if fault == "hang":
            self.script.released.wait(60)
            raise Broken
        if fault == "error-after":
            return 500, {"error": {"code": "InternalError", "message": "for a test"}}, {}
        if fault == "redirect":
            return 307, b"", {"Location": f"{VAULT}/keys/{where}/sign"}
        if fault == "garbage":
            return 200, b"<html>\xff", {}
        reply = {"kid": f"{VAULT}/keys/{where}", "value": _b64(signature[:-3] if fault == "truncated" else signature)}
        if fault == "other-key":
            reply["kid"] = f"{VAULT}/keys/{path[0]}/{secrets.token_hex(16)}"
        if fault == "no-signature":
            del reply["value"]
        if fault == "not-base64":
            reply["value"] = "?!"
        if fault == "cut":
            return 200, json.dumps(reply).encode()[:-20], {"Content-Length": "4000"}
        return 200, reply, {}

    def _flat(self, key: Stored, digest: bytes, algorithm: str) -> bytes:
        signature = sign_digest(key.private, digest, algorithm[2:], pss=algorithm.startswith("PS"))
        if not algorithm.startswith("ES"):
            return signature
        size = (key.private.key_size + 7) // 8
        return b"".join(number.to_bytes(size, "big") for number in decode_dss_signature(signature))


_REFUSED: dict[str, Reply] = {
    "throttled": (429, {"error": {"code": "Throttled", "message": "slow down"}}, {"Retry-After": "1"}),
    "denied": (403, {"error": {"code": "Forbidden", "message": "no"}}, {}),
    "unauthenticated": (401, {"error": {"code": "Unauthorized", "message": "no"}}, {}),
    "error-before": (503, {"error": {"code": "ServiceUnavailable", "message": "no"}}, {"Retry-After": "1"}),
    "too-late": (408, {"error": {"code": "Timeout", "message": "no"}}, {}),
}
# What each fault of sign means to whoever asked: surely unsigned, or nobody knows.
REFUSALS = ("throttled", "denied", "unauthenticated")
DOUBTS = (
    "reset-before",
    "reset-after",
    "error-before",
    "error-after",
    "too-late",
    "redirect",
    "garbage",
    "not-base64",
    "no-signature",
    "truncated",
    "cut",
    "other-key",
    "hang",
)


def _identity(handler: Handler, _body: bytes) -> Reply:
    """The token of a managed identity, as an application service gives it."""
    assert handler.headers["X-IDENTITY-HEADER"] == "for-tests"
    later = int((datetime.now(UTC) + timedelta(hours=12)).timestamp())
    return 200, {"access_token": TOKEN, "expires_on": str(later), "resource": "r", "token_type": "Bearer"}, {}


@contextmanager
def fake_azure(folder: Path, *, uri: str = VAULT) -> Iterator[tuple[FakeAzure, KeySettings]]:
    """The service, and what a `[keys.NAME]` table says of it. `folder` takes its certificate."""
    fake = FakeAzure()
    path = folder / "vault.pem"
    path.write_bytes(b"".join(reversed(tls_pair("*.vault.azure.net"))))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(path)
    dial: Any = urllib3.util.connection.create_connection

    def wrap(sock: socket.socket) -> ssl.SSLSocket:
        return tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)

    with (
        serving(fake.answer, wrap=wrap) as port,
        serving(_identity) as identity,
        pytest.MonkeyPatch.context() as patch,
    ):

        def dialled(address: tuple[str, int], *more: Any, **named: Any) -> socket.socket:
            found: socket.socket = dial(("127.0.0.1", port) if address == (HOST, 443) else address, *more, **named)
            return found

        patch.setattr(urllib3.util.connection, "create_connection", dialled)
        patch.setenv("REQUESTS_CA_BUNDLE", str(path))
        patch.setenv("IDENTITY_ENDPOINT", f"http://127.0.0.1:{identity}/token")
        patch.setenv("IDENTITY_HEADER", "for-tests")
        for name in ("AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_CLIENT_SECRET", "AZURE_FEDERATED_TOKEN_FILE"):
            patch.delenv(name, raising=False)
        try:
            yield fake, KeySettings(store="cloud", uri=uri)
        finally:
            fake.script.released.set()
