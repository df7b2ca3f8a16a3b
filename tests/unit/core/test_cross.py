"""Cross-signed certificates: which chains are taken, and that each refusal says why. What is taken is held against path
validation, which shares no code with most of it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier
from hypothesis import given
from hypothesis import strategies as st

from rootward.core import der
from rootward.core.chain import verify_chain
from rootward.core.constraints import Budget, uncovered, violations
from rootward.core.cross import MAX_CERTIFICATES, MAX_SIZE, Below, CrossChain, read_cross
from rootward.core.issuer import Issuer
from rootward.core.names import DnsName, EmailName, IpName, UriName, guess_name, to_general_name
from rootward.core.problems import Problem
from tests.support.authority import DAY, NOW, PEM, Authority, key_usage, name

SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
SIMPLE = Below(0, {"web": frozenset({SERVER})})
CA_USAGE = (key_usage(key_cert_sign=True, crl_sign=True), True)


@dataclass
class Scene:
    """Our root and issuing authority, and a root and a policy CA of somebody else's."""

    root: Authority
    own: Authority
    theirs: Authority
    policy: Authority

    @property
    def issuer(self) -> Issuer:
        return Issuer("issuing", self.own.certificate, (self.own.certificate, self.root.certificate), "http://pki")

    def cross(self, by: Authority | None = None, **options: Any) -> x509.Certificate:
        """A certificate by `by` for our authority: right, but for the options."""
        above = by or self.policy
        key = options.get("key", self.own.key.public_key())
        builder = (
            x509.CertificateBuilder()
            .subject_name(options.get("subject", self.own.name))
            .issuer_name(options.get("issuer", above.name))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(options.get("start", NOW - DAY))
            .not_valid_after(options.get("end", NOW + 300 * DAY))
        )
        basic = x509.BasicConstraints(options.get("ca", True), options.get("path_length"))
        extensions: list[tuple[Any, bool]] = [
            *options.get("basic", [(basic, True)]),
            *options.get("usage", [CA_USAGE]),
            (x509.SubjectKeyIdentifier.from_public_key(options.get("named", self.own.key.public_key())), False),
            (
                x509.AuthorityKeyIdentifier.from_issuer_public_key(options.get("named_issuer", above.key.public_key())),
                False,
            ),
            *options.get("extensions", ()),
        ]
        for value, critical in extensions:
            builder = builder.add_extension(value, critical)
        return builder.sign(above.key, hashes.SHA256())


@pytest.fixture(scope="module")
def scene() -> Scene:
    root, theirs = Authority("Our Root"), Authority("Their Root")
    return Scene(root, Authority("Our Issuing CA", root, path_length=0), theirs, Authority("Their Policy CA", theirs))


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(certificate.public_bytes(PEM) for certificate in certificates)


