"""Distinguished names compared, and name constraints judged, as a relying party does it (RFC 5280 7.1 and 4.2.1.10).

It reads certificates of anybody's: forms that our own authorities never use are here too. Pure; the work is bounded
by `MAX_COMPARISONS`, so that thousands of names against thousands of constraints cost nothing (RFC 5280 6.1.4 gives
no bound).
"""

from __future__ import annotations

import ipaddress
import unicodedata
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.x509.oid import NameOID

from rootward.core.names import Name, to_general_name
from rootward.core.problems import Reason, shown

MAX_COMPARISONS = 100_000

DirectoryName = tuple[frozenset[tuple[str, str | bytes]], ...]


class Unjudged(ValueError):
    """The constraints cannot be judged, so the certificate must be refused; the text says why."""


def name_key(name: x509.Name) -> DirectoryName:
    """A Name in the form in which two are the same if, and only if, RFC 5280 7.1 calls them equal."""
    return tuple(frozenset((item.oid.dotted_string, _folded(item.value)) for item in rdn) for rdn in name.rdns)


def _folded(value: str | bytes) -> str | bytes:
    if isinstance(value, bytes):
        return value
    # RFC 4518's preparation, as far as certificates need it: case, compatibility forms and runs of white space
    return " ".join(unicodedata.normalize("NFKC", value.casefold()).split())


def names_of(certificate: x509.Certificate) -> list[x509.GeneralName]:
    """What name constraints are about: the subject, the subject alternative names, and an e-mail address in the subject
    where there is no rfc822Name (RFC 5280 4.2.1.10)."""
    try:
        alternative = list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        alternative = []
    names: list[x509.GeneralName] = list(alternative)
    if certificate.subject.rdns:
        names.append(x509.DirectoryName(certificate.subject))
    if not any(isinstance(name, x509.RFC822Name) for name in alternative):
        for item in certificate.subject.get_attributes_for_oid(NameOID.EMAIL_ADDRESS):
            if not isinstance(item.value, str) or not item.value.isascii():
                raise Unjudged("An e-mail address in the subject is not ASCII.")
            names.append(x509.RFC822Name._init_without_validation(item.value))
    return names


class Budget:
    """Comparisons that may still be made; shared by all certificates of one verification."""

    def __init__(self, comparisons: int = MAX_COMPARISONS) -> None:
        self.left = comparisons

    def spend(self, comparisons: int) -> None:
        """Count them; Unjudged when there are none left."""
        self.left -= comparisons
        if self.left < 0:
            raise Unjudged("There are too many names and name constraints to compare.")


def violations(
    constraints: x509.NameConstraints, names: list[x509.GeneralName], *, budget: Budget
) -> Iterator[tuple[str, str]]:
    """Every name that `constraints` rule out, shown, with the reason. Unjudged where one cannot be compared."""
    permitted = list(constraints.permitted_subtrees or ())
    excluded = list(constraints.excluded_subtrees or ())
    for name in names:
        kind = type(name)
        allowed = [subtree for subtree in permitted if type(subtree) is kind]
        denied = [subtree for subtree in excluded if type(subtree) is kind]
        budget.spend(len(allowed) + len(denied) + 1)
        if any(_within(name, subtree, overlap=True) for subtree in denied):
            yield show_name(name), "is in a subtree that is excluded"
        elif allowed and not any(_within(name, subtree, overlap=False) for subtree in allowed):
            yield show_name(name), "is in none of the subtrees that are permitted"


def _within(name: x509.GeneralName, subtree: x509.GeneralName, *, overlap: bool) -> bool:
    """Whether `name` lies in `subtree`; with `overlap`, whether any name that a wildcard stands for can."""
    if isinstance(name, x509.DNSName) and isinstance(subtree, x509.DNSName):
        return _dns_within(name.value, subtree.value, overlap=overlap)
    if isinstance(name, x509.RFC822Name) and isinstance(subtree, x509.RFC822Name):
        return _email_within(name.value, subtree.value)
    if isinstance(name, x509.UniformResourceIdentifier) and isinstance(subtree, x509.UniformResourceIdentifier):
        return _host_within(_uri_host(name.value), subtree.value)
    if isinstance(name, x509.DirectoryName) and isinstance(subtree, x509.DirectoryName):
        whole, front = name_key(name.value), name_key(subtree.value)
        return whole[: len(front)] == front
    if isinstance(name, x509.IPAddress) and isinstance(subtree, x509.IPAddress):
        return _ip_within(name.value, subtree.value)
    raise Unjudged(f"A name constraint of the form {type(subtree).__name__} cannot be judged.")


