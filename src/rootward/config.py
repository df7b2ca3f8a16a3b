"""The server's own settings: `rootward.toml`, the environment and the command line, checked as one.

A flag goes before the environment, the environment before the file, the file before the default. Every default is safe,
an unknown setting is an error, and all errors are told at once (Problem RW-CONFIG). Only the rim (server, worker, cli)
reads this module; what the PKI contains lives in the database, never here. `docs/reference/configuration.md` describes
every setting; a test compares the two. A setting and its check are read together, so these lines are one file.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import msgspec

from rootward.core.problems import Problem, Reason, shown

FILE_NAME: Final = "rootward.toml"
DEFAULT_HOME: Final = "var"
_KIB, _MIB = 1024, 1024 * 1024


class Listen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the three listeners bind: `ADDRESS:PORT`, IPv6 as `[::1]:8443`."""

    https: str = "127.0.0.1:8443"
    mtls: str = "127.0.0.1:8444"
    http: str = "127.0.0.1:8080"


class Database(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`sqlite:////ABSOLUTE/PATH` or `postgresql+psycopg://…`; empty: `rootward.db` in the home (then filled in by
    `load_config`).
    """

    url: str = ""


class Log(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How and from which level on log lines are written, to standard error."""

    format: Literal["console", "json"] = "console"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Kek(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the key that protects the keys comes from: a secret's reference (`secret_path`). `previous` is the one
    before, where it is changed by hand; empty: there is none.
    """

    source: str = "file:kek"
    previous: str = ""


class KeyStore(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where authorities' keys live besides the home's own files: a `[keys.NAME]` table.

    `backend` is one of `keys.BACKENDS`; `uri` says which token, key ring, vault, region or socket; `pin` is a secret's
    reference, or `prompt`; `endpoint` is another address than the vendor's own.
    """

    backend: Literal["pkcs11", "aws-kms", "gcp-kms", "azure-kv", "signer"]
    uri: str = ""
    pin: str = ""
    endpoint: str = ""


class Metrics(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`scrape_token` is a secret's reference; empty: `/metrics` wants the role auditor."""

    scrape_token: str = ""


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one connection, one request and one address may cost. Bytes and seconds."""

    connections: int = 2000
    connections_per_address: int = 512
    requests: int = 512
    url_bytes: int = 8 * _KIB
    header_bytes: int = 32 * _KIB
    header_count: int = 100
    body_bytes: int = _MIB
    import_bytes: int = 32 * _MIB
    handshake_seconds: int = 10
    header_seconds: int = 10
    body_seconds: int = 60
    idle_seconds: int = 75
    write_seconds: int = 30
    shutdown_seconds: int = 20


class Acme(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How names are validated for ACME, what its directories say, and how much one account or address may ask for.
    `resolvers` are `ADDRESS:PORT`; `terms` is a URL or empty; `profile` is what an order gets that names none.
    """

    http01_port: int = 80
    tls_alpn01_port: int = 443
    resolvers: tuple[str, ...] = ("127.0.0.1:53",)
    chaos: bool = False
    terms: str = ""
    profile: str = "server"
    orders_per_hour: int = 3000
    failures_per_hour: int = 300
    accounts_per_hour: int = 100


class Egress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where calls may go whose target somebody else chose: networks, and the domains of names (empty: any name)."""

    allow: tuple[str, ...] = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
    suffixes: tuple[str, ...] = ()


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every setting. `home` is where it was read from, never a line of the file. URLs have no slash at their end."""

    home: Path = Path(DEFAULT_HOME)
    org: str = "Rootward"
    lab: bool = False
    hosts: tuple[str, ...] = ("localhost", "127.0.0.1")
    external_url: str = ""
    pki_url: str = ""
    mtls_url: str = ""
    listen: Listen = Listen()
    database: Database = Database()
    kek: Kek = Kek()
    keys: dict[str, KeyStore] = msgspec.field(default_factory=dict)
    log: Log = Log()
    metrics: Metrics = Metrics()
    acme: Acme = Acme()
    egress: Egress = Egress()
    limits: Limits = Limits()


ENVIRONMENT: Final[dict[str, str]] = {
    "ROOTWARD_HTTPS": "listen.https",
    "ROOTWARD_MTLS": "listen.mtls",
    "ROOTWARD_HTTP": "listen.http",
    "ROOTWARD_DATABASE": "database.url",
}

_ADDRESS = "an address and a port, such as 127.0.0.1:8443 or [::1]:8443"
_URL = "a URL with scheme and host and without query and slash at its end, such as https://pki.internal:8443"
_SECRET = "file:PATH (from the home on) or credential:NAME (a systemd credential)"  # noqa: S105 -- the form, no secret
_RANGES: Final[dict[str, tuple[int, int]]] = {
    "acme.http01_port": (1, 65535),
    "acme.tls_alpn01_port": (1, 65535),
    "acme.orders_per_hour": (1, 1_000_000),
    "acme.failures_per_hour": (1, 100_000),
    "acme.accounts_per_hour": (1, 100_000),
    "limits.connections": (10, 100_000),
    "limits.connections_per_address": (1, 100_000),
    "limits.requests": (1, 10_000),
    "limits.url_bytes": (2 * _KIB, 64 * _KIB),
    "limits.header_bytes": (4 * _KIB, 256 * _KIB),
    "limits.header_count": (10, 1000),
    "limits.body_bytes": (64 * _KIB, 64 * _MIB),
    "limits.import_bytes": (64 * _KIB, 1024 * _MIB),
    "limits.handshake_seconds": (1, 60),
    "limits.header_seconds": (1, 60),
    "limits.body_seconds": (1, 600),
    "limits.idle_seconds": (1, 600),
    "limits.write_seconds": (1, 600),
    "limits.shutdown_seconds": (0, 600),
}
_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*", re.ASCII)


def home_of(flag: str | None, environ: Mapping[str, str]) -> Path:
    """The home directory, absolute: the flag, ROOTWARD_HOME, or `./var`."""
    return Path(os.path.abspath(flag or environ.get("ROOTWARD_HOME") or DEFAULT_HOME))


def load_config(home: Path, environ: Mapping[str, str], flags: Mapping[str, object]) -> Config:
    """The checked settings of one home. `flags` maps dotted keys (`listen.https`) to values; None means that it was not
    given.

    A home without the file gets the defaults. Raises Problem RW-CONFIG with every reason.
    """
    path = home / FILE_NAME
    reasons: list[Reason] = []
    # (key, value, where it comes from), later ones win
    given: dict[str, tuple[object, str]] = {}
    for key, value in _flatten(_read(path)):
        given[key] = (value, str(path))
    given |= {key: (environ[name], name) for name, key in ENVIRONMENT.items() if environ.get(name)}
    given |= {key: (value, f"the option for {key}") for key, value in flags.items() if value is not None}

    known = dict(settings())
    values: dict[str, object] = {}
    stores: dict[str, KeyStore] = {}
    for key, (value, source) in given.items():
        if key.startswith("keys."):
            name = key.removeprefix("keys.")
            try:
                stores[name] = _key_store(name, value)
            except ValueError as error:
                reasons.append(_reason(key, f"{source}: [{shown(key)}] {error}"))
            continue
        if key not in known:
            near = ", ".join(sorted(known))
            reasons.append(_reason(key, f"{source}: {shown(key)} is not a setting. The settings are: {near}."))
            continue
        try:
            values[key] = _checked(key, value, known[key])
        except ValueError as error:
            reasons.append(_reason(key, f"{source}: {key} must be {error}, not {shown(str(value))}."))
    if reasons:
        raise Problem.of(reasons)
    return _complete(_build(Config, values | {"keys": stores}), home)


def settings() -> Iterator[tuple[str, object]]:
    """Every setting as (dotted key, default), in the order of the file."""
    for field in msgspec.structs.fields(Config):
        if field.name in ("home", "keys"):
            continue
        if isinstance(field.default, msgspec.Struct):
            for inner in msgspec.structs.fields(field.default):
                yield f"{field.name}.{inner.name}", inner.default
        else:
            yield field.name, field.default


def write_config(path: Path, config: Config) -> None:
    """Writes `rootward.toml` anew (mode 0644, never over an existing file): what differs from the default, the rest as
    comments.

    Raises FileExistsError. The database's URL is written only where it is not the home's own file.
    """
    own = f"sqlite:///{config.home}/rootward.db"
    lines = [
        "# The settings of this Rootward server; docs/reference/configuration.md explains each one.",
        "# A line that begins with # shows the default. A change takes effect at the next start.",
        "",
    ]
    tables: dict[str, list[str]] = {}
    for key, default in settings():
        table, _, name = key.rpartition(".")
        value = getattr(getattr(config, table) if table else config, name)
        silent = value == default or (key == "database.url" and value == own)
        text = toml_value(default if silent else value)
        tables.setdefault(table, []).append(f"{'# ' if silent else ''}{name} = {text}")
    for table, rows in tables.items():
        lines += ([f"[{table}]"] if table else []) + rows + [""]
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    os.fchmod(descriptor, 0o644)  # whatever the umask
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write("\n".join(lines))
        file.flush()
        os.fsync(file.fileno())


def secret_path(reference: str, home: Path, environ: Mapping[str, str]) -> Path:
    """The file behind `file:PATH` or `credential:NAME` (systemd's CREDENTIALS_DIRECTORY). Problem RW-CONFIG when there
    is none.
    """
    kind, _, rest = reference.partition(":")
    if kind == "file":
        return home / rest
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        detail = (
            f"{reference} needs systemd's CREDENTIALS_DIRECTORY, which is not set. Use LoadCredential= in the unit."
        )
        raise Problem("RW-CONFIG", detail)
    return Path(folder) / rest


def address(text: str) -> tuple[str, int]:
    """`127.0.0.1:8443` or `[::1]:8443` as (address, port). ValueError for anything else, names included."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        where: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.IPv6Address(host[1:-1])
    else:
        where = ipaddress.IPv4Address(host)
    if not colon or not re.fullmatch(r"[1-9][0-9]{0,4}", port, re.ASCII) or int(port) > 65535:
        raise ValueError(text)
    return str(where), int(port)


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise Problem("RW-CONFIG", f"{path} cannot be read: {type(error).__name__}.") from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Problem("RW-CONFIG", f"{path} is not TOML: {error}.") from error


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in tree.items():
        if isinstance(value, dict) and not prefix:
            yield from _flatten(value, f"{name}.")
        else:
            yield prefix + name, value


def _reason(key: str, detail: str) -> Reason:
    return Reason("RW-CONFIG", detail, key)


def _type(key: str) -> Any:
    table, _, name = key.rpartition(".")
    owner = typing.get_type_hints(Config)[table] if table else Config
    return typing.get_type_hints(owner)[name]


def _checked(key: str, value: object, default: object) -> object:
    """The value in the setting's type; ValueError whose text says what is allowed."""
    kind = _type(key)
    if key in _RANGES:
        low, high = _RANGES[key]
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return value
    if typing.get_origin(kind) is Literal:
        if value not in typing.get_args(kind):
            raise ValueError(" or ".join(typing.get_args(kind)))
        return value
    if kind is bool:
        if not isinstance(value, bool):
            raise ValueError("true or false")
        return value
    if key in _LISTS:
        what, least, most, fits = _LISTS[key]
        if not isinstance(value, list | tuple) or not least <= len(value) <= most or not all(map(fits, value)):
            raise ValueError(f"a list of {least} to {most} {what}")
        return tuple(value)
    if not isinstance(value, str):
        raise ValueError("a string")
    allowed, right = _FORMS[key]
    if value != default and not right(value):
        raise ValueError(allowed)
    return value


def _key_store(name: str, value: object) -> KeyStore:
    """One `[keys.NAME]` table; ValueError whose text says what is wrong with it."""
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,39}", name, re.ASCII) or name in ("file", "memory"):
        raise ValueError("is no name for a key store: 1 to 40 of a-z, 0-9 and dash, and not file or memory.")
    try:
        store = msgspec.convert(value, KeyStore)
    except msgspec.ValidationError as error:
        raise ValueError(f"cannot be read: {error}.") from None
    if store.pin not in ("", "prompt") and not _is_secret(store.pin):
        raise ValueError(f"pin must be {_SECRET}, or prompt, not what it is.")
    if store.endpoint and not _is_url(store.endpoint, "http", "https"):
        raise ValueError("endpoint must be a URL with scheme and host.")
    return store


def _is_host(value: object) -> bool:
    return isinstance(value, str) and (_is_ip(value) or _HOST.fullmatch(value) is not None)


def _is_ip(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def _is_address(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(address(value))
    except ValueError:
        return False


def _is_network(value: object) -> bool:
    """`10.0.0.0/8`; one with bits behind its length is refused, for nobody knows what was meant."""
    try:
        return isinstance(value, str) and bool(ipaddress.ip_network(value))
    except ValueError:
        return False


def _is_domain(value: object) -> bool:
    return isinstance(value, str) and not _is_ip(value) and _HOST.fullmatch(value) is not None


def _is_url(value: str, *schemes: str) -> bool:
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        return False
    plain = not (parts.query or parts.fragment or "@" in parts.netloc or value.endswith(("/", "?", "#")))
    return (
        plain and port != 0 and parts.scheme in schemes and _is_host((parts.hostname or "").lower()) and value.isascii()
    )


def _is_page(value: str) -> bool:
    return re.fullmatch(r"https?://[^\s@]{1,2000}", value, re.ASCII) is not None and value.isascii()


def _is_database(value: str) -> bool:
    return value.startswith(("sqlite:////", "postgresql+psycopg://"))


def _is_secret(value: str) -> bool:
    return re.fullmatch(r"file:[^\0\n]+|credential:[A-Za-z0-9_-][A-Za-z0-9._-]*", value) is not None


_FORMS: Final[dict[str, tuple[str, Callable[[str], bool]]]] = {
    "org": (
        "1 to 64 printable characters (RFC 5280 ub-organization-name)",
        lambda text: 0 < len(text) <= 64 and text.isprintable() and text == text.strip(),
    ),
    "external_url": (_URL, lambda text: _is_url(text, "https")),
    "pki_url": (_URL.replace("https", "http"), lambda text: _is_url(text, "http", "https")),
    "mtls_url": (_URL, lambda text: _is_url(text, "https")),
    "listen.https": (_ADDRESS, _is_address),
    "listen.mtls": (_ADDRESS, _is_address),
    "listen.http": (_ADDRESS, _is_address),
    "database.url": ("sqlite:////ABSOLUTE/PATH or postgresql+psycopg://USER@HOST/NAME", _is_database),
    "kek.source": (_SECRET, _is_secret),
    "kek.previous": (_SECRET, _is_secret),
    "metrics.scrape_token": (_SECRET, _is_secret),
    "acme.profile": ("a profile's name", lambda text: re.fullmatch(r"[a-z0-9-]{1,40}", text, re.ASCII) is not None),
    "acme.terms": ("a URL such as https://pki.internal/terms", _is_page),
}
# What the elements are, how many there may be, and how one is checked.
_LISTS: Final[dict[str, tuple[str, int, int, Callable[[object], bool]]]] = {
    "hosts": ('host names in lower case and IP addresses, such as ["pki.internal", "10.0.0.1"]', 1, 20, _is_host),
    "acme.resolvers": ('addresses with ports, such as ["127.0.0.1:53"]', 0, 5, _is_address),
    "egress.allow": ('networks, such as ["10.0.0.0/8", "192.0.2.7/32"]', 0, 200, _is_network),
    "egress.suffixes": ('domains in lower case, such as ["internal", "corp.example"]', 0, 200, _is_domain),
}


def _build(kind: type[Config], values: Mapping[str, object]) -> Config:
    top: dict[str, Any] = {}
    tables: dict[str, dict[str, object]] = {}
    for key, value in values.items():
        table, _, name = key.rpartition(".")
        if table:
            tables.setdefault(table, {})[name] = value
        else:
            top[name] = value
    hints = typing.get_type_hints(kind)
    return kind(**top, **{table: hints[table](**inner) for table, inner in tables.items()})


def _complete(config: Config, home: Path) -> Config:
    """Fills in what follows from other settings: the database in the home, and the addresses that others use."""
    addresses = {name: address(getattr(config.listen, name)) for name in ("https", "mtls", "http")}
    if len(set(addresses.values())) < len(addresses):
        raise Problem(
            "RW-CONFIG", "listen.https, listen.mtls and listen.http must be three different addresses.", field="listen"
        )
    host = f"[{config.hosts[0]}]" if ":" in config.hosts[0] else config.hosts[0]

    def url(scheme: str, name: str, standard: int) -> str:
        port = addresses[name][1]
        return f"{scheme}://{host}" if port == standard else f"{scheme}://{host}:{port}"

    return msgspec.structs.replace(
        config,
        home=home,
        external_url=config.external_url or url("https", "https", 443),
        pki_url=config.pki_url or url("http", "http", 80),
        mtls_url=config.mtls_url or url("https", "mtls", 443),
        database=config.database if config.database.url else Database(f"sqlite:///{home}/rootward.db"),
    )


def toml_value(value: object) -> str:
    """A string, number, truth value or tuple of those as TOML (whose basic strings are JSON's)."""
    if isinstance(value, tuple):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return msgspec.json.encode(value).decode()
