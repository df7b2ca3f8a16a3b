"""What an administrator is told of a new version of a profile."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from rootward.core.profile import Acme, Approval, Condition, DnsRules, Lifetime, NameRules, Profile, Revocation
from rootward.core.widening import differences, values
from tests.support.plans import profile

BASE = profile(
    conditions=(Condition("lifetime < 100", "too long"),), approval=Approval("sensitive", (".secret.internal",))
)


@pytest.mark.parametrize(
    ("changes", "field", "wider"),
    [
        ({"description": "other"}, "description", False),
        ({"names": NameRules(dns=DnsRules((".internal",), wildcards=True))}, "names.dns.allow", False),
        ({"names": NameRules(dns=DnsRules((".internal", "localhost", ".x"), wildcards=True))}, "names.dns.allow", True),
        ({"names": NameRules(dns=DnsRules((".internal", "localhost")))}, "names.dns.wildcards", False),
        ({"names": NameRules(ip=("0.0.0.0/0",))}, "names.ip", True),
        ({"names": NameRules(minimum=0)}, "names.minimum", True),
        ({"lifetime": Lifetime(maximum="91d")}, "lifetime.maximum", True),
        ({"lifetime": Lifetime(maximum="2160h")}, "lifetime.maximum", False),
        ({"lifetime": Lifetime(maximum="60d")}, "lifetime.maximum", False),
        ({"lifetime": Lifetime(backdate="0s")}, "lifetime.backdate", False),
        ({"lifetime": Lifetime(minimum="1m")}, "lifetime.minimum", True),
        ({"extended_key_usage": ("server_auth", "client_auth")}, "extended_key_usage", True),
        ({"extended_key_usage": ()}, "extended_key_usage", False),
        ({"conditions": ()}, "conditions", True),
        ({"approval": Approval("sensitive", ())}, "approval.sensitive", True),
        ({"approval": Approval("never", (".secret.internal",))}, "approval.required", True),
        ({"revocation": Revocation(crl=False)}, "revocation.crl", True),
        ({"acme": Acme("open")}, "acme.accounts", True),
        ({"key_reuse": "any"}, "key_reuse", True),
    ],
)
def test_each_difference_is_told_and_whether_it_widens(changes: dict[str, Any], field: str, wider: bool) -> None:
    found = {one.field: one for one in differences(BASE, msgspec.structs.replace(BASE, **changes))}
    assert found[field].wider is wider
    assert found[field].before != found[field].after


def test_the_same_is_no_difference() -> None:
    assert differences(BASE, BASE) == []


def test_every_field_of_a_profile_is_told() -> None:
    """A field that is added to profiles widens until somebody says when it does not."""
    told = [field for field, _ in values(BASE)]
    assert len(told) == len(set(told))
    assert {field.partition(".")[0] for field in told} == {
        field.encode_name for field in msgspec.structs.fields(Profile)
    }
