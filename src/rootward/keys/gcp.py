"""Keys in Google Cloud KMS: `backend = "gcp-kms"`, `uri = "projects/P/locations/L/keyRings/R"`.

A key is a CryptoKey of the ring whose labels say whose it is (`rootward-label`, and `rootward-label-end` for the 64th
character, which one label has no room for). `load` looks through those for the asked public key; from then on the name
of that very version is asked, always the first one: it is never replaced. What is sent and what comes back carries
CRC32C sums, as Google asks of its clients. Keys are made in an HSM unless the uri ends in `?protection=software`;
Ed25519 and ML-DSA are only made in software. Cloud KMS API, v1: AsymmetricSign, GetPublicKey.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric import mldsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from rootward.core.problems import shown
from rootward.core.pubkey import KeyAlgorithm, PublicKey
from rootward.keys import cloud
from rootward.keys.backend import Backend, KeySettings, Listing, check_algorithm, check_id, check_label, missing
from rootward.keys.cloud import Scheme
from rootward.keys.key import Key, NotSigned, SignatureUnknown

_URI = re.compile(r"projects/[a-z0-9.:-]{1,80}/locations/[a-z0-9-]{1,40}/keyRings/[a-zA-Z0-9_-]{1,63}", re.ASCII)
_LABEL, _END = "rootward-label", "rootward-label-end"
_LABEL_SIZE: Final = 63
# The most of a message that goes there whole, for Ed25519. Google names no limit for signatures; this is the one that
# it has for plain data with HSM keys.
_RAW: Final = 8192
_MAKING_SECONDS: Final = 60
_WAITING_SECONDS: Final = 30 * 24 * 3600


class _Kind(NamedTuple):
    """Google's word for a key, which fixes how it signs, and whether it is made in an HSM."""

    word: str
    scheme: Scheme
    hsm: bool


_KINDS: Final[dict[KeyAlgorithm, _Kind]] = {
    KeyAlgorithm.RSA_2048: _Kind("RSA_SIGN_PKCS1_2048_SHA256", Scheme("pkcs1", "sha256"), True),
    KeyAlgorithm.RSA_3072: _Kind("RSA_SIGN_PKCS1_3072_SHA256", Scheme("pkcs1", "sha256"), True),
    KeyAlgorithm.RSA_4096: _Kind("RSA_SIGN_PKCS1_4096_SHA256", Scheme("pkcs1", "sha256"), True),
    KeyAlgorithm.P256: _Kind("EC_SIGN_P256_SHA256", Scheme("ecdsa", "sha256"), True),
    KeyAlgorithm.P384: _Kind("EC_SIGN_P384_SHA384", Scheme("ecdsa", "sha384"), True),
    KeyAlgorithm.ED25519: _Kind("EC_SIGN_ED25519", Scheme("pure"), False),
    KeyAlgorithm.ML_DSA_44: _Kind("PQ_SIGN_ML_DSA_44_EXTERNAL_MU", Scheme("pure"), False),
    KeyAlgorithm.ML_DSA_65: _Kind("PQ_SIGN_ML_DSA_65_EXTERNAL_MU", Scheme("pure"), False),
    KeyAlgorithm.ML_DSA_87: _Kind("PQ_SIGN_ML_DSA_87_EXTERNAL_MU", Scheme("pure"), False),
}
_ML_DSA: Final[dict[KeyAlgorithm, Any]] = {
    KeyAlgorithm.ML_DSA_44: mldsa.MLDSA44PublicKey,
    KeyAlgorithm.ML_DSA_65: mldsa.MLDSA65PublicKey,
    KeyAlgorithm.ML_DSA_87: mldsa.MLDSA87PublicKey,
}
_ALGORITHMS: Final = {kind.word: algorithm for algorithm, kind in _KINDS.items()}
# gRPC's words for: it was surely not carried out. UNAVAILABLE is none: the connection may have broken behind it.
_UNSIGNED: Final = frozenset(
    "INVALID_ARGUMENT NOT_FOUND PERMISSION_DENIED UNAUTHENTICATED RESOURCE_EXHAUSTED FAILED_PRECONDITION OUT_OF_RANGE "
    "UNIMPLEMENTED".split()
)


