"""`rootward cert verify`: what a relying party would say of a certificate, and why.

The chain is judged by `core.chain`, revocation by `core.relying`. Only addresses in certificates that a trusted root
vouches for are fetched: nobody else can make this command call a host. No redirect is followed; bytes and seconds are
bounded. The verdict is given twice: a hard-fail client refuses what it cannot prove to be unrevoked, a soft-fail
client then goes on (RFC 5280 6.3).
"""

from __future__ import annotations

import enum
import ssl
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Final, cast
from urllib.parse import urlsplit

import httpx
import typer
from cryptography import x509
from cryptography.utils import CryptographyDeprecationWarning

from rootward.cli import screen
from rootward.cli.client import is_loopback
from rootward.cli.connection import ca_file_of
from rootward.cli.failure import FAILED, USAGE, Failure
from rootward.cli.options import Session
from rootward.core.chain import ChainReport, verify_chain
from rootward.core.judge import Purpose
from rootward.core.links import State, Step, title_of
from rootward.core.names import DnsName, IpName, guess_name
from rootward.core.problems import Problem, shown
from rootward.core.relying import Inconclusive, crl_status, ocsp_question, ocsp_status, sources_of
from rootward.core.revocation import Good, Revoked, Status
from rootward.core.times import rfc3339

MAX_FILE: Final = 4 * 1024 * 1024
MAX_CRL: Final = 64 * 1024 * 1024  # bytes; a CRL of a million entries has about 40 MB
MAX_OCSP: Final = 64 * 1024
SECONDS: Final = 20  # for one fetch, from the first byte that is sent to the last one that comes
MAX_URLS: Final = 3  # of each kind and certificate


class Outcome(enum.Enum):
    """What is known about one certificate's revocation."""

    GOOD = enum.auto()
    REVOKED = enum.auto()
    UNPROVEN = enum.auto()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the two kinds of client do. `hard` is None where revocation was not asked about."""

    hard: bool | None
    soft: bool


def verify(
    session: Session, file: Path, *, host: str | None, roots: Path | None, offline: bool, purpose: str | None
) -> None:
    """Judge the file, print every step and the verdict; exit code 1 if a hard-fail client would refuse."""
    if purpose not in (None, "server", "client"):
        raise Failure(f"{purpose} is not a purpose.", next="Use --purpose server or --purpose client.", exit=USAGE)
    wanted = None if host is None else _host(host)
    use = cast("Purpose | None", purpose or ("server" if wanted is not None else None))
    now = datetime.now(UTC).replace(microsecond=0)
    with warnings.catch_warnings():
        # certificates with odd serials are judged all the same, not grumbled at
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        leaf, *others = _certificates(file)
        trusted, where = _roots(session, roots)
        report = verify_chain(leaf, others, trusted, now=now, purpose=use, host=wanted)
        steps, outcomes = _revocation(report, now=now, offline=offline)
    verdict = _verdict(report, outcomes, offline=offline)
    if session.json:
        _print_json([*report.steps, *steps], verdict, where)
    else:
        _print(report, steps, verdict, where)
    if verdict.hard is False or not verdict.soft:
        raise typer.Exit(FAILED)


def _host(text: str) -> DnsName | IpName:
    try:
        name = guess_name(text, field="--host")
    except Problem as problem:
        raise Failure(f"{text} is not the name of a host.", problem.detail, exit=USAGE) from None
    if not isinstance(name, DnsName | IpName) or (isinstance(name, DnsName) and name.wildcard):
        raise Failure(f"{text} is not the name of one host.", next="Use a host name or an address.", exit=USAGE)
    return name


def _certificates(file: Path) -> list[x509.Certificate]:
    """The certificates in a PEM or DER file, at least one. Failure (exit 2) otherwise."""
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_FILE + 1)
    except OSError as error:
        raise Failure(f"{file} cannot be read.", f"{error.strerror}.", exit=USAGE) from error
    if len(data) > MAX_FILE:
        raise Failure(f"{file} is too large for a certificate and its chain.", exit=USAGE)
    try:
        if b"-----BEGIN" in data:
            return x509.load_pem_x509_certificates(data)
        return [x509.load_der_x509_certificate(data)]
    except ValueError as error:
        raise Failure(f"{file} is not a certificate in PEM or DER.", exit=USAGE) from error


def _roots(session: Session, roots: Path | None) -> tuple[list[x509.Certificate], str]:
    """The trust anchors, and where they come from."""
    path = roots or ca_file_of(session.flags)
    if path is not None:
        return _certificates(path), str(path)
    context = ssl.create_default_context()
    found = []
    for data in context.get_ca_certs(binary_form=True):
        try:
            found.append(x509.load_der_x509_certificate(data))
        except ValueError:
            continue  # a root that cannot be read vouches for nobody
    return found, "the system's trust store"


def _revocation(report: ChainReport, *, now: datetime, offline: bool) -> tuple[list[Step], list[Outcome]]:
    if not report.authentic:
        return [Step("revocation", State.SKIPPED, "Nobody was asked: no trusted root vouches for the certificate.")], []
    if offline:
        return [Step("revocation", State.SKIPPED, "Nobody was asked (--offline).")], []
    steps: list[Step] = []
    outcomes = []
    with _Fetcher() as fetcher:
        for certificate, issuer in pairwise(report.path):
            own = list(_status_of(certificate, issuer, fetcher, now))
            steps += [step for step, _ in own]
            outcomes.append(_outcome([status for _, status in own]))
    return steps, outcomes


def _outcome(found: list[Status | None]) -> Outcome:
    """One certificate's answers as one: revoked by any, good by at least one, and unknown to none."""
    answers = [status for status in found if status is not None]
    if any(isinstance(status, Revoked) for status in answers):
        return Outcome.REVOKED
    return Outcome.GOOD if answers and all(isinstance(status, Good) for status in answers) else Outcome.UNPROVEN


