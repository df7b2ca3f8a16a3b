"""The table of bad inputs through the doors of a real server: input by door, to the exact status and code; never a 500.

The rows are those of tests/vectors (one list for the pure functions and for every door). A CSR goes to the REST door
as PEM; an OCSP request by POST and by GET. What a certificate is never given is asserted at the end of each row: that
the inventory has not grown.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from urllib.parse import quote

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from rootward.core.issuer import Issuer
from rootward.core.ocsp import OcspStatus, cert_id_for, parse_response, request_for
from rootward.core.ocsp_request import OcspError
from rootward.core.problems import CODES, Kind
from rootward.protocols.problems import STATUS
from tests.support.server import Server
from tests.vectors.csrs import BAD_CSRS, BadCsr, good_csr, pem
from tests.vectors.ocsp import BAD_OCSP, BadOcsp

BY_PROFILE = {Kind.MALFORMED: 400, Kind.POLICY: 400, Kind.TOO_LARGE: 413}
SOMEBODY_ELSES = 37
LARGEST_IN_A_PATH = 2048


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("doors") / "home") as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as made:
        yield made


def as_text(data: bytes) -> str:
    """How a request's bytes get into JSON: text as it is, DER in PEM."""
    if data[:1] == b"\x30" or not data.isascii():
        return pem(data).decode()
    return data.decode()


def issued(client: httpx.Client) -> int:
    return len(client.get("/api/v1/certificates", params={"profile": "server", "limit": 500}).json()["items"])


@pytest.mark.parametrize(
    "bad", [row for row in BAD_CSRS if row.number != SOMEBODY_ELSES], ids=[str(r) for r in BAD_CSRS if r.number != 37]
)
def test_a_bad_csr_gets_its_answer(bad: BadCsr, client: httpx.Client) -> None:
    answer = client.post("/api/v1/certificates", json={"profile": "server", "csr": as_text(bad.make())})
    found = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, found["status"]) == (BY_PROFILE[CODES[bad.code].kind],) * 2, found
    assert bad.code in {reason["code"] for reason in found["reasons"]}, found
    assert found["code"] == found["reasons"][0]["code"]
    assert STATUS["rest"][CODES[found["code"]].kind] == answer.status_code


def test_nothing_of_the_table_was_issued(client: httpx.Client) -> None:
    assert issued(client) == 0


@pytest.mark.invariant("I-12")
def test_a_key_of_somebody_else_is_refused(server: Server, client: httpx.Client) -> None:
    """37: the same key for two principals."""
    person = client.post("/api/v1/principals", json={"name": "ann"}).json()["id"]
    client.post("/api/v1/grants", json={"principal": person, "role": "requester"}).raise_for_status()
    token = client.post(
        "/api/v1/tokens",
        json={"principal": person, "label": "t", "lifetime": "1h", "scopes": [{"role": "requester"}]},
    ).json()["token"]
    csr = pem(good_csr()).decode()
    hers = client.post(
        "/api/v1/certificates",
        json={"profile": "server", "csr": csr},
        headers={"Authorization": f"Bearer {token}"},
    )
    assert hers.status_code == 201, hers.text
    mine = client.post("/api/v1/certificates", json={"profile": "server", "csr": csr})
    assert (mine.status_code, mine.json()["code"]) == (400, "RW-KEY-IN-USE")


