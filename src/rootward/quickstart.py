"""From an empty home to a served two-tier PKI, without a question; and serving a home that has one.

The ceremony runs in a process of its own (`rootward.lab`) that ends before anything is served; this process never opens
`offline-root/`. A quickstart that was cut off is simply run again: each step is there whole or not at all.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from rootward import home as homes
from rootward import server
from rootward.ca import ceremony, clock, founding, records, room
from rootward.ca.access import new_token
from rootward.ca.installation import Installation
from rootward.ca.sign import sign
from rootward.config import Config, address, load_config
from rootward.core import paperwork
from rootward.core.csr_draft import draft_csr, finish_csr
from rootward.core.issuer import is_lab
from rootward.core.names import parse_host
from rootward.core.problems import Problem
from rootward.core.pubkey import KeyAlgorithm
from rootward.core.script import inputs_of, read_script, write_script
from rootward.core.times import whole_second
from rootward.keys import Key
from rootward.keys.disk import replace
from rootward.protocols.listen import bind
from rootward.store import authorities
from rootward.store.db import Database
from rootward.worker import Job

_CEREMONY_SECONDS = 300


def quickstart(
    *,
    home: Path,
    https: str | None,
    mtls: str | None,
    http: str | None,
    hosts: list[str],
    org: str | None,
    domains: list[str],
) -> None:
    """Make what is missing, then serve until a signal comes. Prints what there is and what to try next."""
    flags: dict[str, object] = {"listen.https": https, "listen.mtls": mtls, "listen.http": http, "org": org}
    if hosts:
        # The server stays reachable from its own machine, whatever else it is called.
        flags["hosts"] = list(dict.fromkeys([*hosts, *Config().hosts]))
    for domain in domains:
        parse_host(domain.strip("."), field="--domain")
    fresh = not (home / "rootward.toml").exists()
    if fresh:
        flags |= lab_flags()
    config = load_config(home, os.environ, flags)
    if fresh:
        _try_addresses(config)
    homes.make_home(config)
    db = homes.open_store(config)
    try:
        if not db.read_sync(authorities.list):
            _say(
                f"Making a two-tier PKI in {home} by a lab ceremony: one machine, no witnesses. "
                "Good for trying, not for trust."
            )
            asyncio.run(_found(config, db, domains))
        asyncio.run(_complete(config, db))
    except BaseException:
        db.close()
        raise
    _serve(config, db, os.environ, partial(_announce, config))


def lab_flags() -> dict[str, object]:
    """The settings that only a lab has: its names are validated on its own machine."""
    return {"lab": True, "egress.allow": [*Config().egress.allow, "127.0.0.0/8", "::1/128"]}


def _try_addresses(config: Config) -> None:
    """Problem RW-CONFIG where an address cannot be had: before anything is made that would carry it for years."""
    for door in ("https", "mtls", "http"):
        bind(f"--{door}", address(getattr(config.listen, door))).close()


def init_home(home: Path, flags: Mapping[str, object]) -> None:
    """A home without authorities: settings (`flags` are those that are not the defaults), key-encryption key, empty
    tables.
    """
    if (home / "rootward.toml").exists():
        raise Problem("RW-HOME", f"{home} is a home of Rootward already.")
    config = load_config(home, os.environ, flags)
    homes.make_home(config)
    homes.open_store(config).close()


def serve_home(home: Path) -> None:
    """Serve a home that was made before."""
    config = homes.read_config(home, os.environ)
    db = homes.open_store(config)
    _serve(
        config,
        db,
        os.environ,
        lambda: _say(f"{_single_tier(config)}{_elsewhere(config)}ready: {_served(config, 'https')}"),
    )


def recover(home: Path) -> str:
    """See home.recover."""
    return str(homes.recover(home))


def accept_clock(home: Path) -> None:
    """Take the clock as it stands for right; an event."""
    config = homes.read_config(home, os.environ)
    db = homes.open_store(config)
    try:
        asyncio.run(clock.accept_clock(homes.installation(config, db, os.environ)))
    finally:
        db.close()


def accept_log(home: Path) -> None:
    """Go on from the audit log as the store has it; an event."""
    config = homes.read_config(home, os.environ)
    db = homes.open_store(config)
    try:
        asyncio.run(homes.accept_log(config, db, os.environ))
    finally:
        db.close()


def _serve(config: Config, db: Database, environ: Mapping[str, str], announce: Callable[[], None]) -> None:
    async def open_installation() -> Installation:
        try:
            return await homes.open_checked(config, db, environ)
        except BaseException:
            db.close()
            raise

    jobs = {
        "ceremony-requests": Job(timedelta(seconds=30), lambda inst, _: homes.lay_out_requests(inst, config.home)),
        "admin-token": Job(timedelta(hours=1), lambda inst, _: homes.renew_admin_token(inst, config.home)),
        "records": Job(timedelta(seconds=5), lambda inst, _: records.take_in(inst, config.home)),
        "kek": Job(timedelta(seconds=5), lambda inst, _: homes.change_kek(inst, config, environ)),
        "clock": Job(timedelta(seconds=10), lambda inst, _: clock.watch_clock(inst)),
        "disk": Job(timedelta(seconds=10), lambda inst, _: room.look(inst)),
    }
    server.run(config, open_installation, announce=announce, local=jobs, environ=environ)


async def _found(config: Config, db: Database, domains: list[str]) -> None:
    """The key, the ceremony, the first transaction. Whatever is there of a run that was cut off is used again."""
    inst = homes.installation(config, db, os.environ)
    folder = config.home / "ceremony"
    folder.mkdir(mode=0o755, exist_ok=True)
    if not (folder / "result.json").exists():
        key = _issuing_key(inst)
        draft = draft_csr(key.public)
        csr = finish_csr(draft, sign(key, key.public, draft))
        pem = x509.load_der_x509_csr(csr).public_bytes(Encoding.PEM).decode()
        now = whole_second(inst.clock())
        request = ceremony.lab_request(organization=config.org, pki_url=config.pki_url, csr_pem=pem, at=now)
        serials = (secrets.token_bytes(20), secrets.token_bytes(20))
        script = ceremony.lab_script(request, at=now, serials=serials)
        replace(folder / inputs_of(script)[0].file, paperwork.write(request), mode=0o644)
        replace(folder / "script.yaml", write_script(script), mode=0o644)
        _hold_ceremony(config.home)
    result = _result(folder)
    script = read_script(result.script.encode())
    outcome = ceremony.outcome_of(result)
    root = x509.load_der_x509_certificate(outcome.root)
    replace(config.home / "root.pem", root.public_bytes(Encoding.PEM), mode=0o644)
    token, digest = new_token()
    homes.write_token(config.home, token)
    await founding.found(inst, script, outcome, backend=homes.BACKEND, domains=domains, token_hash=digest)


async def _complete(config: Config, db: Database) -> None:
    """What follows the founding, unless it is there: a run that was cut off right after it is finished here."""
    folder = config.home / "ceremony"
    if (folder / "result.json").exists():
        outcome = ceremony.outcome_of(_result(folder))
        await founding.complete(homes.installation(config, db, os.environ), outcome)


def _result(folder: Path) -> paperwork.Result:
    return paperwork.read((folder / "result.json").read_bytes(), paperwork.Result)


def _issuing_key(inst: Installation) -> Key:
    for label, key_id in inst.keys.list():
        if label == "issuing":
            return inst.keys.load(label, key_id)
    return inst.keys.generate("issuing", KeyAlgorithm.P256)


def _hold_ceremony(home: Path) -> None:
    command = [sys.executable, "-m", "rootward.lab", str(home)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_CEREMONY_SECONDS, check=False)  # noqa: S603  # our own module
    if done.returncode != 0:
        raise Problem("RW-CEREMONY", f"The ceremony did not go through: {done.stderr.strip() or done.returncode}")


def _announce(config: Config) -> None:
    root = x509.load_pem_x509_certificate((config.home / "root.pem").read_bytes())
    fingerprint = root.fingerprint(SHA256()).hex(":")
    here = _served(config, "https")
    usual = config.home == Path.cwd() / "var"
    said, out = ("", "var/a") if usual else (f" --home {config.home}", "a")  # git ignores var
    if load_config(config.home, {}, {}).listen.https != config.listen.https:
        said += f" --url {here}"  # a command reads the home's settings, and these are others for this once
    _say(
        f"""