def with_sha1(signed: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """The same certificate with an ECDSA signature over SHA-1, which the library does not make any more."""
    _, *inner = der.children(signed.tbs_certificate_bytes)
    sha1 = hashes.SHA1()  # noqa: S303  what is refused must be there to be refused
    algorithm = der.sequence(der.oid("1.2.840.10045.4.1"))
    whole = [der.explicit(0, der.integer(2)), inner[0].whole, algorithm, *(part.whole for part in inner[2:])]
    tbs = der.sequence(*whole)
    made = der.sequence(tbs, algorithm, der.bit_string(key.sign(tbs, ec.ECDSA(sha1))))
    return x509.load_der_x509_certificate(made)


def read(scene: Scene, *certificates: x509.Certificate, below: Below = SIMPLE) -> CrossChain:
    return read_cross(pem(*certificates), scene.issuer, below, now=NOW)


def refused(scene: Scene, *certificates: x509.Certificate, below: Below = SIMPLE) -> list[str]:
    with pytest.raises(Problem) as caught:
        read(scene, *certificates, below=below)
    assert {(reason.code, reason.field) for reason in caught.value.reasons} == {("RW-CROSS", "chain")}
    return [reason.detail for reason in caught.value.reasons]


def leads(scene: Scene, chain: CrossChain, leaf: x509.Certificate | None = None) -> bool:
    """Whether somebody who trusts their root alone believes what our authority signs."""
    signed = leaf or scene.own.leaf("a.internal")
    report = verify_chain(signed, chain.certificates, [scene.theirs.certificate], now=NOW, purpose="server")
    return report.ok


# ── What is taken ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_chain_is_taken_and_leads_to_the_other_root(scene: Scene) -> None:
    made = scene.cross()
    chain = read(scene, made, scene.policy.certificate)
    assert chain.certificates == (made, scene.policy.certificate)
    assert chain.pem() == pem(made, scene.policy.certificate)
    assert chain.sha256 == made.fingerprint(hashes.SHA256()).hex()
    assert leads(scene, chain)
    assert not leads(scene, CrossChain._make(certificates=()))


def test_a_root_at_the_end_is_left_out(scene: Scene) -> None:
    made = scene.cross()
    with_root = read(scene, made, scene.policy.certificate, scene.theirs.certificate)
    assert with_root.certificates == (made, scene.policy.certificate)
    direct = scene.cross(scene.theirs)
    assert read(scene, direct, scene.theirs.certificate).certificates == (direct,)
    assert leads(scene, read(scene, direct))


def test_the_last_signature_counts_where_the_root_is_given(scene: Scene) -> None:
    good = scene.cross(scene.theirs).public_bytes(serialization.Encoding.DER)
    broken = x509.load_der_x509_certificate(good[:-1] + bytes([good[-1] ^ 1]))
    assert any("the signature is wrong" in one for one in refused(scene, broken, scene.theirs.certificate))
    assert read(scene, broken)  # nobody can tell


def test_text_between_is_nothing(scene: Scene) -> None:
    made = scene.cross(scene.theirs)
    assert read_cross(b"subject=x\r\n" + pem(made) + b"\n\n", scene.issuer, SIMPLE, now=NOW).certificates == (made,)


def test_a_root_is_one_whatever_it_was_signed_with(scene: Scene) -> None:
    """Nobody looks at a trust anchor's signature."""
    old = Authority("Old Root")
    made = scene.cross(old)
    assert read(scene, made, with_sha1(old.certificate, old.key)).certificates == (made,)


def test_a_rollover_certificate_is_no_root(scene: Scene) -> None:
    """New with old (RFC 4210 4.4): it is issued by its own name, and signed by another key."""
    old, new = Authority("Their Root 2"), Authority("Their Root 2")
    rolled = Scene(scene.root, new, scene.theirs, scene.policy).cross(old)
    made = scene.cross(new)
    chain = read(scene, made, rolled)
    assert chain.certificates == (made, rolled)
    report = verify_chain(scene.own.leaf("a.internal"), chain.certificates, [old.certificate], now=NOW)
    assert report.ok, report.steps


def test_a_rollover_certificate_is_none_of_those_that_path_length_counts(scene: Scene) -> None:
    """RFC 5280 6.1.4 l."""
    old, new = Authority("Their Root 2", path_length=1), Authority("Their Root 2")
    rolled = Scene(scene.root, new, scene.theirs, scene.policy).cross(old)
    chain = read(scene, scene.cross(new), rolled, old.certificate)
    assert len(chain.certificates) == 2
    assert verify_chain(scene.own.leaf("a.internal"), chain.certificates, [old.certificate], now=NOW).ok


def test_limits_that_leave_room_are_no_reason(scene: Scene) -> None:
    usages = x509.ExtendedKeyUsage([SERVER, CLIENT])
    for extensions in (
        [(usages, False)],
        [(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]), True)],
    ):
        assert read(scene, scene.cross(extensions=extensions))
    below = Below(2, {"ocsp": frozenset({ExtendedKeyUsageOID.OCSP_SIGNING, SERVER}), "none": frozenset()})
    assert read(scene, scene.cross(path_length=2, extensions=[(usages, False)]), below=below)


# ── What is refused ─────────────────────────────────────────────────────────────────────────────────────────────────

Make = Callable[[Scene], Sequence[x509.Certificate]]
OTHER = ec.generate_private_key(ec.SECP256R1())
UNKNOWN = x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")