class GcpBackend(Backend):
    """`client` gives the library's client when it is needed, or raises one of google.auth's errors."""

    name = "gcp-kms"
    algorithms: frozenset[KeyAlgorithm] = frozenset(_KINDS)
    pss = False  # a key signs in the one way that it was made for

    def __init__(self, client: Callable[[], Any], *, store: str, ring: str, hsm: bool) -> None:
        self._client = client
        self._store = store
        self._ring = ring
        self._hsm = hsm
        self._where = f"Google Cloud KMS {ring} (key store {store})"
        if hsm:
            self.algorithms = frozenset(one for one, kind in _KINDS.items() if kind.hsm)

    def max_message_of(self, algorithm: KeyAlgorithm) -> int | None:
        return _RAW if algorithm is KeyAlgorithm.ED25519 else None

    def generate(self, label: str, algorithm: KeyAlgorithm) -> Key:
        check_label(label)
        check_algorithm(self, algorithm)
        template = {
            "algorithm": _KINDS[algorithm].word,
            "protection_level": "HSM" if self._hsm else "SOFTWARE",
        }
        key = {
            "purpose": "ASYMMETRIC_SIGN",
            "version_template": template,
            "destroy_scheduled_duration": {"seconds": _WAITING_SECONDS},
            "labels": {_LABEL: label[:_LABEL_SIZE]} | ({_END: label[_LABEL_SIZE:]} if label[_LABEL_SIZE:] else {}),
        }
        # The id only has to be a new one; who looks for the key goes by the labels.
        asked = {"parent": self._ring, "crypto_key_id": f"{label[:46]}-{secrets.token_hex(8)}", "crypto_key": key}
        made = self._do("for a new key", "create_crypto_key", asked)
        version = f"{made.name}/cryptoKeyVersions/1"
        return self._key(label, self._public(version, self._made(version)), lambda: version)

    def load(self, label: str, public_id: str) -> Key:
        version, public = self._find(label, public_id)
        return self._key(label, public, lambda: version)

    def expect(self, label: str, public: PublicKey) -> Key:
        check_label(label)
        return self._key(label, public, cloud.later(lambda: self._find(label, public.id)[0]))

    def delete(self, label: str, public_id: str) -> None:
        version, _ = self._find(label, public_id)
        self._do("for a deletion", "destroy_crypto_key_version", {"name": version})

    def list(self) -> Listing:
        return sorted(
            (label, self._public(version.name, version).id) for label, version in self._each() if _on(version)
        )

    def _find(self, label: str, public_id: str) -> tuple[str, PublicKey]:
        """The name of the version that has this public key."""
        check_label(label)
        check_id(public_id)
        off = ""
        for _, version in self._each(label):
            if not _on(version):
                off = version.name  # it shows nobody its public key now, so it may be the one
                continue
            public = self._public(version.name, version)
            if public.id == public_id:
                return version.name, public
        if off:
            raise cloud.disabled(self._store, off)
        raise missing(label, public_id, where=self._where)

    def _each(self, only: str | None = None) -> Iterator[tuple[str, Any]]:
        """Label and version of every key of ours that is enabled or disabled."""
        token = ""
        while True:
            page = self._do("for its keys", "list_crypto_keys", {"parent": self._ring, "page_token": token})
            for key in page.crypto_keys:
                label = key.labels.get(_LABEL, "") + key.labels.get(_END, "")
                if label and label == (only or label):
                    name = f"{key.name}/cryptoKeyVersions/1"
                    version = self._do("for a key's state", "get_crypto_key_version", {"name": name})
                    if version.state.name in ("ENABLED", "DISABLED") and version.algorithm.name in _ALGORITHMS:
                        yield label, version
            token = page.next_page_token
            if not token:
                return

    def _made(self, version: str) -> Any:
        """The version, once its key is there: an HSM takes its seconds."""
        from google.api_core.exceptions import RetryError
        from google.api_core.retry import Retry, if_exception_type

        def look() -> Any:
            found = self._do("for a new key's state", "get_crypto_key_version", {"name": version})
            if found.state.name == "PENDING_GENERATION":
                raise _NotYet(version)
            return found

        try:
            return Retry(if_exception_type(_NotYet), initial=0.2, maximum=2, timeout=_MAKING_SECONDS)(look)()
        except RetryError as error:
            raise cloud.unavailable(self._store, f"for a new key, {version}", error) from error

    def _public(self, version: str, state: Any) -> PublicKey:
        algorithm = _ALGORITHMS[state.algorithm.name]
        quantum = algorithm in cloud.ML_DSA
        asked = {"name": version, "public_key_format": "NIST_PQC" if quantum else "PEM"}
        reply = self._do("for a public key", "get_public_key", asked)
        data = reply.public_key.data
        if reply.name != version or reply.public_key.crc32c_checksum != crc32c(data):
            error = ValueError("the reply is for another key, or was damaged")
            raise cloud.unavailable(self._store, "for a public key", error)
        try:
            key = _ML_DSA[algorithm].from_public_bytes(data) if quantum else load_pem_public_key(data)
            spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        except ValueError as error:
            raise cloud.unavailable(self._store, "for a public key", error) from error
        return cloud.public_of(spki, where=self._where)

    def _key(self, label: str, public: PublicKey, version: Callable[[], str]) -> Key:
        def sign(message: bytes, scheme: Scheme) -> bytes:
            return self._sign(version(), public, message, scheme)

        limit = self.max_message_of(public.algorithm)
        return Key(cloud.remote(public, sign), label=label, max_message=limit, remote=True)

    def _do(self, doing: str, operation: str, request: dict[str, Any]) -> Any:
        """One call that signs nothing; Problem RW-KEY-UNAVAILABLE, caused by the library's error."""
        from google.api_core.exceptions import GoogleAPICallError
        from google.auth.exceptions import GoogleAuthError

        try:
            return getattr(self._client(), operation)(request=request, retry=None, timeout=cloud.READ_SECONDS)
        except (GoogleAPICallError, GoogleAuthError) as error:
            raise cloud.unavailable(self._store, doing, error) from error

    def _sign(self, version: str, public: PublicKey, message: bytes, scheme: Scheme) -> bytes:
        from google.api_core.exceptions import GoogleAPICallError

        if scheme != _KINDS[public.algorithm].scheme:
            raise NotSigned(f"{self._where}: a key of this kind signs {_KINDS[public.algorithm].scheme}, not {scheme}")
        request = _asked(version, public, message, scheme)
        client = self._connected()
        try:
            reply = client.asymmetric_sign(request=request, retry=None, timeout=cloud.READ_SECONDS)
        except GoogleAPICallError as error:
            code = getattr(error.grpc_status_code, "name", "")
            if code in _UNSIGNED:
                raise NotSigned(f"{self._where}: {code}") from error
            raise SignatureUnknown(f"{self._where}: {code}") from error
        if reply.name != version:
            raise SignatureUnknown(f"{self._where}: the reply is for another key")
        if not (reply.verified_data_crc32c if "data" in request else reply.verified_digest_crc32c):
            raise SignatureUnknown(f"{self._where}: what was signed may not be what was sent")
        if reply.signature_crc32c != crc32c(reply.signature):
            raise SignatureUnknown(f"{self._where}: the signature was damaged on its way")
        signature: bytes = reply.signature
        return signature

    def _connected(self) -> Any:
        """The client, once it has a connection: what fails before that has surely not signed."""
        import grpc
        from google.auth.exceptions import GoogleAuthError

        try:
            client = self._client()
        except GoogleAuthError as error:
            raise NotSigned(f"{self._where}: {type(error).__name__}") from error
        ready = grpc.channel_ready_future(client.transport.grpc_channel)
        try:
            ready.result(timeout=cloud.CONNECT_SECONDS)
        except grpc.FutureTimeoutError as error:
            ready.cancel()
            raise NotSigned(f"{self._where} cannot be reached") from error
        return client