def _dns_within(name: str, subtree: str, *, overlap: bool) -> bool:
    """Any number of labels may be added on the left; a leading dot, which is not of RFC 5280, asks for at least one."""
    held, base = name.lower().rstrip("."), subtree.lower().rstrip(".")
    if base in ("", "."):
        return True
    if overlap and held.startswith("*."):
        # a wildcard also stands for a name that is the constraint's base itself, or that it lies below
        rest = base.lstrip(".")
        if rest.endswith(held[1:]) and "." not in rest[: -len(held[1:])]:
            return True
    if base.startswith("."):
        return held.endswith(base) and len(held) > len(base)
    return held == base or held.endswith("." + base)


def _email_within(address: str, subtree: str) -> bool:
    local, at, host = address.rpartition("@")
    if not at or not local:
        raise Unjudged(f"{shown(address)} is not an e-mail address.")
    if "@" in subtree:
        wanted, _, domain = subtree.rpartition("@")
        return local == wanted and host.lower() == domain.lower()  # the local part has case
    return _host_within(host, subtree)


def _host_within(host: str, subtree: str) -> bool:
    """A host alone, or with a leading dot every host below it, but not it itself (4.2.1.10, URIs and e-mail)."""
    held, base = host.lower(), subtree.lower()
    return held.endswith(base) and len(held) > len(base) if base.startswith(".") else held == base


def _uri_host(uri: str) -> str:
    try:
        host = urlsplit(uri).hostname
    except ValueError:
        host = None
    if not host or host.replace(".", "").isdigit() or ":" in host:
        raise Unjudged(f"The URI {shown(uri)} has no host name that a constraint could be about.")
    return host


def _ip_within(value: object, network: object) -> bool:
    if not isinstance(value, ipaddress.IPv4Address | ipaddress.IPv6Address) or not isinstance(
        network, ipaddress.IPv4Network | ipaddress.IPv6Network
    ):
        raise Unjudged("An address or a network in the name constraints is not one.")
    return value in network


def show_name(name: x509.GeneralName) -> str:
    """A GeneralName for people, such as `dns "a.internal"`; nothing of it unescaped."""
    match name:
        case x509.DNSName():
            return f"DNS name {shown(name.value)}"
        case x509.RFC822Name():
            return f"e-mail address {shown(name.value)}"
        case x509.UniformResourceIdentifier():
            return f"URI {shown(name.value)}"
        case x509.IPAddress():
            return f"address {name.value}"
        case x509.DirectoryName():
            return f"name {shown(name.value.rfc4514_string())}"
    return f"name of the form {type(name).__name__}"


# What certificates of ours can name; a constraint of another form means nothing to them.
_FORMS = (x509.DNSName, x509.IPAddress, x509.UniformResourceIdentifier, x509.RFC822Name, x509.DirectoryName)


def uncovered(outer: x509.NameConstraints, inner: Iterable[x509.NameConstraints], *, budget: Budget) -> Iterator[str]:
    """What `outer` rules out although all of `inner` together allow it, as clauses; none where `outer` changes nothing.

    Subtrees are nested or have nothing in common, whatever their form. Unjudged where one cannot be compared.
    """
    limits = list(inner)
    for form in _FORMS:
        permitted = _of_form(outer.permitted_subtrees, form)
        within = [_of_form(one.permitted_subtrees, form) for one in limits]
        without = [subtree for one in limits for subtree in _of_form(one.excluded_subtrees, form)]
        budget.spend(sum(map(len, within)) * len(permitted))
        if permitted and not any(_all_inside(held, permitted) for held in within if held):
            yield f"permits only {_listed(permitted)}"
        excluded = _of_form(outer.excluded_subtrees, form)
        budget.spend((sum(map(len, within)) + len(without)) * len(excluded))
        beyond = [
            subtree
            for subtree in excluded
            if not any(_inside(subtree, other) for other in without)
            and not any(_all_apart(held, subtree) for held in within if held)
        ]
        if beyond:
            yield f"excludes {_listed(beyond)}"


