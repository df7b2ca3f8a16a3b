"""What a ceremony's steps sign: several tiers, other systems' CSRs, cross-signing, RSA-PSS, CRLs; and what is refused
before anything is signed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from datetime import timedelta

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from rootward.ca import ceremony
from rootward.core import paperwork
from rootward.core.crl import parse_crl
from rootward.core.hierarchy import AuthoritySpec
from rootward.core.problems import Problem
from rootward.core.pubkey import KeyAlgorithm, public_key_of
from rootward.core.script import (
    Certify,
    CertifyRoot,
    CrossSign,
    Entry,
    FileKey,
    Input,
    MakeKey,
    Present,
    Script,
    SignCrl,
    Step,
    inputs_of,
    read_script,
    sha256_of,
    write_script,
)
from rootward.core.times import rfc3339
from rootward.core.transcript import verify_result
from tests.support.ceremonies import AT, PKI_URL, Held, MemoryKeys, asked, hold, signed_by, two_tier

change = msgspec.structs.replace


def root_spec(**more: object) -> AuthoritySpec:
    told = {"name": "root", "kind": "root", "common_name": "Example Root CA", "lifetime": "10y", "path_length": 2}
    return AuthoritySpec(**(told | more))  # type: ignore[arg-type]  # of the fields' own types


def crl(by: str = "root", **more: object) -> SignCrl:
    told = {"by": by, "number": 7, "this_update": rfc3339(AT), "next_update": rfc3339(AT + timedelta(days=90))}
    return SignCrl(**(told | more))  # type: ignore[arg-type]  # of the fields' own types


def script(*steps: Step, **more: object) -> Script:
    names = {step.key for step in steps if isinstance(step, MakeKey)} or {"root"}
    made = change(two_tier(asked()), keys={name: FileKey(f"{name}-key") for name in names}, steps=steps, **more)
    return read_script(write_script(made))


def held(*steps: Step, files: dict[str, bytes] | None = None, keys: MemoryKeys | None = None, **more: object) -> Held:
    """Held, signed, and verified again."""
    found = hold(script(*steps, **more), files or {}, keys=keys)
    found.result = signed_by(found, "Ada", "Bob")
    verify_result(found.result, script=found.script, requests=files)
    verify_result(found.result)
    return found


def certificate(found: Held, name: str) -> x509.Certificate:
    (one,) = (one for one in found.result.certificates if one.authority == name)
    return x509.load_pem_x509_certificate(one.certificate.encode())


def test_three_tiers_are_made_in_one_ceremony() -> None:
    request = asked()
    assert isinstance(request.wanted, paperwork.Certify)
    policy = AuthoritySpec("policy", "policy", "Example Policy CA", lifetime="8y", path_length=1)
    wanted = change(request.wanted, by="policy")
    request = change(request, wanted=wanted)
    data = paperwork.write(request)
    key = public_key_of(x509.load_pem_x509_csr(wanted.csr.encode()).public_key()).id
    found = held(
        MakeKey("root", KeyAlgorithm.P256),
        CertifyRoot("root", "41" * 20, root_spec()),
        MakeKey("policy", KeyAlgorithm.P256),
        Certify("root", "42" * 20, policy, made="policy"),
        Certify("policy", "43" * 20, wanted.spec, request=Input("r", sha256_of(data)), public_key=key),
        crl(),
        crl("policy"),
        files={sha256_of(data): data},
    )
    root, middle, issuing = (certificate(found, name) for name in ("root", "policy", "issuing"))
    middle.verify_directly_issued_by(root)
    issuing.verify_directly_issued_by(middle)
    assert [one.kind for one in found.result.certificates] == ["root", "policy", "issuing"]
    assert [one.authority for one in found.result.crls] == ["root", "policy"]


def foreign_csr() -> bytes:
    """As another system's: it asks to be a CA without a limit, under a name of its own."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vault.example.com")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(Encoding.PEM)


