"""What somebody does to a store, or to an export, who has it in hand: random, by a seed, and each time something else.

A trick takes the random numbers and changes one thing; it gives a sentence about what it did.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, text, update

from rootward.core.capture import assemble
from rootward.core.ledger import Frontier, leaf_hash
from rootward.store import heads as head_rows
from rootward.store.certificates import issuer_of_others
from rootward.store.events import Event, leaf_of
from rootward.store.ids import new_id
from rootward.store.schema import certificates, events, facts, heads, requests

Trick = Callable[[Connection, Random], str]
DROP = {
    "sqlite": ("DROP TRIGGER events_append_only_update", "DROP TRIGGER events_append_only_delete"),
    "postgresql": ("DROP TRIGGER events_append_only_rows ON events",),
}
ROW = tuple(events.c[name] for name in Event.__struct_fields__)


def unlock(conn: Connection) -> None:
    """Take away what keeps events as they are."""
    for statement in DROP[conn.dialect.name]:
        conn.execute(text(statement))


def pick(conn: Connection, random: Random, column: Any, *where: Any) -> Any:
    """One value of a column."""
    return random.choice(conn.execute(select(column).where(*where).order_by(column)).scalars().all())


def other(random: Random, value: Any) -> Any:
    """Something else of the same kind."""
    if value is None:
        return "x"
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + random.choice([-1, 1, 1000])
    if isinstance(value, bytes):
        if not value:
            return b"x"
        at = random.randrange(len(value))
        return value[:at] + bytes([value[at] ^ 1 << random.randrange(8)]) + value[at + 1 :]
    if isinstance(value, str):
        at = random.randrange(len(value) + 1)
        return value[:at] + random.choice("abcdef0123456789") + value[at:]
    if isinstance(value, list):
        return [*value, "x"]
    if isinstance(value, dict):
        return {**value, "x": "y"}
    return value.replace(year=value.year - 1)


def edited(random: Random, data: dict[str, Any]) -> dict[str, Any]:
    """A field of an object is another one, gone, or new."""
    changed = dict(data)
    if not changed or random.random() < 0.2:
        return changed | {"x": 1}
    name = random.choice(sorted(changed))
    if random.random() < 0.3:
        del changed[name]
    else:
        changed[name] = other(random, changed[name])
    return changed


# ── Events and leaves ─────────────────────────────────────────────────────────────────────────────────────────────


def edit_event(conn: Connection, random: Random) -> str:
    leaf = pick(conn, random, events.c.leaf)
    row = conn.execute(select(*ROW).where(events.c.leaf == leaf)).one()
    name = random.choice(["at", "kind", "actor", "authority", "certificate", "request_id", "data", "data", "data", "n"])
    value = json.loads(row.data) if name == "data" else getattr(row, name)
    new = json.dumps(edited(random, value)) if name == "data" else 10_000 if name == "n" else other(random, value)
    conn.execute(update(events).where(events.c.leaf == leaf).values({name: new}))
    return f"{name} of leaf {leaf}"


def delete_event(conn: Connection, random: Random) -> str:
    leaf = pick(conn, random, events.c.leaf)
    conn.execute(delete(events).where(events.c.leaf == leaf))
    if random.random() < 0.5:
        _shift(conn, leaf + 1, -1)
        return f"leaf {leaf} is gone, and the gap is closed"
    return f"leaf {leaf} is gone"


def insert_event(conn: Connection, random: Random) -> str:
    last = conn.execute(select(func.max(events.c.leaf))).scalar_one()
    leaf = random.randrange(last + 2)
    row = dict(conn.execute(select(*ROW).where(events.c.leaf == random.randrange(last + 1))).one()._mapping)
    row |= {"n": 10_000, "leaf": leaf, "request_id": "made-up"}
    _shift(conn, leaf, 1)
    conn.execute(insert(events).values(**row, leaf_hash=leaf_hash(leaf_of(Event(**row)))))
    return f"a new event at leaf {leaf}"


def swap_events(conn: Connection, random: Random) -> str:
    size = conn.execute(select(func.count()).select_from(events)).scalar_one()
    first, second = random.sample(range(size), 2)
    keep = random.random() < 0.5  # whether each event takes its hash along
    hashes = {row.leaf: row.leaf_hash for row in conn.execute(select(events.c.leaf, events.c.leaf_hash))}
    for old, new in ((first, 100_000), (second, first), (100_000, second)):
        conn.execute(update(events).where(events.c.leaf == old).values(leaf=new))
    if not keep:
        for leaf in (first, second):
            conn.execute(update(events).where(events.c.leaf == leaf).values(leaf_hash=hashes[leaf]))
    return f"leaves {first} and {second} have changed places"


def truncate(conn: Connection, random: Random) -> str:
    size = pick(conn, random, heads.c.size, heads.c.size < select(func.max(heads.c.size)).scalar_subquery())
    conn.execute(delete(heads).where(heads.c.size > size))
    if random.random() < 0.5:
        conn.execute(delete(events).where(events.c.leaf >= size))
        return f"cut off at {size}"
    conn.execute(update(events).where(events.c.leaf >= size).values(leaf=None, leaf_hash=None))
    return f"leaves taken back from {size} on"


def edit_hash(conn: Connection, random: Random) -> str:
    leaf = pick(conn, random, events.c.leaf)
    value = conn.execute(select(events.c.leaf_hash).where(events.c.leaf == leaf)).scalar_one()
    new = None if random.random() < 0.2 else other(random, value)
    conn.execute(update(events).where(events.c.leaf == leaf).values(leaf_hash=new))
    return f"the hash of leaf {leaf}"


def rewrite(conn: Connection, random: Random) -> str:
    """An event edited by somebody who then makes everything that needs no key anew: leaf hashes, roots, frontiers."""
    did = random.choice([edit_event, delete_event, insert_event, swap_events])(conn, random)
    found = conn.execute(select(*ROW).where(events.c.leaf.is_not(None)).order_by(events.c.leaf)).all()
    hashes = [leaf_hash(leaf_of(Event(*row))) for row in found]
    for row, made in zip(found, hashes, strict=True):
        conn.execute(update(events).where(events.c.n == row.n).values(leaf_hash=made))
    for head in [*head_rows.every(conn)]:
        tree = Frontier().extended(hashes[: head.size])
        conn.execute(
            update(heads)
            .where(heads.c.size == head.size)
            .values(root=tree.root, frontier=tree.packed(), note=head.note)
        )
    return f"{did}, and all hashes made anew"


def _shift(conn: Connection, first: int, by: int) -> None:
    """Renumber leaves from `first` on; by way of far numbers, because each is there once."""
    conn.execute(update(events).where(events.c.leaf >= first).values(leaf=events.c.leaf + 1_000_000))
    conn.execute(update(events).where(events.c.leaf >= 1_000_000).values(leaf=events.c.leaf - 1_000_000 + by))


# ── Heads and the key ─────────────────────────────────────────────────────────────────────────────────────────────


def edit_head(conn: Connection, random: Random) -> str:
    size = pick(conn, random, heads.c.size)
    row = conn.execute(select(heads).where(heads.c.size == size)).one()
    name = random.choice(["root", "frontier", "at", "was", "note", "size"])
    new = None if name == "note" and random.random() < 0.3 else other(random, getattr(row, name))
    if name in {"size", "was"}:
        new = getattr(row, name) + 1000
    conn.execute(update(heads).where(heads.c.size == size).values({name: new}))
    return f"{name} of head {size}"


def delete_head(conn: Connection, random: Random) -> str:
    size = pick(conn, random, heads.c.size)
    conn.execute(delete(heads).where(heads.c.size == size))
    return f"head {size} is gone"


def insert_head(conn: Connection, random: Random) -> str:
    newest = head_rows.newest(conn)
    assert newest is not None
    tree = newest.tree().extended([leaf_hash(random.randbytes(8))])
    note = newest.note if random.random() < 0.5 else None
    conn.execute(
        insert(heads).values(
            size=tree.size, root=tree.root, frontier=tree.packed(), at=newest.at, was=newest.size, note=note
        )
    )
    return "a head more"


def edit_key(conn: Connection, random: Random) -> str:
    old = conn.execute(select(facts.c.data).where(facts.c.name == "log.key")).scalar_one()
    if random.random() < 0.3:
        conn.execute(delete(facts).where(facts.c.name == "log.key"))
        return "the log's key is gone"
    conn.execute(update(facts).where(facts.c.name == "log.key").values(data=other(random, old)))
    return "the log's key"


# ── The inventory ─────────────────────────────────────────────────────────────────────────────────────────────────

COLUMNS = (
    "id issuer serial source authority profile profile_version tbs algorithm signature sha256 key_id subject names "
    "not_before not_after owner labels requester request_id replaces retry_of intended_at issued_at failed_at "
    "orphaned_at revoked_at reason"
).split()


def edit_certificate(conn: Connection, random: Random, *which: Any) -> str:
    id = pick(conn, random, certificates.c.id, *which)
    row = conn.execute(select(certificates).where(certificates.c.id == id)).one()
    name = random.choice(COLUMNS)
    value = getattr(row, name)
    if name in {"names", "labels"}:
        value = json.dumps(other(random, json.loads(value)))
    elif value is None and name.endswith("_at"):
        value = row.intended_at
    elif value is None and name == "profile_version":
        value = 1
    elif value is None and name == "signature":
        value = b"signature"
    else:
        value = other(random, value)
    conn.execute(update(certificates).where(certificates.c.id == id).values({name: value}))
    return f"{name} of the certificate {id}"


def edit_foreign(conn: Connection, random: Random) -> str:
    """As `edit_certificate`, of a certificate of others."""
    return edit_certificate(conn, random, certificates.c.source == "imported")


def edit_filled(conn: Connection, random: Random) -> str:
    """As `edit_certificate`, of one that came after its serial, or that has not come yet."""
    adopted = certificates.c.key_id == "" if random.random() < 0.5 else _was_filled()
    return edit_certificate(conn, random, adopted)


def pretend(conn: Connection, random: Random) -> str:
    """One of which only the serial is known, with a TBS that is none, so that it seems more; and another column."""
    id = pick(conn, random, certificates.c.id, certificates.c.key_id == "")
    row = conn.execute(select(certificates).where(certificates.c.id == id)).one()
    name = random.choice(["tbs", "algorithm", "subject", "key_id", "not_before", "not_after"])
    values = {"tbs": random.randbytes(8), name: other(random, getattr(row, name))}
    conn.execute(update(certificates).where(certificates.c.id == id).values(**values))
    return f"the certificate {id} has another {name}, and a TBS"


def empty(conn: Connection, random: Random) -> str:
    """One that came, as if only its serial were known again."""
    id = pick(conn, random, certificates.c.id, _was_filled())
    values: dict[str, Any] = {
        "tbs": b"",
        "algorithm": b"",
        "signature": None,
        "key_id": "",
        "subject": "",
        "names": "[]",
    }
    if random.random() < 0.5:
        values["sha256"] = None
    conn.execute(update(certificates).where(certificates.c.id == id).values(**values))
    return f"the certificate {id} is a serial again: {', '.join(values)}"


def fill(conn: Connection, random: Random) -> str:
    """One of which only the serial is known, with the certificate of another."""
    bare = pick(conn, random, certificates.c.id, certificates.c.key_id == "")
    row = conn.execute(select(certificates).where(_was_filled())).one()
    names = ("tbs", "algorithm", "signature", "sha256", "key_id", "subject", "names", "not_before", "not_after")
    values = {name: getattr(row, name) for name in names}
    conn.execute(update(certificates).where(certificates.c.id == bare).values(**values))
    return f"the certificate {bare} is filled with that of {row.id}"


def _was_filled() -> Any:
    told = select(events.c.certificate).where(events.c.kind == "certificate.filled")
    return certificates.c.id.in_(told)


def disown(conn: Connection, random: Random) -> str:
    """One of ours, revoked, in the form of one of others: nothing would list it any more."""
    ours = (certificates.c.source == "issued", certificates.c.signature.is_not(None))
    id = pick(conn, random, certificates.c.id, *ours, certificates.c.revoked_at.is_not(None))
    row = conn.execute(select(certificates).where(certificates.c.id == id)).one()
    source = random.choice(["imported", "imported", "discovered"])
    values: dict[str, Any] = {"source": source, "revoked_at": None, "reason": None}
    if random.random() < 0.8:
        values["tbs"] = assemble(row.tbs, row.algorithm, row.signature)
    if random.random() < 0.5:
        empty = ("authority", "profile", "profile_version", "signature", "replaces", "retry_of")
        values |= dict.fromkeys(empty) | {"issuer": issuer_of_others(row.sha256), "intended_at": row.issued_at}
    conn.execute(update(certificates).where(certificates.c.id == id).values(**values))
    return f"the certificate {id} is {values['source']}: {', '.join(values)}"


def adopt(conn: Connection, random: Random) -> str:
    """One of others that would be one of ours."""
    id = pick(conn, random, certificates.c.id, certificates.c.source == "imported")
    changes: list[dict[str, Any]] = [{"source": "issued"}, {"source": "discovered"}, {"issuer": 1}, {"issuer": 0}]
    values = random.choice(changes)
    conn.execute(update(certificates).where(certificates.c.id == id).values(**values))
    return f"the certificate {id} of others: {values}"


def delete_certificate(conn: Connection, random: Random) -> str:
    id = pick(conn, random, certificates.c.id)
    conn.execute(delete(certificates).where(certificates.c.id == id))
    return f"the certificate {id} is gone"


def insert_certificate(conn: Connection, random: Random) -> str:
    id = pick(conn, random, certificates.c.id)
    row = dict(conn.execute(select(certificates).where(certificates.c.id == id)).one()._mapping)
    row |= {"n": 10_000, "id": new_id(), "serial": random.randbytes(16)}
    conn.execute(insert(certificates).values(**row))
    return f"a certificate like {id}"


def unrevoke(conn: Connection, random: Random) -> str:
    id = pick(conn, random, certificates.c.id, certificates.c.revoked_at.is_not(None))
    conn.execute(update(certificates).where(certificates.c.id == id).values(revoked_at=None, reason=None))
    return f"the certificate {id} is not revoked any more"


def revoke(conn: Connection, random: Random) -> str:
    living = (certificates.c.revoked_at.is_(None), certificates.c.issued_at.is_not(None))
    id = pick(conn, random, certificates.c.id, *living)
    values = {"revoked_at": certificates.c.issued_at, "reason": "superseded"}
    conn.execute(update(certificates).where(certificates.c.id == id).values(**values))
    return f"the certificate {id} is revoked"


def change_reason(conn: Connection, random: Random) -> str:
    id = pick(conn, random, certificates.c.id, certificates.c.revoked_at.is_not(None))
    conn.execute(update(certificates).where(certificates.c.id == id).values(reason="privilegeWithdrawn"))
    return f"the reason of the certificate {id}"


def approve_request(conn: Connection, random: Random) -> str:
    """A yes that nobody gave, or somebody else's, or none where there was one."""
    id = pick(conn, random, requests.c.id)
    row = conn.execute(select(requests).where(requests.c.id == id)).one()
    values = random.choice(
        [
            {"approved_at": None if row.approved_at else row.created_at, "approved_by": "x"},
            {"approved_by": "somebody"},
            {"plan": "00"},
            {"principal": "somebody"},
            {"denied_at": row.created_at, "denied_by": "x"},
        ]
    )
    conn.execute(update(requests).where(requests.c.id == id).values(**values))
    return f"the request {id}: {', '.join(values)}"