def _on(version: Any) -> bool:
    return bool(version.state.name == "ENABLED")


class _NotYet(Exception):
    """The key is still being made."""


def _asked(version: str, public: PublicKey, message: bytes, scheme: Scheme) -> dict[str, Any]:
    """An AsymmetricSignRequest."""
    if public.algorithm is KeyAlgorithm.ED25519:
        return {"name": version, "data": message, "data_crc32c": crc32c(message)}
    if public.algorithm in cloud.ML_DSA:
        field, digest = "external_mu", cloud.external_mu(public, message)
    else:
        field, digest = scheme.hash, scheme.digest(message)
    return {"name": version, "digest": {field: digest}, "digest_crc32c": crc32c(digest)}


def _entry(value: int) -> int:
    for _ in range(8):
        value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    return value


_TABLE: Final = tuple(map(_entry, range(256)))


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli; RFC 9260 appendix A). Ours, because the library brings none, and small things go through."""
    value = 0xFFFFFFFF
    for octet in data:
        value = _TABLE[(value ^ octet) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


def open_gcp(settings: KeySettings) -> GcpBackend:
    """Problem RW-CONFIG for a wrong table or without google-cloud-kms. Nothing is called yet."""
    ring, hsm = cloud.protection(settings)
    if not _URI.fullmatch(ring):
        raise cloud.wrong(
            settings, f"uri must be projects/PROJECT/locations/LOCATION/keyRings/RING, not {shown(ring, 200)}."
        )
    cloud.check_plain(settings, named="Google Cloud KMS")
    cloud.check_endpoint(settings)
    try:
        import google.auth
        import grpc
        from google.cloud.kms_v1 import KeyManagementServiceClient
        from google.cloud.kms_v1.services.key_management_service.transports import KeyManagementServiceGrpcTransport
    except ImportError as error:
        raise cloud.no_library(settings, extra="gcp", error=error) from error
    parts = urlsplit(settings.endpoint)
    lock = threading.Lock()
    made: list[Any] = []

    def client() -> Any:
        with lock:
            if not made and parts.scheme == "http":
                # To this very machine: no credentials are sent, and no proxy is asked.
                channel = grpc.insecure_channel(parts.netloc, options=[("grpc.enable_http_proxy", 0)])
                transport = KeyManagementServiceGrpcTransport(channel=channel)
                made.append(KeyManagementServiceClient(transport=transport))
            elif not made:
                found, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloudkms"])
                options = {"api_endpoint": parts.netloc} if parts.netloc else None
                made.append(KeyManagementServiceClient(credentials=found, client_options=options))
            return made[0]

    return GcpBackend(client, store=settings.store, ring=ring, hsm=hsm)
