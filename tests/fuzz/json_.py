"""A JSON body for one of the API's calls: a value of its type, or Problem RW-MALFORMED or RW-FIELD.

The first octet says for which call.
"""

from __future__ import annotations

import msgspec

from rootward.core.problems import Problem
from rootward.protocols.rest.bodies import decode
from rootward.protocols.rest.resources import OPERATIONS

LARGEST = 32 * 1024
KINDS = tuple(dict.fromkeys(operation.body for operation in OPERATIONS if operation.body is not None))
REFUSALS = ("RW-MALFORMED", "RW-FIELD")


def one(data: bytes) -> None:
    """Anything that is raised from here is a crasher."""
    kind = KINDS[(data[0] if data else 0) % len(KINDS)]
    try:
        body = decode(data[1:], kind)
    except Problem as problem:
        if {problem.code, *(reason.code for reason in problem.reasons)} - set(REFUSALS):
            raise AssertionError(problem.code) from problem
        return
    again = decode(msgspec.json.encode(body), kind)
    if again != body:
        raise AssertionError("what was read does not mean itself")


def seeds() -> list[bytes]:
    """A body for each call, and what is wrong with JSON in general."""
    from tests.vectors.rest import BAD

    rows = [row.raw if row.raw is not None else msgspec.json.encode(row.body) for row in BAD]
    bodies = [
        b'{"profile":"server","csr":"-----BEGIN CERTIFICATE REQUEST-----","lifetime":"30d","labels":{"a":"b"}}',
        b'{"content":"-----BEGIN CERTIFICATE-----","password":"x","owner":"y","labels":{"a":"b"}}',
        b'{"reason":"superseded"}',
        b'{"name":"a","authority":"b","names":{"dns":{"allow":[".c"]}},"extended_key_usage":["server_auth"]}',
        b"[" * 40 + b"]" * 40,
        b'{"a":1,"a":2}',
        b'{"a":NaN}',
        b'"\\ud800"',
    ]
    found = [bytes([at % len(KINDS)]) + body for at, body in enumerate(bodies * len(KINDS))]
    return [one for one in [*found, *(b"\0" + row for row in rows)] if len(one) < 4096]