def _status_of(
    certificate: x509.Certificate, issuer: x509.Certificate, fetcher: _Fetcher, now: datetime
) -> Iterator[tuple[Step, Status | None]]:
    """Every source that the certificate names, asked: the step, and the answer where it proves something."""
    title = title_of(certificate)
    sources = sources_of(certificate)
    if sources.no_rev_avail:
        detail = f"{title} says that there is no revocation information for it (noRevAvail, RFC 9608): none is needed."
        yield Step("revocation", State.SKIPPED, detail), Good()
        return
    for url in sources.unused[:MAX_URLS]:
        yield Step("revocation", State.SKIPPED, f"{shown(url, 200)} is not fetched: it is no http address."), None
    if not sources.crl and not sources.ocsp:
        yield Step("revocation", State.FAILED, f"{title} names no CRL and no OCSP responder that could be asked."), None
    for url in sources.ocsp[:MAX_URLS]:
        yield _asked("ocsp", title, url, lambda url=url: _ask_ocsp(url, certificate, issuer, fetcher, now))  # type: ignore[misc]  # the loop's value, bound now
    for url in sources.crl[:MAX_URLS]:
        yield _asked("crl", title, url, lambda url=url: crl_status(fetcher.get(url), certificate, issuer, now=now))  # type: ignore[misc]  # as above


def _ask_ocsp(
    url: str, certificate: x509.Certificate, issuer: x509.Certificate, fetcher: _Fetcher, now: datetime
) -> Status:
    question = ocsp_question(certificate, issuer)
    return ocsp_status(fetcher.post(url, question.request), question, now=now)