def test_a_csr_of_another_system_gets_what_the_script_says() -> None:
    csr = foreign_csr()
    key = public_key_of(x509.load_pem_x509_csr(csr).public_key()).id
    spec = AuthoritySpec("vault", "issuing", "Vault CA", lifetime="2y")
    found = held(
        MakeKey("root", KeyAlgorithm.P256),
        CertifyRoot("root", "41" * 20, root_spec()),
        Certify("root", "42" * 20, spec, request=Input("vault.csr", sha256_of(csr)), public_key=key),
        files={sha256_of(csr): csr},
    )
    made = certificate(found, "vault")
    assert made.subject.rfc4514_string() == "CN=Vault CA"
    assert made.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    assert found.result.certificates[1].request == ""


def test_two_roots_certify_each_other() -> None:
    keys = MemoryKeys()
    first = held(MakeKey("root", KeyAlgorithm.P256), CertifyRoot("root", "41" * 20, root_spec()), keys=keys)
    other = root_spec(common_name="Example Root CA 2", name="root-2", key_algorithm=KeyAlgorithm.P384)
    second = held(MakeKey("root-2", KeyAlgorithm.P384), CertifyRoot("root-2", "42" * 20, other), keys=keys)
    old, new = first.result.certificates[0].certificate, second.result.certificates[0].certificate
    spec = AuthoritySpec(
        "root-2", "issuing", "Example Root CA 2", key_algorithm=KeyAlgorithm.P384, lifetime="5y", path_length=1
    )
    cross = CrossSign("root", new, "43" * 20, spec)
    found = held(cross, keys=keys, authorities={"root": Present(old, "root")})
    made = certificate(found, "root-2")
    made.verify_directly_issued_by(certificate(first, "root"))
    theirs = certificate(second, "root-2")
    assert made.subject.public_bytes() == theirs.subject.public_bytes()
    digest = [one.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value for one in (made, theirs)]
    assert digest[0] == digest[1]
    assert found.result.certificates[0].kind == "cross"
    there = {"root": Present(old, "root")}
    with pytest.raises(Problem, match="common name is"):
        held(change(cross, spec=change(spec, common_name="x")), keys=keys, authorities=there)
    short = held(MakeKey("root", KeyAlgorithm.P256), CertifyRoot("root", "44" * 20, root_spec(lifetime="4y")))
    certified = short.result.certificates[0].certificate
    longer = change(spec, name="other", common_name="Example Root CA", key_algorithm=KeyAlgorithm.P256)
    there = {"root": Present(new, "root")}
    with pytest.raises(Problem, match="itself ends before"):
        held(change(cross, certificate=certified, spec=longer), keys=keys, authorities=there)


def cross_request(certificate: str, **changes: object) -> paperwork.Request:
    """For a certificate of that CA by the root."""
    spec = AuthoritySpec("root-2", "policy", "Example Root CA 2", lifetime="5y", path_length=1)
    told = {"by": "root", "spec": spec, "certificate": certificate} | changes
    wanted = paperwork.CrossSign(**told)  # type: ignore[arg-type]  # of the fields' own types
    return paperwork.Request(id="c-1", installation="i", made_at=AT, pki_url=PKI_URL, issuer="", wanted=wanted)


