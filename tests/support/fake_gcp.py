"""A double of Google Cloud KMS: a gRPC server on 127.0.0.1 that speaks the vendor's own protobuf messages, with their
CRC32C sums, and with faults on demand.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import grpc
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from google.auth import jwt
from google.cloud.kms_v1.types import resources, service

from rootward.core.pubkey import KeyAlgorithm
from rootward.keys import KeySettings
from tests.support.cloud import Script, Stored, new, sign_digest, tls_pair

RING = "projects/rootward-test/locations/europe-west3/keyRings/pki"
_SERVICE = "google.cloud.kms.v1.KeyManagementService"
Version = resources.CryptoKeyVersion
_ALGORITHMS = {
    "RSA_SIGN_PKCS1_2048_SHA256": KeyAlgorithm.RSA_2048,
    "RSA_SIGN_PKCS1_3072_SHA256": KeyAlgorithm.RSA_3072,
    "RSA_SIGN_PKCS1_4096_SHA256": KeyAlgorithm.RSA_4096,
    "EC_SIGN_P256_SHA256": KeyAlgorithm.P256,
    "EC_SIGN_P384_SHA384": KeyAlgorithm.P384,
    "EC_SIGN_ED25519": KeyAlgorithm.ED25519,
    "PQ_SIGN_ML_DSA_44_EXTERNAL_MU": KeyAlgorithm.ML_DSA_44,
    "PQ_SIGN_ML_DSA_65_EXTERNAL_MU": KeyAlgorithm.ML_DSA_65,
    "PQ_SIGN_ML_DSA_87_EXTERNAL_MU": KeyAlgorithm.ML_DSA_87,
}


def _reflected(value: int, bits: int) -> int:
    return int(f"{value:0{bits}b}"[::-1], 2)


def checksum(data: bytes) -> int:
    """CRC-32C as its polynomial division, bit by bit: another way than the product's table."""
    value = 0xFFFFFFFF
    for octet in data:
        value ^= _reflected(octet, 8) << 24
        for _ in range(8):
            value = ((value << 1) ^ 0x1EDC6F41 if value & 0x80000000 else value << 1) & 0xFFFFFFFF
    return _reflected(value ^ 0xFFFFFFFF, 32)