def _asked(name: str, title: str, url: str, ask: Callable[[], Status]) -> tuple[Step, Status | None]:
    try:
        status = ask()
    except Inconclusive as error:
        return Step(name, State.FAILED, f"{shown(url, 200)} proves nothing about {title}: {error}"), None
    if isinstance(status, Good):
        return Step(name, State.OK, f"{title} is not revoked, says {shown(url, 200)}."), status
    if isinstance(status, Revoked):
        detail = f"{title} is revoked since {rfc3339(status.at)} ({status.reason}), says {shown(url, 200)}."
        return Step(name, State.FAILED, detail), status
    return Step(name, State.FAILED, f"{title} is unknown to its own issuer's responder, {shown(url, 200)}."), status


class _Fetcher:
    """Fetches over plain HTTP, each address once; the answers are signed. Inconclusive where nothing comes."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes | Inconclusive] = {}
        self._clients: dict[bool, httpx.Client] = {}

    def __enter__(self) -> _Fetcher:
        return self

    def __exit__(self, *_error: object) -> None:
        for client in self._clients.values():
            client.close()

    def get(self, url: str) -> bytes:
        if url not in self._kept:
            try:
                self._kept[url] = self._fetch("GET", url, None, MAX_CRL)
            except Inconclusive as error:
                self._kept[url] = error
        found = self._kept[url]
        if isinstance(found, Inconclusive):
            raise found
        return found

    def post(self, url: str, request: bytes) -> bytes:
        return self._fetch("POST", url, request, MAX_OCSP)

    def _fetch(self, method: str, url: str, body: bytes | None, limit: int) -> bytes:
        headers = {"accept-encoding": "identity"}
        if body is not None:
            headers["content-type"] = "application/ocsp-request"
        until = time.monotonic() + SECONDS
        data = bytearray()
        try:
            with self._client(url).stream(method, url, content=body, headers=headers) as response:
                if response.status_code != 200:
                    raise Inconclusive(f"It answers with status {response.status_code}.")
                for piece in response.iter_raw():
                    data += piece
                    if len(data) > limit:
                        raise Inconclusive(f"It sends more than {limit} bytes.")
                    if time.monotonic() > until:
                        raise Inconclusive(f"It takes more than {SECONDS} seconds.")
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise Inconclusive(f"It is not reachable: {error or type(error).__name__}.") from error
        return bytes(data)

    def _client(self, url: str) -> httpx.Client:
        proxied = not is_loopback(urlsplit(url).hostname or "")
        if proxied not in self._clients:
            self._clients[proxied] = httpx.Client(timeout=httpx.Timeout(10), trust_env=proxied)
        return self._clients[proxied]


def _verdict(report: ChainReport, outcomes: list[Outcome], *, offline: bool) -> Verdict:
    if not report.ok or Outcome.REVOKED in outcomes:
        return Verdict(hard=False, soft=False)
    if offline:
        return Verdict(hard=None, soft=True)
    return Verdict(hard=Outcome.UNPROVEN not in outcomes, soft=True)


def _print(report: ChainReport, steps: list[Step], verdict: Verdict, where: str) -> None:
    screen.say(f"Roots: {screen.safe(where)}")
    screen.steps((step.state.value, step.name, step.detail) for step in (*report.steps, *steps))
    if len(report.path) == 1 and not report.anchored:
        screen.say("The file holds one certificate only: give it with its chain (fullchain.pem), as a server sends it.")
    screen.say()
    hard = {True: "accepts", False: "refuses", None: "was not judged (--offline): it would ask about revocation"}
    screen.say(f"A hard-fail client {hard[verdict.hard]}.")
    screen.say(f"A soft-fail client {'accepts' if verdict.soft else 'refuses'}.")


def _print_json(steps: list[Step], verdict: Verdict, where: str) -> None:
    words = {True: "accepts", False: "refuses", None: None}
    body = {
        "roots": where,
        "steps": [{"name": step.name, "state": step.state.value, "detail": step.detail} for step in steps],
        "hard_fail": words[verdict.hard],
        "soft_fail": words[verdict.soft],
    }
    screen.write_json(screen.encode(body))
