"""How much one account may ask for within an hour (RFC 8555 6.6); counted in the store, by all replicas together."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from rootward.protocols.acme.call import Call
from rootward.protocols.acme.problems import AcmeError
from rootward.store import authorizations, orders

HOUR: Final = timedelta(hours=1)


async def check_orders(call: Call) -> None:
    """AcmeError rateLimited where the account made too many orders."""
    account, most = call.account.id, call.settings.orders_per_hour
    nth = await call.inst.db.look(lambda conn: orders.nth_newest(conn, account, most))
    _check(nth, call.inst.clock(), "This account made too many orders within the last hour.")


async def check_failures(call: Call) -> None:
    """The same of validations that failed, so that nobody makes us knock at doors all day."""
    account, most = call.account.id, call.settings.failures_per_hour
    nth = await call.inst.db.look(lambda conn: authorizations.nth_newest_failure(conn, account, most))
    _check(nth, call.inst.clock(), "This account had too many failed validations within the last hour.")


def _check(nth: datetime | None, now: datetime, detail: str) -> None:
    if nth is not None and nth + HOUR > now:
        wait = max(1, int((nth + HOUR - now).total_seconds()))
        raise AcmeError("rateLimited", detail, headers=((b"retry-after", b"%d" % wait),))