@pytest.mark.invariant("I-11")
def test_what_is_ignored_never_reaches_the_certificate(server: Server, client: httpx.Client) -> None:
    """53 and its like: computed by the CA, whatever the CSR says."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Evil")])
    )
    asked: list[x509.ExtensionType] = [
        x509.SubjectAlternativeName([x509.DNSName("ignored.internal")]),
        x509.SubjectKeyIdentifier(b"e" * 20),
        x509.AuthorityKeyIdentifier(b"e" * 20, None, None),
        x509.CRLDistributionPoints(
            [x509.DistributionPoint([x509.UniformResourceIdentifier("http://evil.internal/c")], None, None, None)]
        ),
        x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier("1.2.3.4"), None)]),
        x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"\x05\x00"),
    ]
    for extension in asked:
        builder = builder.add_extension(extension, critical=False)
    csr = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
    made = client.post("/api/v1/certificates", json={"profile": "server", "csr": csr})
    assert made.status_code == 201, made.text
    certificate = x509.load_pem_x509_certificate(made.json()["certificate"].encode())
    der = certificate.public_bytes(Encoding.DER)
    assert b"evil" not in der.lower()
    assert b"e" * 20 not in der
    assert {extension.oid.dotted_string for extension in certificate.extensions} == {
        "2.5.29.19",
        "2.5.29.15",
        "2.5.29.35",
        "2.5.29.37",
        "2.5.29.31",
        "1.3.6.1.5.5.7.1.1",
        "2.5.29.14",
        "2.5.29.17",
    }
    assert not certificate.subject


def status_of(body: bytes) -> OcspStatus | None:
    """The OCSPResponseStatus of an error; None where the answer is a successful one."""
    try:
        parse_response(body)
    except OcspError as error:
        return error.status
    return None


def get_path(data: bytes) -> str:
    return "/ocsp/issuing/" + quote(base64.b64encode(data).decode(), safe="")


@pytest.mark.parametrize("bad", BAD_OCSP, ids=[f"{row.number}-{row.title}" for row in BAD_OCSP])
def test_a_bad_ocsp_request_gets_its_status(bad: BadOcsp, server: Server) -> None:
    data = bad.make()
    headers = {"Content-Type": "application/ocsp-request"}
    with httpx.Client(base_url=server.pki, trust_env=False) as plain:
        posted = plain.post("/ocsp/issuing", content=data, headers=headers)
        assert posted.status_code == 200
        assert posted.headers["content-type"] == "application/ocsp-response"
        assert "no-store" in posted.headers["cache-control"]
        assert status_of(posted.content) is bad.status
        if data and len(get_path(data)) < LARGEST_IN_A_PATH:
            got = plain.get(get_path(data))
            assert (got.status_code, status_of(got.content)) == (200, bad.status)


@pytest.mark.invariant("I-28")
def test_another_issuers_and_mixed_cert_ids_are_unauthorized(server: Server) -> None:
    """262 and 277."""
    root = x509.load_pem_x509_certificate(server.root.read_bytes())
    with httpx.Client(base_url=server.pki, trust_env=False) as plain:
        issuing = x509.load_der_x509_certificate(plain.get("/ca/issuing.cer").content)
        ours = Issuer("issuing", issuing, (issuing, root), server.pki)
        theirs = Issuer("root", root, (root,), server.pki)
        serial = b"\x42" * 16
        for ids in ([cert_id_for(theirs, serial, "sha1")], [cert_id_for(i, serial, "sha1") for i in (ours, theirs)]):
            answer = plain.post(
                "/ocsp/issuing",
                content=request_for(ids),
                headers={"Content-Type": "application/ocsp-request"},
            )
            assert status_of(answer.content) is OcspStatus.UNAUTHORIZED
        own = plain.post(
            "/ocsp/root",
            content=request_for([cert_id_for(theirs, serial, "sha1")]),
            headers={"Content-Type": "application/ocsp-request"},
        )
        assert status_of(own.content) is OcspStatus.UNAUTHORIZED


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/crl/nobody.crl", 404),
        ("/crl/issuing/0.crl", 404),
        ("/crl/issuing.delta.crl", 404),
        ("/crl/..%2fissuing.crl", 404),
        ("/crl/%2e%2e/issuing.crl", 404),
        ("/crl/issuing%00.crl", 404),
        ("/crl/ISSUING.crl", 404),
        ("/ca/nobody.cer", 404),
        ("/ocsp/nobody/MEI=", 404),
        ("/roots.pem", 404),  # over plain HTTP nothing would vouch for it
        ("/api/v1/certificates", 404),
        ("/healthz", 404),
    ],
)
def test_what_is_not_there_on_plain_http(path: str, status: int, server: Server) -> None:
    with httpx.Client(base_url=server.pki, trust_env=False) as plain:
        assert plain.get(path).status_code == status


@pytest.mark.invariant("I-30")
def test_no_date_brings_back_an_answer_from_before_a_revocation(server: Server, client: httpx.Client) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    names = x509.SubjectAlternativeName([x509.DNSName("dated.internal")])
    csr = builder.add_extension(names, critical=False).sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
    made = client.post("/api/v1/certificates", json={"profile": "server", "csr": csr}).json()
    with httpx.Client(base_url=server.pki, trust_env=False) as plain:
        issuing = x509.load_der_x509_certificate(plain.get("/ca/issuing.cer").content)
        ours = Issuer("issuing", issuing, (issuing,), server.pki)
        path = get_path(request_for([cert_id_for(ours, bytes.fromhex(made["serial"]), "sha256")]))
        good = plain.get(path)
        client.post(f"/api/v1/certificates/{made['id']}/revoke", json={}).raise_for_status()
        for headers in (
            {"If-Modified-Since": good.headers["last-modified"]},
            {"If-None-Match": good.headers["etag"]},
            {"If-Modified-Since": good.headers["last-modified"], "If-None-Match": good.headers["etag"]},
        ):
            answer = plain.get(path, headers=headers)
            assert answer.status_code == 200
            assert answer.content != good.content


@pytest.mark.parametrize(
    "name",
    ["evil\u2024com", "evil\ufe52com", "127\u20240\u20240\u20241", "evil\u06d4com", "localhost", "xn--80ak6aa92e"],
)
def test_a_common_name_that_reads_like_a_name_is_refused_for_devices(name: str, client: httpx.Client) -> None:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    csr = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(Encoding.PEM).decode()
    answer = client.post("/api/v1/certificates", json={"profile": "device", "csr": csr})
    assert (answer.status_code, answer.json()["code"]) == (400, "RW-CSR-SUBJECT")