Root     {root.subject.rfc4514_string()}
         SHA-256 {fingerprint}
Lab      the root's key is in {config.home / "offline-root"}: take that folder away, the server works without it
API      {here}/api/docs
ACME     {here}/acme/server/directory (one for each profile that takes ACME), {here}/acme/directory
mTLS     {_served(config, "mtls")}
Public   {config.pki_url}/crl/issuing.crl, {config.pki_url}/ocsp/issuing, {config.pki_url}/ca/issuing.cer
Trust    {config.home / "root.pem"}

Try next:
  rootward{said} cert issue --profile server --name a.internal --out {out}
  rootward{said} cert verify {out}/fullchain.pem --host a.internal
  rootward{said} cert list

{_elsewhere(config)}ready: {here}"""
    )


_URLS = {"https": "external_url", "mtls": "mtls_url", "http": "pki_url"}  # a door, and the setting of its address


def _served(config: Config, door: str) -> str:
    """The address of a door: the one in the settings where the door listens there, else where it does listen."""
    named = str(getattr(config, _URLS[door]))
    parts = urlsplit(named)
    host, port = address(getattr(config.listen, door))
    everywhere = host in ("0.0.0.0", "::")  # noqa: S104  # compared, not bound
    at = parts.port or (443 if parts.scheme == "https" else 80)
    if at == port and (everywhere or host == "127.0.0.1" or parts.hostname not in ("localhost", "127.0.0.1")):
        return named
    if (everywhere or host == "127.0.0.1") and "localhost" in config.hosts:
        host = "localhost"
    elif everywhere:
        host = config.hosts[0]
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _single_tier(config: Config) -> str:
    """A line about a root that is online; nothing where there is none."""
    root = x509.load_pem_x509_certificates((config.home / "root.pem").read_bytes())[0]
    return "A SINGLE-TIER LAB: the root's key is online, for trying alone.\n" if is_lab(root) else ""


def _elsewhere(config: Config) -> str:
    """A line about addresses in the settings at which nothing listens here; nothing where there are none."""
    others = [
        f"{name} {url}" for door, name in _URLS.items() if _served(config, door) != (url := getattr(config, name))
    ]
    if not others:
        return ""
    return (
        f"These stay as they are set, and nothing listens there: {', '.join(others)}. Unless something forwards them, "
        f"change them in {config.home / 'rootward.toml'} (pki_url is in every certificate: better listen there).\n"
    )


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201  # this is what the command says