def test_a_cross_signed_certificate_is_of_its_request() -> None:
    """The file is pinned: another one is not taken, and one that asks for something else neither."""
    keys = MemoryKeys()
    first = held(MakeKey("root", KeyAlgorithm.P256), CertifyRoot("root", "41" * 20, root_spec()), keys=keys)
    other = root_spec(common_name="Example Root CA 2", name="root-2")
    second = held(MakeKey("root-2", KeyAlgorithm.P256), CertifyRoot("root-2", "42" * 20, other), keys=keys)
    old, new = first.result.certificates[0].certificate, second.result.certificates[0].certificate
    there = {"root": Present(old, "root")}
    good = cross_request(new)
    assert isinstance(good.wanted, paperwork.CrossSign)

    def attempt(request: paperwork.Request, **more: object) -> Held:
        data = paperwork.write(request)
        step = CrossSign("root", new, "43" * 20, good.wanted.spec, request=Input("r.json", sha256_of(data)))
        return held(step, keys=keys, authorities=there, **({"files": {sha256_of(data): data}} | more))

    found = attempt(good)
    assert found.result.certificates[0].request == "c-1"
    assert [one.file for one in inputs_of(found.reviewed)] == ["r.json"]
    assert "request:" in found.script.decode()
    for wrong, why in (
        (cross_request(new, by="other"), "does not ask root"),
        (cross_request(old), "about another certificate"),
        (cross_request("x"), "no certificate in PEM"),
        (change(good, pki_url="http://other"), "address"),
        (crl_request(first), "does not ask root"),
        (asked(), "does not ask root"),
    ):
        with pytest.raises(Problem, match=why):
            attempt(wrong)
    with pytest.raises(Problem, match="is not there"):
        attempt(good, files={})
    data = paperwork.write(good)
    with pytest.raises(Problem, match="its SHA-256 differs"):
        attempt(good, files={sha256_of(data): data + b" "})
    for certificate in (change(found.result.certificates[0], request=other) for other in ("", "c-2")):
        changed = change(found.result, certificates=(certificate,))
        with pytest.raises(Problem, match="another request"):
            verify_result(changed, requests={sha256_of(data): data})
    claimed = change(found.result, certificates=(change(found.result.certificates[0], request="c-9"),))
    other_paper = change(good, id="c-9")
    with pytest.raises(Problem, match="another request"):  # that of a request which is at hand, and not the script's
        verify_result(claimed, requests={"0" * 64: paperwork.write(other_paper)})


def test_a_root_that_signs_with_pss_goes_on_so() -> None:
    keys = MemoryKeys()
    spec = root_spec(key_algorithm=KeyAlgorithm.RSA_2048, rsa_signature="pss")
    first = held(MakeKey("root", KeyAlgorithm.RSA_2048), CertifyRoot("root", "41" * 20, spec), crl(number=1), keys=keys)
    root = certificate(first, "root")
    assert isinstance(root.signature_algorithm_parameters, padding.PSS)
    there = {"root": Present(root.public_bytes(Encoding.PEM).decode(), "root", "pss")}
    found = held(crl(), keys=keys, authorities=there)
    listed = parse_crl(ceremony.public_files(found.result)["root-7.crl"]).list
    assert listed.signature_algorithm_oid == root.signature_algorithm_oid


def entries(*reasons: str) -> tuple[Entry, ...]:
    return tuple(Entry(f"{0x50 + at:02x}" * 20, rfc3339(AT), reason) for at, reason in enumerate(reasons))


def test_a_crl_has_the_entries_of_the_script_or_of_its_request() -> None:
    keys = MemoryKeys()
    first = held(MakeKey("root", KeyAlgorithm.P256), CertifyRoot("root", "41" * 20, root_spec()), keys=keys)
    there = {"root": Present(first.result.certificates[0].certificate, "root")}
    found = held(crl(entries=entries("superseded", "keyCompromise")), keys=keys, authorities=there)
    listed = parse_crl(ceremony.public_files(found.result)["root-7.crl"])
    assert [entry.reason for entry in listed] == ["superseded", "keyCompromise"]
    request = crl_request(first)
    data = paperwork.write(request)
    step = crl(request=Input("r", sha256_of(data)))
    found = held(step, keys=keys, authorities=there, files={sha256_of(data): data})
    assert len(parse_crl(ceremony.public_files(found.result)["root-7.crl"])) == 1
    assert found.result.crls[0].request == "r-1"


def crl_request(first: Held, **changes: object) -> paperwork.Request:
    """For the next CRL of the root of that ceremony, with one entry."""
    key = public_key_of(certificate(first, "root").public_key()).id
    listed = (paperwork.Revoked("55" * 20, AT, "superseded"),)
    told = {"by": "root", "issuer_key": key, "entries": listed, "number": 3, "lifetime": "90d"} | changes
    wanted = paperwork.SignCrl(**told)  # type: ignore[arg-type]  # of the fields' own types
    return paperwork.Request(id="r-1", installation="i", made_at=AT, pki_url=PKI_URL, issuer="", wanted=wanted)