def edit_request(conn: Connection, random: Random) -> str:
    """Another column of a request."""
    id = pick(conn, random, requests.c.id)
    name = random.choice(REQUEST)
    value = conn.execute(select(requests.c[name]).where(requests.c.id == id)).scalar_one()
    gone = value is not None and name in OPTIONAL and random.random() < 0.3
    if value is None and name.endswith("_at"):
        value = conn.execute(select(requests.c.created_at).where(requests.c.id == id)).scalar_one()
    new = None if gone else other(random, value)
    conn.execute(update(requests).where(requests.c.id == id).values({name: new}))
    return f"{name} of the request {id}"


def reset_request(conn: Connection, random: Random) -> str:
    """A yes that was used, so that it can be used again."""
    id = pick(conn, random, requests.c.id, requests.c.used_at.is_not(None))
    values: dict[str, Any] = {"used_at": None, "closed_at": None}
    if random.random() < 0.5:
        values["certificate"] = None
    conn.execute(update(requests).where(requests.c.id == id).values(**values))
    return f"the yes of the request {id} is as if it had not been used"


REQUEST = (
    "profile_version names binds binding summary ask created_at expires_at used_at certificate closed_at failed_at "
    "asked_by"
).split()
OPTIONAL = ("used_at", "certificate", "closed_at")