def of(**options: Any) -> Make:
    """A lone certificate with these options."""
    return lambda scene: [scene.cross(**options)]


def utf8(text: str) -> x509.Name:
    """The same name with another string type: other bytes."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text, _type=x509.name._ASN1Type.PrintableString)])


def policy(**options: Any) -> Make:
    """A good certificate under a policy CA with these options."""

    def make(scene: Scene) -> list[x509.Certificate]:
        above = Authority("Odd Policy CA", scene.theirs, **options)
        return [scene.cross(above), above.certificate]

    return make


def loop(scene: Scene) -> list[x509.Certificate]:
    """Two CAs that signed each other."""
    one, two = Authority("One"), Authority("Two")
    first = Scene(scene.root, one, scene.theirs, scene.policy).cross(two)
    second = Scene(scene.root, two, scene.theirs, scene.policy).cross(one)
    return [scene.cross(one), first, second]


def sha1_above(scene: Scene) -> list[x509.Certificate]:
    above = Authority("Policy CA 1", scene.theirs)
    return [scene.cross(above), with_sha1(above.certificate, scene.theirs.key), scene.theirs.certificate]


def odd_above(**options: Any) -> Make:
    """A good certificate under a CA whose own certificate has these options."""

    def make(scene: Scene) -> list[x509.Certificate]:
        above = Authority("Odd CA")
        return [scene.cross(above), Scene(scene.root, above, scene.theirs, scene.policy).cross(**options)]

    return make


def wide_root(scene: Scene) -> list[x509.Certificate]:
    narrow = Authority("Narrow Root", path_length=0)
    above = Authority("Policy below it", narrow)
    return [scene.cross(above), above.certificate, narrow.certificate]


REFUSED: list[tuple[str, Make, str]] = [
    ("another subject", of(subject=name("Our Issuing CA 2")), "has not the very subject"),
    ("the same subject in other bytes", of(subject=utf8("Our Issuing CA")), "has not the very subject"),
    ("another key", of(key=OTHER.public_key()), "has not the public key"),
    ("our own certificate", lambda scene: [scene.own.certificate], "is of the usual chain"),
    ("our own issuer again", lambda scene: [scene.cross(scene.root)], "that is no other way"),
    ("self-signed", lambda scene: [scene.cross(scene.own)], "that is no other way"),
    ("another key identifier", of(named=OTHER.public_key()), "subject key identifier"),
    ("no CA", of(ca=False), "is not a CA"),
    ("no basic constraints", of(basic=[]), "is not a CA"),
    ("no key usage", of(usage=[]), "may not sign certificates"),
    ("no keyCertSign", of(usage=[(key_usage(crl_sign=True), True)]), "may not sign certificates"),
    ("no cRLSign", of(usage=[(key_usage(key_cert_sign=True), True)]), "may not sign CRLs"),
    ("expired", of(start=NOW - 3 * DAY, end=NOW - DAY), "expired at"),
    ("not yet", of(start=NOW + DAY), "is not valid before"),
    ("an unknown critical extension", of(extensions=[(UNKNOWN, True)]), "is not known here"),
    ("an explicit policy", of(extensions=[(x509.PolicyConstraints(0, None), True)]), "requires an explicit policy"),
    ("another usage", of(extensions=[(x509.ExtendedKeyUsage([CLIENT]), False)]), "usages of the profiles web"),
    ("the wrong order", lambda scene: [scene.policy.certificate, scene.cross()], "has not the very subject"),
    ("a gap", lambda scene: [scene.cross(), scene.theirs.certificate], "is not issued by what follows it"),
    ("a stranger", lambda scene: [scene.cross(), Authority("X").certificate], "is not issued by what follows it"),
    (
        "a namesake",
        lambda scene: [scene.cross(), Authority("Their Policy CA").certificate],
        "names another key of its issuer",
    ),
    (
        "a namesake's signature",
        lambda scene: [
            scene.cross(Authority("Their Policy CA"), named_issuer=scene.policy.key.public_key()),
            scene.policy.certificate,
        ],
        "is not well signed by",
    ),
    ("twice", lambda scene: [made := scene.cross(), made], "comes twice"),
    ("a loop", loop, "leads back"),
    ("a loop, closed", lambda scene: [*loop(scene), loop(scene)[1]], "is not well signed by"),
    (
        "a root that we have",
        lambda scene: [scene.cross(Authority("M", scene.root)), scene.root.certificate],
        "usual chain",
    ),
    ("no CA above", odd_above(ca=False), "is not a CA"),
    ("no keyCertSign above", odd_above(usage=[(key_usage(crl_sign=True), True)]), "may not sign certificates"),
    ("no path above", policy(path_length=0), "allows 0 CAs below it, and there are 1"),
    ("no path above, at the root", wide_root, "allows 0 CAs below it, and there are 2"),
    ("SHA-1", sha1_above, "SHA-1, which is broken"),
    ("SHA-1 at the end", lambda scene: [with_sha1(scene.cross(), scene.policy.key)], "SHA-1, which is broken"),
    ("an expired one above", policy(start=NOW - 9 * DAY, end=NOW - DAY), "expired at"),
    ("a usage above", policy(extensions=[(x509.ExtendedKeyUsage([CLIENT]), False)]), "usages of the profiles web"),
    (
        "names of its own that its issuer excludes",
        policy(
            extensions=[(x509.NameConstraints(None, [x509.DirectoryName(name("Our Issuing CA"))]), True)],
        ),
        "is in a subtree that is excluded",
    ),
]


@pytest.mark.parametrize(("make", "says"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_refused(scene: Scene, make: Make, says: str) -> None:
    details = refused(scene, *make(scene))
    assert any(says in detail for detail in details), details
    assert len(set(details)) == len(details)


def test_path_length_counts_what_is_below(scene: Scene) -> None:
    deep = Below(1, {})
    assert read(scene, scene.cross(path_length=1), below=deep)
    assert refused(scene, scene.cross(path_length=0), below=deep) == [
        '"Our Issuing CA" allows 0 CAs below it, and there are 1.'
    ]


def test_everything_that_is_wrong_is_said(scene: Scene) -> None:
    made = scene.cross(key=OTHER.public_key(), ca=False, end=NOW - timedelta(hours=1))
    assert len(refused(scene, made)) == 3


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"", "RW-CROSS"),
        (b"\x30\x03\x02\x01\x00", "RW-CROSS"),
        (b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n", "RW-CROSS"),
        (b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", "RW-CROSS"),
        (b"-----BEGIN CERTIFICATE-----\nMAA=\n", "RW-CROSS"),
        (b"-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----\n", "RW-CROSS"),
        (b"-----BEGIN ", "RW-CROSS"),
        (b"-----BEGIN X-----" + b"A" * MAX_SIZE, "RW-TOO-LARGE"),
    ],
)
def test_what_is_no_chain(scene: Scene, text: bytes, code: str) -> None:
    with pytest.raises(Problem) as caught:
        read_cross(text, scene.issuer, SIMPLE, now=NOW)
    assert [(reason.code, reason.field) for reason in caught.value.reasons] == [(code, "chain")]


def test_a_private_key_is_told(scene: Scene) -> None:
    key = OTHER.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with pytest.raises(Problem) as caught:
        read_cross(pem(scene.cross()) + key, scene.issuer, SIMPLE, now=NOW)
    assert [reason.code for reason in caught.value.reasons] == ["RW-IMPORT-KEY"]


def test_too_many(scene: Scene) -> None:
    made = scene.cross()
    assert refused(scene, *[made] * (MAX_CERTIFICATES + 1)) == [
        "A chain has at most 8 certificates, and this one has 9."
    ]


def test_a_long_chain_and_its_bound() -> None:
    """As many as there may be, the first signed by the second and so on."""
    top = Authority("Top")
    line = [top]
    while len(line) < MAX_CERTIFICATES:
        line.append(Authority(f"CA {len(line)}", line[-1]))
    own = Authority("Our Issuing CA", Authority("Our Root"))
    scene = Scene(own.parent or own, own, top, line[-1])
    below = [one.certificate for one in reversed(line)]
    made = scene.cross()
    chain = read(scene, made, *below[:-1])
    assert len(chain.certificates) == MAX_CERTIFICATES
    assert refused(scene, made, *below)


@pytest.mark.parametrize("excluded", [False, True], ids=["permitted", "excluded"])
def test_a_bomb_of_constraints_is_bounded(scene: Scene, excluded: bool) -> None:
    """Thousands of subtrees are given up, not compared one by one."""
    many = [x509.DNSName(f"{number:x}.x") for number in range(2_000)]
    bomb = (x509.NameConstraints(None, many) if excluded else x509.NameConstraints(many, None), True)
    ours = Scene(scene.root, Authority("Our Issuing CA", scene.root, extensions=[bomb]), scene.theirs, scene.policy)
    why = "There are too many names and name constraints to compare."
    assert refused(ours, ours.cross(extensions=[bomb])) == [f'The name constraints of "Our Issuing CA": {why}']


# ── Name constraints ────────────────────────────────────────────────────────────────────────────────────────────────


def dns(*texts: str) -> list[x509.GeneralName]:
    return [x509.DNSName(text) for text in texts]


def networks(*texts: str) -> list[x509.GeneralName]:
    return [x509.IPAddress(ipaddress.ip_network(text)) for text in texts]


def limits(permitted: list[x509.GeneralName], excluded: list[x509.GeneralName]) -> x509.NameConstraints:
    return x509.NameConstraints(permitted or None, excluded or None)


def test_constraints_of_a_cross_signer(scene: Scene) -> None:
    own = limits(dns("internal"), networks("0.0.0.0/0", "::/0"))
    ours = Authority("Our Issuing CA", scene.root, extensions=[(own, True)])
    narrow = Scene(scene.root, ours, scene.theirs, scene.policy)
    same = [(limits(dns("internal"), networks("0.0.0.0/0", "::/0")), True)]
    assert leads(narrow, read(narrow, narrow.cross(scene.theirs, extensions=same)))
    assert read(narrow, narrow.cross(extensions=[(limits(dns("internal", "example"), dns("corp.example")), True)]))
    assert refused(narrow, narrow.cross(extensions=[(limits(dns("a.internal"), []), True)])) == [
        '"Our Issuing CA" permits only DNS name "a.internal", and the authority issuing is not limited so.'
    ]
    assert refused(scene, scene.cross(extensions=same)) == [
        '"Our Issuing CA" permits only DNS name "internal", and the authority issuing is not limited so.',
        '"Our Issuing CA" excludes address 0.0.0.0/0, address ::/0, and the authority issuing is not limited so.',
    ]
    # For a reason: part of what it issues would not be valid.
    lax = CrossChain._make(certificates=(scene.cross(scene.theirs, extensions=same),))
    assert leads(scene, lax)
    assert not leads(scene, lax, scene.own.leaf("a.example"))


@pytest.mark.parametrize(
    ("outer", "inner", "covered"),
    [
        (limits(dns("a"), []), [], False),
        (limits([], dns("a")), [], False),
        (limits(dns("a"), []), [limits(dns("b.a", "a"), [])], True),
        (limits(dns("a"), []), [limits(dns(".a"), [])], True),
        (limits(dns(".a"), []), [limits(dns("a"), [])], False),
        (limits(dns("a"), []), [limits(dns("ba"), [])], False),
        (limits(dns(".a"), []), [limits(dns(".A"), [])], True),
        (limits([], dns(".a")), [limits(dns(".a"), [])], False),
        (limits([], dns(".A")), [limits(dns(".a"), [])], False),
        (limits(dns(""), []), [limits(dns("x"), [])], True),
        (limits(dns("a"), []), [limits(dns("a", "b"), []), limits(dns("c.a"), [])], True),
        (limits([], dns("a")), [limits([], dns("a"))], True),
        (limits([], dns("b.a")), [limits([], dns("a"))], True),
        (limits([], dns("a")), [limits([], dns("b.a"))], False),
        (limits([], dns("a")), [limits(dns("b"), [])], True),
        (limits([], dns("a")), [limits(dns("b.a"), [])], False),
        (limits([], dns("b.a")), [limits(dns("a"), [])], False),
        (limits(networks("10.0.0.0/8"), []), [limits(networks("10.1.0.0/16"), [])], True),
        (limits(networks("10.1.0.0/16"), []), [limits(networks("10.0.0.0/8"), [])], False),
        (limits(networks("0.0.0.0/0"), []), [limits(networks("::1/128"), [])], False),
        (limits(networks("fd00::/8"), []), [limits(networks("fd00:1::/32"), [])], True),
        (limits(networks("fd00:1::/32"), []), [limits(networks("fd00::/8"), [])], False),
        (limits([], networks("::/0")), [limits(networks("10.0.0.0/8"), [])], True),
        (limits([x509.RFC822Name("a.b")], []), [limits([x509.RFC822Name("u@a.b")], [])], True),
        (limits([x509.RFC822Name("u@a.b")], []), [limits([x509.RFC822Name("a.b")], [])], False),
        (limits([x509.RFC822Name(".b")], []), [limits([x509.RFC822Name("a.b")], [])], True),
        (limits([x509.RFC822Name("b")], []), [limits([x509.RFC822Name(".b")], [])], False),
        (
            limits([x509.UniformResourceIdentifier(".b")], []),
            [limits([x509.UniformResourceIdentifier(".B")], [])],
            True,
        ),
        (limits([x509.DirectoryName(name("x"))], []), [], False),
        (limits([x509.RegisteredID(ObjectIdentifier("1.2.3"))], []), [], True),
    ],
)
def test_what_constraints_cover(outer: x509.NameConstraints, inner: list[x509.NameConstraints], covered: bool) -> None:
    assert (list(uncovered(outer, inner, budget=Budget())) == []) is covered


_LABELS = st.sampled_from(["a", "b"])
_HOSTS = st.lists(_LABELS, min_size=1, max_size=3).map(".".join)
_SUBTREES = st.one_of(
    st.builds(lambda dot, host: x509.DNSName(dot + host), st.sampled_from(["", "."]), _HOSTS),
    st.builds(lambda dot, host: x509.RFC822Name(dot + host), st.sampled_from(["", ".", "u@", "v@"]), _HOSTS),
    st.builds(lambda dot, host: x509.UniformResourceIdentifier(dot + host), st.sampled_from(["", "."]), _HOSTS),
    st.builds(
        lambda high, bits: x509.IPAddress(ipaddress.ip_network((high << 30, bits), strict=False)),
        st.integers(0, 3),
        st.integers(0, 2),
    ),
)
_LIMITS = st.builds(
    lambda permitted, excluded: limits(permitted, excluded or [x509.DNSName("z")]),
    st.lists(_SUBTREES, max_size=3),
    st.lists(_SUBTREES, max_size=3),
)
_HOSTNAMES = [
    ".".join(labels) for labels in (["a"], ["b"], *(["x", t] for t in "ab"), *([s, t] for s in "ab" for t in "ab"))
]
_HOSTNAMES += [f"{s}.{host}" for s in "abx" for host in _HOSTNAMES]
_NAMES: list[DnsName | EmailName | IpName | UriName] = [
    guess_name(text)
    for host in _HOSTNAMES
    for text in (host, f"*.{host}", f"u@{host}", f"w@{host}", f"https://{host}/x")
] + [guess_name(f"{high}.1.1.1") for high in (1, 65, 129, 193)]


@given(_LIMITS, st.lists(_LIMITS, max_size=2))
def test_nothing_that_is_covered_is_lost(outer: x509.NameConstraints, inner: list[x509.NameConstraints]) -> None:
    """Where nothing is uncovered, every name that all of `inner` allow is one that `outer` allows."""
    if list(uncovered(outer, inner, budget=Budget())):
        return
    for one in _NAMES:
        general = [to_general_name(one)]
        if not any(list(violations(limit, general, budget=Budget())) for limit in inner):
            assert not list(violations(outer, general, budget=Budget())), one
