"""A double of AWS KMS on 127.0.0.1: its JSON protocol as boto3 speaks it, DIGEST and EXTERNAL_MU as the API says, and
faults on demand. moto, which others made, is beside it for RAW; it hashes a DIGEST again.
"""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from rootward.core.pubkey import KeyAlgorithm
from rootward.keys import KeySettings
from tests.support.cloud import HASHES, Broken, Handler, Script, Stored, new, serving, sign_digest, spki

REGION = "eu-central-1"
SECRET = "a-secret-access-key-for-tests"
_ARN = f"arn:aws:kms:{REGION}:123456789012:key/"
_SPECS = {
    "RSA_2048": KeyAlgorithm.RSA_2048,
    "RSA_3072": KeyAlgorithm.RSA_3072,
    "RSA_4096": KeyAlgorithm.RSA_4096,
    "ECC_NIST_P256": KeyAlgorithm.P256,
    "ECC_NIST_P384": KeyAlgorithm.P384,
    "ECC_NIST_P521": KeyAlgorithm.P521,
    "ECC_NIST_EDWARDS25519": KeyAlgorithm.ED25519,
    "ML_DSA_44": KeyAlgorithm.ML_DSA_44,
    "ML_DSA_65": KeyAlgorithm.ML_DSA_65,
    "ML_DSA_87": KeyAlgorithm.ML_DSA_87,
}
_NONE: dict[str, str] = {}
Reply = tuple[int, Any, dict[str, str]]


class Refused(Exception):
    """An error as the service says it."""

    def __init__(self, code: str, status: int = 400) -> None:
        self.reply = (status, {"__type": code, "message": f"{code} for a test"}, _NONE)
        super().__init__(code)


