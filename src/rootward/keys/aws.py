"""Keys in AWS KMS: `backend = "aws-kms"`, `uri = "aws-kms:REGION"`.

A key is filed under the alias `alias/rootward/LABEL/<first 16 of the public id>`. An alias can be pointed elsewhere, so
it is only the way to a key: `load` compares the public key behind it, and from then on the key's ARN is asked, whose
key material never changes. Up to 4096 bytes are sent as they are (RAW); of more, their digest or, for ML-DSA, mu
(EXTERNAL_MU); Ed25519 has no other way than RAW. AWS KMS API reference: Sign, GetPublicKey, ScheduleKeyDeletion.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any, Final

from rootward.core.problems import Problem, shown
from rootward.core.pubkey import KeyAlgorithm, PublicKey
from rootward.keys import cloud
from rootward.keys.backend import Backend, KeySettings, Listing, check_algorithm, check_id, check_label, missing
from rootward.keys.cloud import Scheme
from rootward.keys.key import Key, NotSigned, SignatureUnknown

_URI = re.compile(r"aws-kms:([a-z]{2,4}(?:-[a-z]{2,12}){1,3}-[0-9]{1,2})", re.ASCII)
_ALIAS = re.compile(r"alias/rootward/([a-z0-9-]{1,64})/([0-9a-f]{16})", re.ASCII)
_RAW: Final = 4096
_WAITING_DAYS: Final = 30  # the longest that AWS has: a deletion can be taken back for so long

_SPECS: Final[dict[KeyAlgorithm, str]] = {
    KeyAlgorithm.RSA_2048: "RSA_2048",
    KeyAlgorithm.RSA_3072: "RSA_3072",
    KeyAlgorithm.RSA_4096: "RSA_4096",
    KeyAlgorithm.P256: "ECC_NIST_P256",
    KeyAlgorithm.P384: "ECC_NIST_P384",
    KeyAlgorithm.P521: "ECC_NIST_P521",
    KeyAlgorithm.ED25519: "ECC_NIST_EDWARDS25519",
    KeyAlgorithm.ML_DSA_44: "ML_DSA_44",
    KeyAlgorithm.ML_DSA_65: "ML_DSA_65",
    KeyAlgorithm.ML_DSA_87: "ML_DSA_87",
}
_SIGNING: Final[dict[Scheme, str]] = {
    Scheme(kind, f"sha{bits}"): f"{word}_SHA_{bits}"
    for kind, word in (("ecdsa", "ECDSA"), ("pkcs1", "RSASSA_PKCS1_V1_5"), ("pss", "RSASSA_PSS"))
    for bits in (256, 384, 512)
}
# What AWS answers for no key, for one that waits for its deletion, and for one that was disabled.
_GONE = frozenset({"NotFoundException", "KMSInvalidStateException", "DisabledException"})


class AwsBackend(Backend):
    """`client` gives boto3's KMS client when it is needed, or raises one of botocore's errors."""

    name = "aws-kms"
    algorithms = frozenset(_SPECS)

    def __init__(self, client: Callable[[], Any], *, store: str, region: str) -> None:
        self._client = client
        self._store = store
        self._where = f"AWS KMS {region} (key store {store})"

    def max_message_of(self, algorithm: KeyAlgorithm) -> int | None:
        return _RAW if algorithm is KeyAlgorithm.ED25519 else None

    def generate(self, label: str, algorithm: KeyAlgorithm) -> Key:
        check_label(label)
        check_algorithm(self, algorithm)
        made = self._do(
            "for a new key",
            "create_key",
            KeySpec=_SPECS[algorithm],
            KeyUsage="SIGN_VERIFY",
            Description=f"Rootward: {label}",
            Tags=[{"TagKey": "rootward-label", "TagValue": label}],
            wants=("KeyMetadata",),
        )
        arn = made["KeyMetadata"]["Arn"]
        try:
            reply = self._do("for the new key", "get_public_key", KeyId=arn, wants=("PublicKey",))
            public = cloud.public_of(reply["PublicKey"], where=self._where)
            self._do("for the new key's name", "create_alias", AliasName=_alias(label, public.id), TargetKeyId=arn)
        except Problem as problem:
            detail = f"{problem.detail} The key {shown(arn, 200)} was made and has no name yet: schedule its deletion."
            raise Problem(problem.code, detail) from problem
        return self._key(label, public, lambda: arn)

    def load(self, label: str, public_id: str) -> Key:
        arn, public = self._find(label, public_id)
        return self._key(label, public, lambda: arn)

    def expect(self, label: str, public: PublicKey) -> Key:
        check_label(label)
        return self._key(label, public, cloud.later(lambda: self._find(label, public.id)[0]))

    def delete(self, label: str, public_id: str) -> None:
        arn, _ = self._find(label, public_id)
        # The deletion first: cut off after it, the name still leads to a key that nobody can use.
        self._do("for a deletion", "schedule_key_deletion", KeyId=arn, PendingWindowInDays=_WAITING_DAYS)
        self._do("for a name's deletion", "delete_alias", AliasName=_alias(label, public_id))

    def list(self) -> Listing:
        found = []
        more: dict[str, str] = {}
        while True:
            page = self._do("for its names", "list_aliases", Limit=100, wants=("Aliases",), **more)
            for entry in page["Aliases"]:
                name = _ALIAS.fullmatch(entry["AliasName"])
                public = name and self._public(entry["TargetKeyId"])
                if name and public and public.id.startswith(name[2]):
                    found.append((name[1], public.id))
            if not page.get("Truncated"):
                return sorted(found)
            more = {"Marker": page["NextMarker"]}

    def _find(self, label: str, public_id: str) -> tuple[str, PublicKey]:
        """The ARN of the key that the alias leads to, and its public key, which is the asked one."""
        check_label(label)
        check_id(public_id)
        alias = _alias(label, public_id)
        reply = self._unless_gone("describe_key", alias, wants="KeyMetadata")
        if reply is None:
            raise missing(label, public_id, where=self._where)
        # From here on the alias may be moved: the public key is that ARN's.
        arn = reply["KeyMetadata"]["Arn"]
        if reply["KeyMetadata"].get("KeyState") == "Disabled":
            raise cloud.disabled(self._store, arn)
        public = self._public(arn)
        if public is None:
            raise missing(label, public_id, where=self._where)
        if public.id != public_id:
            raise cloud.mismatch(label, f"{alias} in {self._where}")
        return arn, public

    def _public(self, key: str) -> PublicKey | None:
        """The public key; None where there is no such key, or one that cannot be used any more."""
        reply = self._unless_gone("get_public_key", key, wants="PublicKey")
        return None if reply is None else cloud.public_of(reply["PublicKey"], where=self._where)

    def _unless_gone(self, operation: str, key: str, *, wants: str) -> Any:
        """The reply; None where AWS says that there is no such key, or none that can be used."""
        from botocore.exceptions import ClientError

        try:
            return self._do("for a key", operation, KeyId=key, wants=(wants,))
        except Problem as problem:
            cause = problem.__cause__
            if isinstance(cause, ClientError) and cause.response.get("Error", {}).get("Code") in _GONE:
                return None
            raise

    def _key(self, label: str, public: PublicKey, arn: Callable[[], str]) -> Key:
        def sign(message: bytes, scheme: Scheme) -> bytes:
            return self._sign(arn(), public, message, scheme)

        limit = self.max_message_of(public.algorithm)
        return Key(cloud.remote(public, sign), label=label, max_message=limit, remote=True)

    def _do(self, doing: str, operation: str, *, wants: tuple[str, ...] = (), **arguments: Any) -> Any:
        """One call that signs nothing, and its reply, which has what it `wants`; Problem RW-KEY-UNAVAILABLE, caused by
        the library's error.
        """
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError

        try:
            reply = getattr(self._client(), operation)(**arguments)
            if not all(reply.get(name) for name in wants):
                raise ValueError("the reply cannot be read")
            return reply
        except (BotoCoreError, ClientError, ResponseParserError, ValueError) as error:
            raise cloud.unavailable(self._store, doing, error) from error

    def _sign(self, arn: str, public: PublicKey, message: bytes, scheme: Scheme) -> bytes:
        from botocore import exceptions as errors
        from botocore.parsers import ResponseParserError

        body, kind, algorithm = _asked(public, message, scheme)
        # Raised before anything was sent.
        unsent = (
            errors.EndpointConnectionError,
            errors.ConnectTimeoutError,
            errors.ProxyConnectionError,
            errors.NoCredentialsError,
            errors.PartialCredentialsError,
            errors.CredentialRetrievalError,
            errors.TokenRetrievalError,
            errors.UnauthorizedSSOTokenError,
            errors.ParamValidationError,
        )
        try:
            reply = self._client().sign(KeyId=arn, Message=body, MessageType=kind, SigningAlgorithm=algorithm)
        except unsent as error:
            raise NotSigned(f"{self._where}: {type(error).__name__}") from error
        except errors.ClientError as error:
            code = error.response.get("Error", {}).get("Code")
            if cloud.refused(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")):
                raise NotSigned(f"{self._where}: {shown(str(code))}") from error
            raise SignatureUnknown(f"{self._where}: {shown(str(code))}") from error
        except (errors.BotoCoreError, ResponseParserError, ValueError) as error:  # ValueError: no base64
            raise SignatureUnknown(f"{self._where}: {type(error).__name__}") from error
        if (reply.get("KeyId"), reply.get("SigningAlgorithm")) != (arn, algorithm):
            raise SignatureUnknown(f"{self._where}: the reply is for another key or algorithm")
        signature: bytes = reply.get("Signature")
        return signature


def _alias(label: str, public_id: str) -> str:
    return f"alias/rootward/{label}/{public_id[:16]}"


def _asked(public: PublicKey, message: bytes, scheme: Scheme) -> tuple[bytes, str, str]:
    """Message, MessageType and SigningAlgorithm of the request."""
    if scheme.kind == "pure":
        if public.algorithm is KeyAlgorithm.ED25519:
            return message, "RAW", "ED25519_SHA_512"
        if len(message) > _RAW:
            return cloud.external_mu(public, message), "EXTERNAL_MU", "ML_DSA_SHAKE_256"
        return message, "RAW", "ML_DSA_SHAKE_256"
    if len(message) > _RAW:
        return scheme.digest(message), "DIGEST", _SIGNING[scheme]
    return message, "RAW", _SIGNING[scheme]


def open_aws(settings: KeySettings) -> AwsBackend:
    """Problem RW-CONFIG for a wrong table or without boto3. Nothing is called yet."""
    found = _URI.fullmatch(settings.uri)
    if found is None:
        raise cloud.wrong(
            settings, f"uri must be aws-kms:REGION, such as aws-kms:eu-central-1, not {shown(settings.uri)}."
        )
    cloud.check_plain(settings, named="AWS KMS")
    cloud.check_endpoint(settings)
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import NoCredentialsError
    except ImportError as error:
        raise cloud.no_library(settings, extra="aws", error=error) from error
    region = found[1]
    config = Config(
        region_name=region,
        connect_timeout=cloud.CONNECT_SECONDS,
        read_timeout=cloud.READ_SECONDS,
        retries={"total_max_attempts": 1, "mode": "standard"},
        max_pool_connections=20,
        # No variable or file of the vendor's sends what is signed elsewhere, past the check of the endpoint.
        ignore_configured_endpoint_urls=True,
        # What has no TLS stays on this very machine, whatever proxy the environment names.
        proxies={} if settings.endpoint.startswith("http:") else None,
    )
    lock = threading.Lock()
    made: list[Any] = []

    def client() -> Any:
        with lock:
            if not made:
                session = boto3.session.Session()
                # Without credentials nothing is kept: they may be there the next time.
                if session.get_credentials() is None:
                    raise NoCredentialsError
                made.append(session.client("kms", endpoint_url=settings.endpoint or None, config=config))
            return made[0]

    return AwsBackend(client, store=settings.store, region=region)
