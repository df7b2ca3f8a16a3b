"""Keys in Azure Key Vault or Managed HSM: `backend = "azure-kv"`, `uri = "https://NAME.vault.azure.net"`.

A key is called `LABEL-<16 random hex digits>`. `load` looks through the versions of those for the asked public key;
from then on that version's identifier (`kid`) is asked, and each reply must name it. Key Vault signs digests only, and
gives ECDSA signatures as r and s side by side (RFC 7518 3.4). Keys are made in an HSM, which takes a premium vault,
unless the uri ends in `?protection=software`. Key Vault REST API: create key, get key, sign, delete key.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from rootward.core.problems import Problem, shown
from rootward.core.pubkey import KeyAlgorithm, PublicKey
from rootward.keys import cloud
from rootward.keys.backend import Backend, KeySettings, Listing, check_algorithm, check_id, check_label, missing
from rootward.keys.cloud import Scheme
from rootward.keys.key import Key, NotSigned, SignatureUnknown

_URI = re.compile(r"https://[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){2,8}", re.ASCII)
_NAME = re.compile(r"([a-z0-9-]{1,64})-[0-9a-f]{16}", re.ASCII)

_RSA_SIZES: Final = {KeyAlgorithm.RSA_2048: 2048, KeyAlgorithm.RSA_3072: 3072, KeyAlgorithm.RSA_4096: 4096}
_CURVES: Final[dict[KeyAlgorithm, tuple[str, ec.EllipticCurve]]] = {
    KeyAlgorithm.P256: ("P-256", ec.SECP256R1()),
    KeyAlgorithm.P384: ("P-384", ec.SECP384R1()),
    KeyAlgorithm.P521: ("P-521", ec.SECP521R1()),
}
_SIGNING: Final[dict[Scheme, str]] = {
    Scheme(kind, f"sha{bits}"): f"{word}{bits}"
    for kind, word in (("ecdsa", "ES"), ("pkcs1", "RS"), ("pss", "PS"))
    for bits in (256, 384, 512)
}


class AzureBackend(Backend):
    """`client` gives the library's KeyClient when it is needed."""

    name = "azure-kv"
    algorithms = frozenset({*_RSA_SIZES, *_CURVES})

    def __init__(self, client: Callable[[], Any], *, store: str, vault: str, hsm: bool) -> None:
        self._client = client
        self._store = store
        self._hsm = hsm
        self._where = f"{vault} (key store {store})"

    def max_message_of(self, algorithm: KeyAlgorithm) -> int | None:
        return None

    def generate(self, label: str, algorithm: KeyAlgorithm) -> Key:
        check_label(label)
        check_algorithm(self, algorithm)
        # A name of its own: under one that is there already, this would be a new version of it.
        name = f"{label}-{secrets.token_hex(8)}"
        more: dict[str, Any] = {"hardware_protected": self._hsm, "key_operations": ["sign", "verify"]}
        if algorithm in _CURVES:
            made = self._do("for a new key", "create_ec_key", name, curve=_CURVES[algorithm][0], **more)
        else:
            made = self._do("for a new key", "create_rsa_key", name, size=_RSA_SIZES[algorithm], **more)
        return self._key(label, self._public(made), lambda: made)

    def load(self, label: str, public_id: str) -> Key:
        found = self._find(label, public_id)
        return self._key(label, self._public(found), lambda: found)

    def expect(self, label: str, public: PublicKey) -> Key:
        check_label(label)
        return self._key(label, public, cloud.later(lambda: self._find(label, public.id)))

    def delete(self, label: str, public_id: str) -> None:
        name = self._find(label, public_id).name
        if len(self._do("for a key's versions", "list_properties_of_key_versions", name, all=True)) > 1:
            raise Problem(
                "RW-CONFLICT",
                f"{name} in {self._where} has more than one version, and a deletion would take them all. "
                "Find out who made the others, and delete the key over there.",
            )
        self._do("for a deletion", "begin_delete_key", name)

    def list(self) -> Listing:
        return sorted(
            (label, self._public(self._get(version)).id) for label, version in self._each() if version.enabled
        )

    def _find(self, label: str, public_id: str) -> Any:
        """The version, as the library has it, with this public key."""
        check_label(label)
        check_id(public_id)
        off = ""
        for _, version in self._each(label):
            if not version.enabled:
                off = version.id  # it shows nobody its public key now, so it may be the one
                continue
            found = self._get(version)
            if self._public(found).id == public_id:
                return found
        if off:
            raise cloud.disabled(self._store, off)
        raise missing(label, public_id, where=self._where)

    def _each(self, only: str | None = None) -> Iterator[tuple[str, Any]]:
        """Label and properties of every version of a key of ours."""
        for found in self._do("for its keys", "list_properties_of_keys", all=True):
            name = _NAME.fullmatch(found.name)
            if name and name[1] == (only or name[1]):
                for version in self._do(
                    "for a key's versions", "list_properties_of_key_versions", found.name, all=True
                ):
                    yield name[1], version

    def _get(self, version: Any) -> Any:
        return self._do("for a public key", "get_key", version.name, version.version)

    def _public(self, found: Any) -> PublicKey:
        return cloud.public_of(_spki(found.key), where=self._where)

    def _key(self, label: str, public: PublicKey, version: Callable[[], Any]) -> Key:
        def sign(message: bytes, scheme: Scheme) -> bytes:
            found = version()
            path = f"/keys/{found.name}/{found.properties.version}/sign"
            signature = self._sign(found.id, path, message, scheme)
            return cloud.der_of(public, signature) if scheme.kind == "ecdsa" else signature

        return Key(cloud.remote(public, sign), label=label, remote=True)

    def _do(self, doing: str, operation: str, *arguments: Any, all: bool = False, **more: Any) -> Any:
        """One call that signs nothing (`all`: the pages of a list); Problem RW-KEY-UNAVAILABLE, caused by the library's
        error.
        """
        from azure.core.exceptions import AzureError

        try:
            reply = getattr(self._client(), operation)(*arguments, **more)
            return [*reply] if all else reply
        except (AzureError, ValueError) as error:  # ValueError: a reply that is no JSON
            raise cloud.unavailable(self._store, doing, error) from error

    def _sign(self, kid: str, path: str, message: bytes, scheme: Scheme) -> bytes:
        from azure.core.exceptions import AzureError, ClientAuthenticationError, ServiceRequestError
        from azure.core.rest import HttpRequest

        asked = {"alg": _SIGNING[scheme], "value": _encoded(scheme.digest(message))}
        try:
            # Not the library's CryptographyClient: it does not show which key the reply is for.
            reply = self._client().send_request(HttpRequest("POST", path, json=asked))
            status = reply.status_code
            body = reply.json() if status == 200 else {}
        except ClientAuthenticationError as error:
            raise NotSigned(f"{self._where}: {type(error).__name__}") from error
        except ServiceRequestError as error:
            if _never_sent(error):
                raise NotSigned(f"{self._where}: {type(error).__name__}") from error
            raise SignatureUnknown(f"{self._where}: {type(error).__name__}") from error
        except (AzureError, ValueError) as error:  # ValueError: a reply that is no JSON
            raise SignatureUnknown(f"{self._where}: {type(error).__name__}") from error
        if cloud.refused(status):
            raise NotSigned(f"{self._where}: HTTP status {status}")
        if status != 200:
            raise SignatureUnknown(f"{self._where}: HTTP status {status}")
        if not isinstance(body, dict) or body.get("kid") != kid:
            raise SignatureUnknown(f"{self._where}: the reply is for another key")
        try:
            return _decoded(body.get("value"))
        except (ValueError, TypeError) as error:
            raise SignatureUnknown(f"{self._where}: the reply has no signature that can be read") from error


