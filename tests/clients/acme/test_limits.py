"""What one account, and one address, may do within an hour; the `acme` library meets each limit."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import requests
from acme import messages

from tests.clients.acme.pypi import Account, error_of, make_csr
from tests.clients.acme.world import World, world

LIMITS = {"orders_per_hour": 4, "failures_per_hour": 2, "accounts_per_hour": 3}


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A server with small limits."""
    with world(tmp_path_factory.mktemp("limited"), more=LIMITS) as started:
        yield started


def assert_limited(answer: requests.Response) -> None:
    """RFC 8555 6.6: `rateLimited`, 429, and when to come back."""
    assert (answer.status_code, error_of(answer)) == (429, "rateLimited"), answer.text
    assert 0 < int(answer.headers["Retry-After"]) <= 3600
    assert answer.headers["Replay-Nonce"]


def refused(act: Callable[[], object]) -> str:
    """The error that the library raises."""
    with pytest.raises(messages.Error) as caught:
        act()
    return str(caught.value.code)


def test_each_limit(limited: World) -> None:
    account = Account(limited)
    for _ in range(LIMITS["orders_per_hour"]):
        assert account.order("a.internal").status_code == 201
    assert refused(lambda: account.client.new_order(make_csr("a.internal"))) == "rateLimited"
    assert_limited(account.order("a.internal"))

    other = Account(limited)  # nobody else is held up
    for _ in range(LIMITS["failures_per_hour"]):
        order = other.client.new_order(make_csr("b.internal"))
        assert other.prove(order, rightly=False) == {messages.STATUS_INVALID}
    assert_limited(other.order("b.internal"))

    third = Account(limited)
    assert third.obtain("a.internal").fullchain_pem
    assert refused(lambda: Account(limited)) == "rateLimited"
    assert third.send(third.at("newAccount"), {}, kid=None).status_code == 200  # no new one
    assert Account(limited, eab=limited.eab()).obtain("c.internal").fullchain_pem  # its key counts its own