class FakeAws:
    """`keys` by their id, `aliases` to ids; `page` is how many names one reply lists."""

    def __init__(self) -> None:
        self.script = Script()
        self.keys: dict[str, Stored] = {}
        self.aliases: dict[str, str] = {}
        self.page = 3

    def answer(self, handler: Handler, body: bytes) -> Reply:
        """One request."""
        operation = handler.headers["X-Amz-Target"].removeprefix("TrentService.")
        self.script.asked.append(operation)
        if self.script.away:
            raise Broken
        try:
            return getattr(self, f"_{operation}")(json.loads(body))  # type: ignore[no-any-return]  # by name
        except Refused as refused:
            return refused.reply

    def _key(self, asked: str) -> Stored:
        if asked.startswith("alias/"):
            asked = self.aliases.get(asked, "")
        key = self.keys.get(asked.removeprefix(_ARN))
        if key is None:
            raise Refused("NotFoundException")
        return key

    def _usable(self, asked: str) -> Stored:
        key = self._key(asked)
        if "deleted" in key.facts:
            raise Refused("KMSInvalidStateException")
        if "disabled" in key.facts:
            raise Refused("DisabledException")
        return key

    def _CreateKey(self, asked: dict[str, Any]) -> Reply:  # noqa: N802 -- the API's word
        assert asked["KeyUsage"] == "SIGN_VERIFY"
        key = new(str(uuid.uuid4()), _SPECS[asked["KeySpec"]], tags=asked["Tags"])
        self.keys[key.name] = key
        return 200, {"KeyMetadata": {"KeyId": key.name, "Arn": _ARN + key.name, "KeySpec": asked["KeySpec"]}}, _NONE

    def _GetPublicKey(self, asked: dict[str, Any]) -> Reply:  # noqa: N802 -- the API's word
        key = self._usable(asked["KeyId"])
        return 200, {"KeyId": _ARN + key.name, "PublicKey": base64.b64encode(spki(key.private)).decode()}, _NONE

    def _DescribeKey(self, asked: dict[str, Any]) -> Reply:  # noqa: N802 -- the API's word
        key = self._key(asked["KeyId"])
        state = "PendingDeletion" if "deleted" in key.facts else "Disabled" if "disabled" in key.facts else "Enabled"
        return 200, {"KeyMetadata": {"KeyId": key.name, "Arn": _ARN + key.name, "KeyState": state}}, _NONE

    def _CreateAlias(self, asked: dict[str, Any]) -> Reply:  # noqa: N802 -- the API's word
        if asked["AliasName"] in self.aliases:
            raise Refused("AlreadyExistsException")
        self.aliases[asked["AliasName"]] = self._key(asked["TargetKeyId"]).name
        return 200, {}, _NONE

    def _DeleteAlias(self, asked: dict[str, Any]) -> Reply:  # noqa: N802 -- the API's word
        if self.aliases.pop(asked["AliasName"], None) is None:
            raise Refused("NotFoundException")
        return 200, {}, _NONE

    def _ScheduleKeyDeletion(self, asked: dict[str, Any]) -> Reply:  # noqa: N802 -- the API's word
        key = self._usable(asked["KeyId"])
        assert 7 <= asked["PendingWindowInDays"] <= 30
        key.facts["deleted"] = asked["PendingWindowInDays"]
        return 200, {"KeyId": _ARN + key.name}, _NONE

    def _ListAliases(self, asked: dict[str, Any]) -> Reply:  # noqa: N802 -- the API's word
        names = ["alias/aws/s3", "alias/other", *sorted(self.aliases)]
        start = int(asked.get("Marker", "0"))
        end = start + min(self.page, asked["Limit"])
        reply: dict[str, Any] = {
            "Aliases": [{"AliasName": name, "TargetKeyId": self.aliases.get(name, "")} for name in names[start:end]],
            "Truncated": end < len(names),
        }
        return 200, reply | ({"NextMarker": str(end)} if end < len(names) else {}), _NONE

    def _Sign(self, asked: dict[str, Any]) -> Reply:  # noqa: N802 -- the API's word
        fault = self.script.fault()
        if fault in _UNSIGNED:
            return _UNSIGNED[fault]
        if fault == "reset-before":
            raise Broken
        key = self._usable(asked["KeyId"])
        if fault == "swapped":
            key = new(key.name, key.algorithm)
        signature = self._sign(key, base64.b64decode(asked["Message"]), asked["MessageType"], asked["SigningAlgorithm"])
        if fault == "reset-after":
            raise Broken
        if fault == "hang":
            self.script.released.wait(60)
            raise Broken
        if fault == "error-after":
            raise Refused("KMSInternalException", 500)
        if fault == "garbage":
            return 200, b"\x00\xff<html>not now</html>", _NONE
        if fault == "not-base64":
            return (
                200,
                {"KeyId": _ARN + key.name, "Signature": "?", "SigningAlgorithm": asked["SigningAlgorithm"]},
                _NONE,
            )
        if fault == "truncated":
            signature = signature[:-3]
        reply = {
            "KeyId": _ARN + (str(uuid.uuid4()) if fault == "other-key" else key.name),
            "Signature": base64.b64encode(signature).decode(),
            "SigningAlgorithm": asked["SigningAlgorithm"],
        }
        if fault == "no-signature":
            del reply["Signature"]
        if fault == "cut":
            return 200, json.dumps(reply).encode()[:-20], {"Content-Length": "4000"}
        return 200, reply, _NONE

    def _sign(self, key: Stored, message: bytes, kind: str, algorithm: str) -> bytes:
        """As the API documents it: what is longer than 4096 bytes or fits no algorithm is a ValidationException."""
        if not 1 <= len(message) <= 4096:
            raise Refused("ValidationException")
        bits = algorithm[-3:]
        if algorithm in ("ED25519_SHA_512", "ML_DSA_SHAKE_256"):
            if kind == "EXTERNAL_MU" and algorithm == "ML_DSA_SHAKE_256" and len(message) == 64:
                signature = key.private.sign_mu(message)
            elif kind == "RAW":
                signature = key.private.sign(message)
            else:
                raise Refused("ValidationException")
        else:
            if kind == "RAW":
                digest = hashlib.new(f"sha{bits}", message).digest()
            elif kind == "DIGEST" and len(message) == HASHES[bits].digest_size:
                digest = message
            else:
                raise Refused("ValidationException")
            signature = sign_digest(key.private, digest, bits, pss="PSS" in algorithm)
        self.script.made.append(message)
        return signature  # type: ignore[no-any-return]  # whatever the key's type


_UNSIGNED: dict[str, Reply] = {
    "throttled": Refused("ThrottlingException").reply,
    "denied": Refused("AccessDeniedException").reply,
    "disabled": Refused("DisabledException").reply,
    "error-before": Refused("DependencyTimeoutException", 503).reply,
}
# What each fault of Sign means to whoever asked: surely unsigned, or nobody knows.
REFUSALS = ("throttled", "denied", "disabled")
DOUBTS = (
    "reset-before",
    "reset-after",
    "error-before",
    "error-after",
    "garbage",
    "not-base64",
    "no-signature",
    "truncated",
    "cut",
    "other-key",
    "hang",
)


@contextmanager
def credentials() -> Iterator[None]:
    """Credentials where the vendor's library looks first, and no other place that it looks at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIATESTTESTTESTTEST")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", "/nonexistent")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
        patch.delenv("AWS_PROFILE", raising=False)
        yield


@contextmanager
def fake_aws() -> Iterator[tuple[FakeAws, KeySettings]]:
    """The service, and what a `[keys.NAME]` table says of it."""
    fake = FakeAws()
    with credentials(), serving(fake.answer) as port:
        try:
            yield fake, KeySettings(store="cloud", uri=f"aws-kms:{REGION}", endpoint=f"http://127.0.0.1:{port}")
        finally:
            fake.script.released.set()
