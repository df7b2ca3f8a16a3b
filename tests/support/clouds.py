"""The doubles of the three cloud key services under one shape, for tests that say the same of all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rootward.keys import KeySettings
from tests.support import fake_aws, fake_azure, fake_gcp

Opening = Callable[[Path], contextlib.AbstractContextManager[tuple[Any, KeySettings]]]


@dataclass(frozen=True)
class Cloud:
    """`sign` is its word for the call that signs; `refusals` and `doubts` are the faults that it has for that call."""

    name: str
    opening: Opening
    sign: str
    refusals: tuple[str, ...]
    doubts: tuple[str, ...]


CLOUDS = {
    cloud.name: cloud
    for cloud in (
        Cloud("aws-kms", lambda _: fake_aws.fake_aws(), "Sign", fake_aws.REFUSALS, fake_aws.DOUBTS),
        Cloud("gcp-kms", lambda _: fake_gcp.fake_gcp(), "AsymmetricSign", fake_gcp.REFUSALS, fake_gcp.DOUBTS),
        Cloud("azure-kv", fake_azure.fake_azure, "sign", fake_azure.REFUSALS, fake_azure.DOUBTS),
    )
}
