"""What is done about authorities, for processes that are killed in it: each act is `act(made, say, ...)`, and doing it
again is calling it again.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_private_key

from rootward.ca import acts, adopt, authorities, compromise, proposals, records, results, succession
from rootward.ca.access import Caller, find_principal
from rootward.ca.adopt import Arriving
from rootward.ca.results import Vouched
from rootward.core import paperwork
from rootward.core.paperwork import Result
from rootward.fleet import drill
from rootward.keys.incoming import Incoming
from tests.support.faults import AUTHORITY, Open, Say
from tests.support.room import spec

NEXT = "second"


async def as_bob(made: Open, bob: str) -> Caller:
    """The second person, as the store knows him now."""
    found = await find_principal(made.inst, bob)
    assert found is not None
    return Caller(found, "req_bob")


async def create(made: Open, _say: Say, name: str, parent: str | None) -> None:
    await authorities.create(made.inst, spec(name), parent, made.inst.keys.name, made.admin)


async def withdraw(made: Open, _say: Say, name: str) -> None:
    await authorities.withdraw(made.inst, name, made.admin)


async def install(made: Open, _say: Say, name: str, chain: bytes, parent: str) -> None:
    await authorities.install(made.inst, name, chain, [parent], made.admin)


async def bring(made: Open, _say: Say, result: Result, vouched: Vouched) -> None:
    await results.take_in(made.inst, result, paperwork.write(result), vouched, made.admin)


async def come(
    made: Open, _say: Say, chain: tuple[bytes, ...], key: bytes, crl: bytes, inventory: tuple[bytes, ...]
) -> None:
    above = tuple(x509.load_der_x509_certificate(one) for one in chain)
    incoming = Incoming(load_der_private_key(key, None), ())
    came = Arriving("old", above, key=incoming, crl=crl, parents=("old-root",), inventory=inventory)
    await adopt.adopt(made.inst, came, made.admin)


async def approve(made: Open, _say: Say, proposal: str, bob: str) -> None:
    await acts.approve(made.inst, proposal, None, await as_bob(made, bob))


async def deny(made: Open, _say: Say, proposal: str, bob: str) -> None:
    await proposals.deny(made.inst, proposal, None, await as_bob(made, bob))


async def propose(made: Open, _say: Say) -> None:
    await compromise.propose(made.inst, AUTHORITY, NEXT, "stolen", None, made.admin)


async def settle(made: Open, _say: Say, later: timedelta) -> None:
    real = made.inst.clock
    made.inst.clock = lambda: real() + later
    await succession.settle(made.inst)


async def rehearse(made: Open, _say: Say) -> None:
    await drill.rehearse(made.inst, AUTHORITY, NEXT, None, made.admin)


async def take_records(made: Open, _say: Say, home: Path) -> None:
    await records.take_in(made.inst, home)