TRICKS: tuple[Trick, ...] = (
    approve_request,
    edit_request,
    edit_request,
    reset_request,
    edit_event,
    delete_event,
    insert_event,
    swap_events,
    truncate,
    edit_hash,
    rewrite,
    edit_head,
    delete_head,
    insert_head,
    edit_key,
    edit_certificate,
    edit_certificate,
    edit_certificate,
    edit_foreign,
    edit_foreign,
    edit_filled,
    edit_filled,
    pretend,
    empty,
    fill,
    disown,
    adopt,
    delete_certificate,
    insert_certificate,
    unrevoke,
    revoke,
    change_reason,
)

# ── An export ─────────────────────────────────────────────────────────────────────────────────────────────────────


def spoil(lines: list[bytes], random: Random) -> tuple[str, list[bytes]]:
    """One change of an export, and what it was."""
    match random.choice(["edit", "edit", "edit", "delete", "repeat", "insert", "swap", "cut", "unrevoke"]):
        case "edit":
            at = random.randrange(len(lines))
            value = json.loads(lines[at])
            inner = value.get("certificate") or (value["data"] if "data" in value and random.random() < 0.5 else value)
            changed = edited(random, inner)
            inner.clear()
            inner.update(changed)
            return f"line {at + 1} edited", [*lines[:at], json.dumps(value).encode() + b"\n", *lines[at + 1 :]]
        case "delete":
            at = random.randrange(len(lines))
            return f"line {at + 1} deleted", lines[:at] + lines[at + 1 :]
        case "repeat":
            at, to = random.randrange(len(lines)), random.randrange(len(lines) + 1)
            return f"line {at + 1} again at {to + 1}", [*lines[:to], lines[at], *lines[to:]]
        case "insert":
            at = random.choice([n for n, line in enumerate(lines) if b'"kind"' in line])
            value = json.loads(lines[at]) | {"id": "10000", "request_id": "made-up"}
            behind = [_moved(line, value["leaf"]) for line in lines[at:]]
            return f"an event before line {at + 1}", [*lines[:at], json.dumps(value).encode() + b"\n", *behind]
        case "swap":
            several = [n for n, line in enumerate(lines) if b'"kind"' in line]
            first, second = random.sample(several, 2)
            changed_lines = list(lines)
            changed_lines[first], changed_lines[second] = lines[second], lines[first]
            return f"lines {first + 1} and {second + 1} swapped", changed_lines
        case "cut":
            at = random.randrange(len(lines))
            return f"cut off at line {at + 1}", lines[:at] + ([lines[-1]] if random.random() < 0.5 else [])
        case _:
            at = random.choice([n for n, line in enumerate(lines) if b'"revoked_at":"' in line])
            value = json.loads(lines[at])
            value["certificate"] |= {"revoked_at": None, "reason": None}
            return f"line {at + 1} not revoked", [*lines[:at], json.dumps(value).encode() + b"\n", *lines[at + 1 :]]


def _moved(line: bytes, first: int) -> bytes:
    value = json.loads(line)
    if "leaf" in value and value["leaf"] >= first:
        value["leaf"] += 1
    return json.dumps(value).encode() + b"\n"