class FakeGcp:
    """`keys` by their resource name. A new key is PENDING_GENERATION for `making` looks at it."""

    def __init__(self) -> None:
        self.script = Script()
        self.keys: dict[str, Stored] = {}
        self.page = 2
        self.making = 1
        self.tokens = 0  # calls that brought a token, where one is asked for
        self.spoilt = ""  # what is wrong with public keys

    def handlers(self) -> grpc.GenericRpcHandler:
        """The methods that the product calls; every other one is UNIMPLEMENTED."""
        methods = {
            "CreateCryptoKey": (self.create, service.CreateCryptoKeyRequest, resources.CryptoKey),
            "ListCryptoKeys": (self.list, service.ListCryptoKeysRequest, service.ListCryptoKeysResponse),
            "GetCryptoKeyVersion": (self.version, service.GetCryptoKeyVersionRequest, Version),
            "GetPublicKey": (self.public, service.GetPublicKeyRequest, resources.PublicKey),
            "DestroyCryptoKeyVersion": (self.destroy, service.DestroyCryptoKeyVersionRequest, Version),
            "AsymmetricSign": (self.sign, service.AsymmetricSignRequest, service.AsymmetricSignResponse),
        }
        return grpc.method_handlers_generic_handler(
            _SERVICE,
            {
                name: grpc.unary_unary_rpc_method_handler(
                    self._counted(name, call),
                    request_deserializer=asked.deserialize,
                    response_serializer=lambda reply, given=given: (
                        reply if isinstance(reply, bytes) else given.serialize(reply)
                    ),
                )
                for name, (call, asked, given) in methods.items()
            },
        )

    def _counted(self, name: str, call: Any) -> Any:
        def counted(request: Any, context: grpc.ServicerContext) -> Any:
            self.script.asked.append(name)
            if self.script.away:
                context.abort(grpc.StatusCode.UNAVAILABLE, "down for a test")
            return call(request, context)

        return counted

    def create(self, request: Any, context: Any) -> Any:
        """A new key, being made."""
        assert request.parent == RING
        assert request.crypto_key.purpose.name == "ASYMMETRIC_SIGN"
        name = f"{RING}/cryptoKeys/{request.crypto_key_id}"
        assert len(request.crypto_key_id) <= 63
        assert all(len(value) <= 63 for value in request.crypto_key.labels.values())
        word = request.crypto_key.version_template.algorithm.name
        if name in self.keys:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, "there is one")
        facts = {"labels": dict(request.crypto_key.labels), "word": word, "state": "ENABLED", "looks": self.making}
        facts["level"] = request.crypto_key.version_template.protection_level.name
        self.keys[name] = new(name, _ALGORITHMS[word], **facts)
        return resources.CryptoKey(name=name, labels=facts["labels"])

    def list(self, request: Any, context: Any) -> Any:
        """A page of keys, and one that is not ours."""
        names = [f"{RING}/cryptoKeys/theirs", *sorted(self.keys)]
        start = int(request.page_token or "0")
        shown = names[start : start + self.page]
        more = str(start + self.page) if start + self.page < len(names) else ""
        found = [
            resources.CryptoKey(name=name, labels=self.keys[name].facts["labels"] if name in self.keys else {"a": "b"})
            for name in shown
        ]
        return service.ListCryptoKeysResponse(crypto_keys=found, next_page_token=more)

    def _key(self, version: str, context: Any) -> Stored:
        name, _, number = version.partition("/cryptoKeyVersions/")
        if name not in self.keys or number != "1":
            context.abort(grpc.StatusCode.NOT_FOUND, "no such version")
        return self.keys[name]

    def version(self, request: Any, context: Any) -> Any:
        """Its state."""
        key = self._key(request.name, context)
        state = key.facts["state"]
        if key.facts["looks"] > 0:
            key.facts["looks"] -= 1
            state = "PENDING_GENERATION"
        return Version(name=request.name, state=state, algorithm=key.facts["word"])

    def _enabled(self, version: str, context: Any) -> Stored:
        key = self._key(version, context)
        if key.facts["state"] != "ENABLED":
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"the version is {key.facts['state']}")
        return key

    def public(self, request: Any, context: Any) -> Any:
        """The public key, in the form that its algorithm has."""
        public = self._enabled(request.name, context).private.public_key()
        quantum = hasattr(public, "verify_mu")
        if quantum != (request.public_key_format.name == "NIST_PQC"):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not in this form")
        if quantum:
            data = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
        else:
            data = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        sum = checksum(data) ^ (self.spoilt == "wrong-sum")
        if self.spoilt == "garbage":
            data = data[:-40]
            sum = checksum(data)
        name = request.name + ("0" if self.spoilt == "other-key" else "")
        return resources.PublicKey(name=name, public_key={"data": data, "crc32c_checksum": sum})

    def destroy(self, request: Any, context: Any) -> Any:
        """Scheduled, as it is over there."""
        key = self._key(request.name, context)
        key.facts["state"] = "DESTROY_SCHEDULED"
        return Version(name=request.name, state="DESTROY_SCHEDULED")

    def sign(self, request: Any, context: Any) -> Any:
        """A signature, or this call's fault."""
        fault = self.script.fault()
        if fault in _CODES and fault != "error-after":
            context.abort(_CODES[fault], f"{fault} for a test")
        key = self._enabled(request.name, context)
        if fault == "swapped":
            key = new(key.name, key.algorithm, **key.facts)
        signature, what = self._signed(key, request, context)
        if fault == "error-after":
            context.abort(_CODES[fault], "for a test")
        if fault == "hang":
            self.script.released.wait(60)
        if fault == "garbage":
            return b"\xff\xff\xff"
        sum = checksum(signature)
        if fault == "truncated":
            signature = signature[:-3]
            sum = checksum(signature)
        return service.AsymmetricSignResponse(
            name=request.name + ("0" if fault == "other-key" else ""),
            signature=b"" if fault == "no-signature" else signature,
            signature_crc32c=None if fault == "no-sum" else sum ^ (fault == "wrong-sum"),
            verified_digest_crc32c=what == "digest" and fault != "unverified",
            verified_data_crc32c=what == "data" and fault != "unverified",
        )

    def _signed(self, key: Stored, request: Any, context: Any) -> tuple[bytes, str]:
        def refuse(why: str) -> NoReturn:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, why)

        word = key.facts["word"]
        if word == "EC_SIGN_ED25519":
            if not 1 <= len(request.data) <= 8192 or request.data_crc32c != checksum(request.data):
                refuse("data")
            self.script.made.append(request.data)
            return key.private.sign(request.data), "data"
        field = "external_mu" if word.endswith("EXTERNAL_MU") else word.rpartition("_")[2].lower()
        digest = getattr(request.digest, field)
        if not digest or request.data or request.digest_crc32c != checksum(digest):
            refuse("digest")
        if field == "external_mu":
            signature = key.private.sign_mu(digest)
        else:
            signature = sign_digest(key.private, digest, field[-3:])
        self.script.made.append(digest)
        return signature, "digest"


