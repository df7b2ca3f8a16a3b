"""`signer.toml` in the signer's home: where it listens, who may ask, and the limits of each authority. Read at start;
every error is said at once, and a setting that there is not is an error.
"""

from __future__ import annotations

import grp
import ipaddress
import pwd
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from rootward.config import KeyStore
from rootward.core.names import guess_name
from rootward.core.own import responder_profile, tls_profile
from rootward.core.pinned import Limits
from rootward.core.problems import Problem, Reason, shown
from rootward.core.profile import Profile
from rootward.core.signature import RsaSignature
from rootward.core.times import parse_duration

FILE: Final = "signer.toml"
_Count = Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]

EXAMPLE: Final = """\
# The settings of this signer; docs/reference/signer.md explains each one. A change takes effect at the next start.

socket = {socket}
# Who may ask: users, by name or number. The user that the web process runs as.
peers = {peers}
# The socket's group, which must be one of the signer's own; empty: the signer's first group.
# group = ""
# connections = 64
# kek = "file:kek"

# Keys in a token or a key service instead of files:
# [store]
# backend = "pkcs11"
# uri = "pkcs11:token=issuing?module-path=/usr/lib/softhsm/libsofthsm2.so"
# pin = "credential:pin"

# [authorities.issuing]
# certificates_per_hour = 1000
# crls_per_hour = 2000
# own_per_day = 50
# lifetime = "397d"
# crl = "7d"
# responder = "48h"
# rsa_signature = "pkcs1"
# tls_hosts = []
# suffixes = []
# networks = []
"""


class AuthorityLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An `[authorities.NAME]` table. Durations as `90d`."""

    certificates_per_hour: _Count = 1000
    crls_per_hour: _Count = 2000
    own_per_day: _Count = 50
    lifetime: str = "397d"
    crl: str = "7d"
    responder: str = "48h"
    rsa_signature: RsaSignature = "pkcs1"
    tls_hosts: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    socket: str
    peers: tuple[str | int, ...]
    group: str = ""
    connections: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 64
    kek: str = "file:kek"
    store: KeyStore | None = None
    authorities: dict[str, AuthorityLimits] = {}


@dataclass(frozen=True)
class Settings:
    """`peers` are user ids; `group` a group id, None for the signer's own."""

    home: Path
    socket: Path
    peers: frozenset[int]
    group: int | None
    connections: int
    kek: str
    store: KeyStore | None
    authorities: Mapping[str, AuthorityLimits]

    def limits_table(self, authority: str) -> AuthorityLimits:
        """The table of that authority, or its defaults."""
        return self.authorities.get(authority, AuthorityLimits())

    def limits(self, authority: str) -> Limits:
        """The limits of that authority."""
        return _limits(self.limits_table(authority))

    def own(self, authority: str) -> tuple[Profile, ...]:
        """The profiles of the installation's own certificates under that authority."""
        table = self.limits_table(authority)
        answers = responder_profile(authority, table.responder, table.rsa_signature)
        if not table.tls_hosts:
            return (answers,)
        return answers, tls_profile(authority, table.tls_hosts, table.rsa_signature)


def read_settings(home: Path) -> Settings:
    """The settings of a signer's home. Problem RW-HOME where it is none, RW-CONFIG with every reason."""
    path = home / FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise Problem(
            "RW-HOME", f"{home} is no signer's home: it has no {FILE}. rootward signer init makes one."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise Problem("RW-CONFIG", f"{path} cannot be read: {type(error).__name__}.") from error
    return parse_settings(home, text)


def parse_settings(home: Path, text: str) -> Settings:
    """The settings that this text is in a signer's home. Problem RW-CONFIG with every reason."""
    path = home / FILE
    try:
        found = msgspec.convert(tomllib.loads(text), _File)
    except tomllib.TOMLDecodeError as error:
        raise Problem("RW-CONFIG", f"{path} is not TOML: {error}.") from error
    except msgspec.ValidationError as error:
        raise Problem("RW-CONFIG", f"{path}: {shown(str(error), 300)}") from None
    return _checked(home, found)


def _checked(home: Path, found: _File) -> Settings:
    reasons: list[Reason] = []

    def attempt(key: str, make: Any, *arguments: Any) -> Any:
        try:
            return make(*arguments)
        except (ValueError, Problem) as error:
            why = error.detail if isinstance(error, Problem) else str(error)
            reasons.append(Reason("RW-CONFIG", f"{home / FILE}: {key}: {why}", key))
            return None

    for name, table in found.authorities.items():
        for field in ("lifetime", "crl", "responder"):
            attempt(f"authorities.{name}.{field}", parse_duration, getattr(table, field))
        for host in table.tls_hosts:
            attempt(f"authorities.{name}.tls_hosts", guess_name, host)
        for network in table.networks:
            attempt(f"authorities.{name}.networks", ipaddress.ip_network, network)
    peers = [attempt("peers", _user, peer) for peer in found.peers]
    if not found.peers:
        reasons.append(
            Reason("RW-CONFIG", f"{home / FILE}: peers: nobody may ask; name the web process's user.", "peers")
        )
    group = attempt("group", _group, found.group) if found.group else None
    if not Path(found.socket).is_absolute() or len(found.socket) > 100:
        reasons.append(
            Reason("RW-CONFIG", f"{home / FILE}: socket: it must be an absolute path of 100 octets at most.", "socket")
        )
    if reasons:
        raise Problem.of(reasons)
    return Settings(
        home=home,
        socket=Path(found.socket),
        peers=frozenset(peers),
        group=group,
        connections=found.connections,
        kek=found.kek,
        store=found.store,
        authorities=found.authorities,
    )


def _limits(table: AuthorityLimits) -> Limits:
    return Limits(
        certificates=table.certificates_per_hour,
        own=table.own_per_day,
        crls=table.crls_per_hour,
        lifetime=parse_duration(table.lifetime),
        crl=parse_duration(table.crl),
        suffixes=tuple(suffix.strip(".").lower() for suffix in table.suffixes),
        networks=tuple(ipaddress.ip_network(network) for network in table.networks),
    )


def _user(peer: str | int) -> int:
    if isinstance(peer, int):
        return peer
    try:
        return pwd.getpwnam(peer).pw_uid
    except KeyError:
        raise ValueError(f"there is no user {shown(peer)} on this machine.") from None


def _group(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ValueError(f"there is no group {shown(name)} on this machine.") from None
