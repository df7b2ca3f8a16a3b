"""A step of a ceremony's script in words and figures: what the screen shows before it is done."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import msgspec
from cryptography import x509

from rootward.core.pubkey import public_key_of
from rootward.core.script import (
    BackUpKey,
    Certify,
    CertifyRoot,
    ChangeCustodians,
    CheckShares,
    CrossSign,
    DestroyKey,
    KeyPlace,
    MakeKey,
    Script,
    SignCrl,
    Step,
    TokenKey,
    key_of,
)
from rootward.core.times import parse_duration, parse_time, rfc3339


def headline(step: Step) -> str:
    """One sentence."""
    match step:
        case MakeKey():
            return f'Make the key "{step.key}".'
        case CertifyRoot():
            return f'Certify the root "{step.spec.name}" by itself.'
        case Certify():
            return f'Certify the {step.spec.kind} authority "{step.spec.name}" by "{step.by}".'
        case CrossSign():
            return f'Cross-sign the authority "{step.spec.name}" by "{step.by}".'
        case SignCrl():
            return f'Sign a CRL of "{step.by}".'
        case ChangeCustodians():
            return f'Change the custodians of the key "{step.key}".'
        case CheckShares():
            return f'Check the shares of the key "{step.key}".'
        case BackUpKey():
            return f'Copy the sealed key "{step.key}" to another medium.'
        case DestroyKey():
            return f'DESTROY the private key "{step.key}".'


def details(script: Script, step: Step) -> Iterator[tuple[str, str]]:
    """(what, value) of everything that the step decides."""
    match step:
        case MakeKey():
            yield "algorithm", step.algorithm
            yield from place(script.keys[step.key])
        case CertifyRoot() | Certify() | CrossSign():
            yield from _certificate(script, step)
        case SignCrl():
            yield "by key", key_of(script, step.by)
            yield "number", str(step.number)
            yield "from", step.this_update
            yield "until", step.next_update
            if step.request is not None:
                yield "entries", f"those of {step.request.file}"
            elif not step.entries:
                yield "entries", "none: nothing is revoked"
            for entry in step.entries:
                yield "revoked", f"{entry.serial} {entry.revoked_at} {entry.reason}"
        case ChangeCustodians():
            yield from place(script.keys[step.key])
            yield "new", f"{step.threshold} of {len(step.custodians)}: {', '.join(step.custodians)}"
        case CheckShares():
            yield from place(script.keys[step.key])
        case BackUpKey():
            yield from place(script.keys[step.key])
            yield "to", step.to
        case DestroyKey():
            yield from place(script.keys[step.key])
            yield "public key", step.public
            yield "why", step.why


def _certificate(script: Script, step: CertifyRoot | Certify | CrossSign) -> Iterator[tuple[str, str]]:
    spec = step.spec
    named = (("CN", spec.common_name), ("O", spec.organization), ("C", spec.country))
    yield "subject", ", ".join(f"{short}={value}" for short, value in named if value)
    if isinstance(step, CertifyRoot):
        yield "key", f"{step.key} ({spec.key_algorithm})"
    elif isinstance(step, Certify) and step.made is not None:
        yield "key", f"{step.made} ({spec.key_algorithm}), made here"
    elif isinstance(step, Certify):
        yield "key", f"{spec.key_algorithm}, of {'' if step.request is None else step.request.file}"
        yield "public key", step.public_key or ""
    else:
        other = x509.load_pem_x509_certificate(step.certificate.encode())
        yield "of", other.subject.rfc4514_string()
        yield "public key", public_key_of(other.public_key()).id
        if step.request is not None:
            yield "asked by", step.request.file
    if not isinstance(step, CertifyRoot):
        yield "by key", key_of(script, step.by)
    begin = parse_time(script.at)
    yield "valid from", script.at
    yield "until", f"{rfc3339(begin + parse_duration(spec.lifetime) - timedelta(seconds=1))} ({spec.lifetime})"
    yield "serial", step.serial
    yield "path length", "no limit" if spec.path_length is None else str(spec.path_length)
    for one in msgspec.structs.fields(spec):
        value = getattr(spec, one.name)
        if one.name not in _SHOWN and value != one.default:
            yield from _further(one.name.replace("_", " "), value)


_SHOWN = frozenset("name kind common_name organization country key_algorithm lifetime path_length".split())


def _further(name: str, value: object) -> Iterator[tuple[str, str]]:
    """Whatever else a specification has, a line for each thing."""
    if isinstance(value, msgspec.Struct):
        for one in msgspec.structs.fields(value):
            if getattr(value, one.name) != one.default:
                yield from _further(f"{name} {one.name}", getattr(value, one.name))
    else:
        yield name, ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def place(where: KeyPlace) -> Iterator[tuple[str, str]]:
    """Where a key is, and what opens it."""
    if isinstance(where, TokenKey):
        yield "in token", where.uri
        what, alone = "PIN", "typed in"
    else:
        yield "in folder", where.folder
        what, alone = "opened by", "one passphrase"
    yield (
        what,
        f"{where.threshold} of {len(where.custodians)}: {', '.join(where.custodians)}" if where.custodians else alone,
    )