def beyond(inner: x509.NameConstraints, outer: x509.NameConstraints, *, budget: Budget) -> Iterator[str]:
    """What `inner` permits although `outer`, of a CA above, does not, as clauses: it could never be used."""
    for subtree in inner.permitted_subtrees or ():
        permitted = _of_form(outer.permitted_subtrees, type(subtree))
        excluded = _of_form(outer.excluded_subtrees, type(subtree))
        budget.spend(len(permitted) + len(excluded) + 1)
        if permitted and not any(_inside(subtree, other) for other in permitted):
            yield f"permits {show_name(subtree)}, which is not within what is permitted above"
        elif any(_inside(subtree, other) for other in excluded):
            yield f"permits {show_name(subtree)}, which is excluded above"


def _of_form(subtrees: Iterable[x509.GeneralName] | None, form: type[x509.GeneralName]) -> list[x509.GeneralName]:
    return [subtree for subtree in subtrees or () if type(subtree) is form]


def _listed(subtrees: list[x509.GeneralName]) -> str:
    return ", ".join(map(show_name, subtrees[:3])) + (", …" if len(subtrees) > 3 else "")


def _all_inside(held: list[x509.GeneralName], outer: list[x509.GeneralName]) -> bool:
    return all(any(_inside(one, other) for other in outer) for one in held)


def _all_apart(held: list[x509.GeneralName], subtree: x509.GeneralName) -> bool:
    return not any(_inside(one, subtree) or _inside(subtree, one) for one in held)


def _inside(a: x509.GeneralName, b: x509.GeneralName) -> bool:
    """Whether every name of the subtree `a` is one of the subtree `b`; both are of one form."""
    if isinstance(a, x509.DNSName) and isinstance(b, x509.DNSName):
        same = a.value.lower().rstrip(".") == b.value.lower().rstrip(".")  # also with a leading dot
        return same or _dns_within(a.value, b.value, overlap=False)
    if isinstance(a, x509.IPAddress) and isinstance(b, x509.IPAddress):
        return _network_inside(a.value, b.value)
    if isinstance(a, x509.RFC822Name) and isinstance(b, x509.RFC822Name):
        return _email_within(a.value, b.value) if "@" in a.value else _hosts_inside(a.value, b.value)
    if isinstance(a, x509.UniformResourceIdentifier) and isinstance(b, x509.UniformResourceIdentifier):
        return _hosts_inside(a.value, b.value)
    return _within(a, b, overlap=False)  # a directory name stands for itself and all below it


def _hosts_inside(a: str, b: str) -> bool:
    return a.lower() == b.lower() or _host_within(a, b)


def _network_inside(a: object, b: object) -> bool:
    if isinstance(a, ipaddress.IPv4Network) and isinstance(b, ipaddress.IPv4Network):
        return a.subnet_of(b)
    return isinstance(a, ipaddress.IPv6Network) and isinstance(b, ipaddress.IPv6Network) and a.subnet_of(b)


def within_constraints(names: Iterable[Name], constraints: x509.NameConstraints) -> list[Reason]:
    """Reasons RW-NAME-CONSTRAINED why an issuer with these constraints must not certify `names`; none where it may.

    The same judgement as a relying party's (I-46). What cannot be judged is refused.
    """
    budget = Budget()
    reasons = []
    for name in names:
        try:
            faults = [why for _, why in violations(constraints, [to_general_name(name)], budget=budget)]
        except Unjudged as unjudged:
            faults = [str(unjudged)]
        if faults:
            detail = f"{shown(str(name), 300)} is outside what the issuer may certify: it {faults[0]}."
            reasons.append(Reason("RW-NAME-CONSTRAINED", detail, "names"))
    return reasons