_CODES = {
    "throttled": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "denied": grpc.StatusCode.PERMISSION_DENIED,
    "disabled": grpc.StatusCode.FAILED_PRECONDITION,
    "error-before": grpc.StatusCode.UNAVAILABLE,
    "internal": grpc.StatusCode.INTERNAL,
    "reset-before": grpc.StatusCode.UNKNOWN,
    "error-after": grpc.StatusCode.UNAVAILABLE,
}
# What each fault of AsymmetricSign means to whoever asked: surely unsigned, or nobody knows.
REFUSALS = ("throttled", "denied", "disabled")
DOUBTS = (
    "error-before",
    "internal",
    "reset-before",
    "error-after",
    "garbage",
    "no-signature",
    "no-sum",
    "wrong-sum",
    "unverified",
    "truncated",
    "other-key",
    "hang",
)


@contextmanager
def secured_gcp(folder: Path) -> Iterator[tuple[FakeGcp, KeySettings]]:
    """The same over TLS, with the credentials of a service account: each call has to bring its signed token (RFC 7523).
    `folder` takes the certificate, and the account's key as Google's library reads it.
    """
    fake = FakeGcp()
    account = rsa.generate_private_key(65537, 2048)
    key, certificate = tls_pair("127.0.0.1")

    class Tokens(grpc.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
        def intercept_service(self, go_on: Any, details: Any) -> Any:
            (header,) = [value for name, value in details.invocation_metadata if name == "authorization"]
            kind, _, token = header.partition(" ")
            claims = jwt.decode(token, certs=account_pem)
            assert (kind, claims["iss"]) == ("Bearer", "rootward@rootward-test.iam.gserviceaccount.com")
            fake.tokens += 1
            return go_on(details)

    account_pem = account.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    private = account.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    (folder / "roots.pem").write_bytes(certificate)
    (folder / "account.json").write_text(
        json.dumps(
            {
                "type": "service_account",
                "project_id": "rootward-test",
                "private_key_id": "1",
                "private_key": private,
                "client_email": "rootward@rootward-test.iam.gserviceaccount.com",
                "client_id": "1",
                "token_uri": "https://127.0.0.1:1/token",
            }
        )
    )
    with ThreadPoolExecutor(4) as threads:
        server = grpc.server(threads, interceptors=(Tokens(),))
        server.add_generic_rpc_handlers((fake.handlers(),))
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)]))
        server.start()
        try:
            yield fake, KeySettings(store="cloud", uri=RING, endpoint=f"https://127.0.0.1:{port}")
        finally:
            server.stop(grace=None).wait()


@contextmanager
def fake_gcp(*, uri: str = f"{RING}?protection=software") -> Iterator[tuple[FakeGcp, KeySettings]]:
    """The service, and what a `[keys.NAME]` table says of it."""
    fake = FakeGcp()
    with ThreadPoolExecutor(16) as threads:
        server = grpc.server(threads)
        server.add_generic_rpc_handlers((fake.handlers(),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield fake, KeySettings(store="cloud", uri=uri, endpoint=f"http://127.0.0.1:{port}")
        finally:
            fake.script.released.set()
            server.stop(grace=None).wait()