WRONG: dict[str, tuple[Callable[[Held], paperwork.Request], str]] = {
    "another authority's": (lambda held: crl_request(held, by="other"), "does not ask for a CRL of root"),
    "another key's": (lambda held: crl_request(held, issuer_key="0" * 64), "its public key is another one"),
    "a number that is too low": (lambda held: crl_request(held, number=8), "number of 8 at least"),
    "a reason that is none": (
        lambda held: crl_request(held, entries=(paperwork.Revoked("55" * 20, AT, "tired"),)),
        "not a reason",
    ),
    "another address": (lambda held: change(crl_request(held), pki_url="http://other"), "address"),
    "another kind": (lambda _: asked(), "does not ask for a CRL"),
}


@pytest.mark.parametrize("what", list(WRONG))
def test_a_request_that_is_not_for_this_is_refused(what: str) -> None:
    make, why = WRONG[what]
    keys = MemoryKeys()
    first = held(MakeKey("root", KeyAlgorithm.P256), CertifyRoot("root", "41" * 20, root_spec()), keys=keys)
    data = paperwork.write(make(first))
    there = {"root": Present(first.result.certificates[0].certificate, "root")}
    step = crl(request=Input("r", sha256_of(data)))
    with pytest.raises(Problem, match=re.escape(why)):
        held(step, keys=keys, authorities=there, files={sha256_of(data): data})
    with pytest.raises(Problem, match="is not there"):
        held(step, keys=keys, authorities=there)


def test_a_certificate_beyond_its_issuer_is_refused_and_no_key_is_asked() -> None:
    request = asked()
    assert isinstance(request.wanted, paperwork.Certify)
    data = paperwork.write(request)
    key = public_key_of(x509.load_pem_x509_csr(request.wanted.csr.encode()).public_key()).id
    steps = (
        MakeKey("root", KeyAlgorithm.P256),
        CertifyRoot("root", "41" * 20, root_spec(lifetime="1y", path_length=1)),
    )
    for spec, why in (
        (request.wanted.spec, "ends before"),
        (change(request.wanted.spec, lifetime="30d", path_length=1), "allows 1 CAs below it"),
        (change(request.wanted.spec, lifetime="30d", key_algorithm=KeyAlgorithm.P384), "The key is p256"),
    ):
        step = Certify("root", "42" * 20, spec, request=Input("r", sha256_of(data)), public_key=key)
        with pytest.raises(Problem, match=why):
            held(*steps, step, files={sha256_of(data): data})
    step = Certify("root", "42" * 20, request.wanted.spec, request=Input("r", sha256_of(data)), public_key="0" * 64)
    with pytest.raises(Problem, match="not for the script's"):
        held(*steps, step, files={sha256_of(data): data})
    other = hashlib.sha256(b"other").hexdigest()
    step = change(step, request=Input("r", other), public_key=key)
    with pytest.raises(Problem, match="its SHA-256 differs"):
        held(*steps, step, files={other: data})


@pytest.mark.parametrize("pem", ["", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_an_authority_without_a_certificate_is_refused(pem: str) -> None:
    with pytest.raises(Problem, match="no certificate"):
        held(crl(), authorities={"root": Present(pem, "root")})


def test_a_certificate_that_can_be_read_in_part_only_is_refused() -> None:
    first = held(MakeKey("root", KeyAlgorithm.P256), CertifyRoot("root", "41" * 20, root_spec()))
    good = certificate(first, "root").public_bytes(Encoding.DER)
    broken = good.replace(b"Example Root CA", b"Example \xff\xfe\xfd\xfc CA")
    pem = x509.load_der_x509_certificate(broken).public_bytes(Encoding.PEM).decode()
    with pytest.raises(Problem, match="no certificate"):
        held(crl(), authorities={"root": Present(pem, "root")})


def test_a_certificate_that_is_no_cas_is_refused() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = builder.serial_number(5).not_valid_before(AT).not_valid_after(AT + timedelta(days=9))
    pem = made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
    with pytest.raises(Problem, match="no certificate of a CA"):
        held(crl(), authorities={"root": Present(pem, "root")})
