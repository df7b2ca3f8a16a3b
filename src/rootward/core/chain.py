"""Path building and path validation as a relying party does it, with an explanation of every step (RFC 5280 section
6.1).

`verify_chain` never raises for what is wrong with certificates: it reports. The best path is shown, that is the first
one where every step is right, or else the one with the fewest wrong steps, so that people see why and not only that
it fails. Bounded: a path has at most `MAX_DEPTH` certificates, at most `MAX_SIGNATURES` signatures are checked, loops
are cut (RFC 4158).

Left out: certificate policies. Trust is for any policy, so they cannot change the outcome, except where a CA requires
an explicit policy (6.1.5): that is refused, because it is not evaluated. Revocation is `relying.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from rootward.core.constraints import DirectoryName
from rootward.core.issuer import MAX_CHAIN
from rootward.core.judge import Path, Purpose, judge
from rootward.core.links import Link, State, Step
from rootward.core.names import DnsName, IpName
from rootward.core.problems import shown
from rootward.core.signed import signature_fault

MAX_DEPTH = MAX_CHAIN + 1  # and the certificate that is verified
MAX_SIGNATURES = 200
MAX_PATHS = 32  # complete ones that are judged; with cross-signed authorities there can be very many
MAX_STEPS = 2_000  # certificates stepped onto: a thicket of authorities that sign each other ends here


@dataclass(frozen=True, slots=True)
class ChainReport:
    """`path` begins with the leaf; it ends with the trust anchor if `anchored`, else where no issuer was found."""

    steps: tuple[Step, ...]
    path: tuple[x509.Certificate, ...]
    anchored: bool

    @property
    def ok(self) -> bool:
        return all(step.state is not State.FAILED for step in self.steps)

    @property
    def authentic(self) -> bool:
        """Whether authorities that may do so signed all of it, up to a root: only then do the certificate's words
        count.
        """
        return self.anchored and all(
            step.state is not State.FAILED
            for step in self.steps
            if step.name in ("form", "path", "signature", "authority")
        )


def verify_chain(
    leaf: x509.Certificate,
    intermediates: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate],
    *,
    now: datetime,
    purpose: Purpose | None = None,
    host: DnsName | IpName | None = None,
) -> ChainReport:
    """What a relying party that trusts `roots` says of `leaf` at `now`, for `purpose` and as `host` where they are
    given.

    `intermediates` need no order and may hold anything. A root is an anchor whoever signed it.
    """
    search = _Search(intermediates, roots)
    first = Link(leaf)
    reports = []
    for path in search.paths((first,)):
        steps = [_found(path), *judge(path, now=now, purpose=purpose, host=host)]
        reports.append(_report(steps, path, anchored=True))
        if reports[-1].ok or len(reports) == MAX_PATHS:
            break
    if reports:
        return min(reports, key=lambda report: sum(step.state is State.FAILED for step in report.steps))
    path, why = search.explain(first)
    steps = [_found(path) if why is None else Step("path", State.FAILED, why)]
    if search.exhausted is not None:
        steps.append(Step("path", State.FAILED, search.exhausted))
    steps += judge(path, now=now, purpose=purpose, host=host, anchored=why is None)
    return _report(steps, path, anchored=why is None)


def _report(steps: Sequence[Step], path: Path, *, anchored: bool) -> ChainReport:
    return ChainReport(tuple(steps), tuple(link.certificate for link in path), anchored)


def _found(path: Path) -> Step:
    if len(path) == 1:
        return Step("path", State.OK, f"{path[0].title} is itself one of the roots that are trusted.")
    return Step("path", State.OK, f"{' ← '.join(link.title for link in path)}, a root that is trusted.")


class _Search:
    """Depth first, the likeliest issuers first; every edge is a signature that was checked, and checked once."""

    def __init__(self, intermediates: Sequence[x509.Certificate], roots: Sequence[x509.Certificate]) -> None:
        links = {link.der: link for link in map(Link, roots)}
        self._roots = frozenset(links)
        for link in map(Link, intermediates):
            links.setdefault(link.der, link)
        self._by_subject: dict[DirectoryName, list[Link]] = {}
        for link in links.values():
            if link.subject is not None:
                self._by_subject.setdefault(link.subject, []).append(link)
        self._faults: dict[tuple[bytes, bytes], str | None] = {}
        self._steps = 0
        self.exhausted: str | None = None

    def paths(self, path: Path) -> Iterator[Path]:
        """Every path from here to a root, until the bounds are reached: then `exhausted` says so."""
        head = path[-1]
        if head.der in self._roots:
            yield path
        elif head.fault is None and len(path) < MAX_DEPTH:
            for issuer in self._issuers(head, path):
                self._steps += 1
                if self._steps > MAX_STEPS:
                    self.exhausted = f"The search for a path was given up after {MAX_STEPS} steps."
                fault = self._fault(head, issuer)
                if self.exhausted is not None:
                    return
                if fault is None:
                    yield from self.paths((*path, issuer))

    def _issuers(self, head: Link, path: Path) -> list[Link]:
        """Certificates of `head`'s issuer whose subject and key are not on the path already (RFC 4158 5.2)."""
        if head.issuer is None:
            return []
        on_path = {(link.subject, link.key) for link in path}
        found = [link for link in self._by_subject.get(head.issuer, ()) if (link.subject, link.key) not in on_path]
        authority = head.find(x509.AuthorityKeyIdentifier)
        wanted = None if authority is None else authority.key_identifier
        return sorted(found, key=lambda link: (_differs(wanted, link), link.der not in self._roots))

    def _fault(self, child: Link, issuer: Link) -> str | None:
        edge = child.der, issuer.key
        if edge not in self._faults:
            if len(self._faults) == MAX_SIGNATURES:
                self.exhausted = f"The search for a path was given up after {MAX_SIGNATURES} signatures."
                return self.exhausted
            self._faults[edge] = signature_fault(child.certificate, issuer.certificate)
        return self._faults[edge]

    def explain(self, first: Link) -> tuple[Path, str | None]:
        """Where there is no path: how far one gets, wrong signatures included, and why it ends there (None: at a
        root).
        """
        path: Path = (first,)
        while True:
            head = path[-1]
            if head.der in self._roots:
                return path, None
            if head.fault is not None:
                return path, f"The path ends here: {head.fault}"
            candidates = self._issuers(head, path)
            if not candidates:
                return path, _dead_end(head)
            if len(path) == MAX_DEPTH:
                return path, f"The path would have more than {MAX_DEPTH} certificates."
            good = [link for link in candidates if self._fault(head, link) is None]
            path = (*path, (good or candidates)[0])


def _differs(wanted: bytes | None, link: Link) -> bool:
    subject = link.find(x509.SubjectKeyIdentifier)
    return wanted is not None and subject is not None and subject.digest != wanted


def _dead_end(head: Link) -> str:
    if head.self_issued:
        return f"{head.title} is issued by itself, and is none of the roots that are trusted."
    issuer = shown(head.certificate.issuer.rfc4514_string(), 100)
    return f"The issuer of {head.title} is {issuer}: no such certificate was given, and no root has that name."