def _never_sent(error: Any) -> bool:
    """Whether the connection was never there. The library says ServiceRequestError of a broken one as well."""
    from azure.core.exceptions import ServiceRequestTimeoutError
    from urllib3.exceptions import NewConnectionError

    return isinstance(error, ServiceRequestTimeoutError) or isinstance(error.inner_exception, NewConnectionError)


def _spki(key: Any) -> bytes:
    """The SubjectPublicKeyInfo of a JSON Web Key (RFC 7518 6); empty for one that is none of ours."""
    public: rsa.RSAPublicKey | ec.EllipticCurvePublicKey
    try:
        if key.crv is None:
            public = rsa.RSAPublicNumbers(_number(key.e), _number(key.n)).public_key()
        else:
            curve = next(curve for word, curve in _CURVES.values() if word == key.crv)
            public = ec.EllipticCurvePublicNumbers(_number(key.x), _number(key.y), curve).public_key()
    except (ValueError, TypeError, StopIteration):
        return b""
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _number(value: bytes) -> int:
    return int.from_bytes(value, "big")


def _encoded(value: bytes) -> str:
    """base64url without padding (RFC 7515 2)."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _decoded(text: Any) -> bytes:
    if re.search(r"[^A-Za-z0-9_-]", text):
        raise binascii.Error("no base64url")
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def open_azure(settings: KeySettings) -> AzureBackend:
    """Problem RW-CONFIG for a wrong table or without Azure's libraries. Nothing is called yet."""
    vault, hsm = cloud.protection(settings)
    if not _URI.fullmatch(vault):
        raise cloud.wrong(settings, f"uri must be https://NAME.vault.azure.net, not {shown(vault, 200)}.")
    cloud.check_plain(settings, named="Azure Key Vault")
    if settings.endpoint:
        raise cloud.wrong(settings, "Azure Key Vault is called at its uri. Remove endpoint.")
    try:
        from azure.identity import DefaultAzureCredential
        from azure.keyvault.keys import KeyClient
    except ImportError as error:
        raise cloud.no_library(settings, extra="azure", error=error) from error
    lock = threading.Lock()
    made: list[Any] = []

    def client() -> Any:
        with lock:
            if not made:
                patience = {"connection_timeout": cloud.CONNECT_SECONDS, "read_timeout": cloud.READ_SECONDS}
                # A token may be asked for again, a signature never.
                credential = DefaultAzureCredential(retry_total=1, **patience)
                made.append(KeyClient(vault, credential, retry_total=0, permit_redirects=False, **patience))
            return made[0]

    return AzureBackend(client, store=settings.store, vault=vault, hsm=hsm)
