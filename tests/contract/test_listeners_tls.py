"""The TLS of the listeners: whom it lets in, and certificates and roots that change while connections are open."""

from __future__ import annotations

import datetime as dt
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rootward.protocols.edge import Edge
from rootward.protocols.http import HttpLimits
from rootward.protocols.tls import TlsIdentity
from tests.support.listener import GET, Answer, Running, is_closed, just, read, running

LIMITS = HttpLimits()


async def who(request: Request) -> Response:
    peer = request.scope["extensions"].get("rootward.peer_certificate")
    return JSONResponse({"peer": peer and peer.hex()})


BUILD = just(lambda: Edge("test", [Route("/", who)]))


NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)


class Ca:
    """A root, or an intermediate below `parent`, that certifies names."""

    def __init__(self, name: str, parent: Ca | None = None) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.parent = parent
        self.certificate = (parent or self).sign(self.name, self.key, ca=True)

    def sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        *,
        ca: bool = False,
        end: dt.datetime = NOW + DAY,
    ) -> x509.Certificate:
        names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - 10 * DAY)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(names, critical=False)
            .sign(self.key, hashes.SHA256())
        )

    def leaf(self, name: str, end: dt.datetime = NOW + DAY) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        key = ec.generate_private_key(ec.SECP256R1())
        return self.sign(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]), key, end=end), key


def pem(*certificates: x509.Certificate) -> str:
    return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in certificates)


def client(
    root: Ca, folder: Path, own: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None = None
) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=pem(root.certificate))
    if own is not None:
        file = folder / f"{own[0].serial_number}.pem"
        key = own[1].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file.write_bytes(pem(own[0]).encode() + key)
        context.load_cert_chain(file)
    return context


def ask_tls(server: Running, context: ssl.SSLContext) -> tuple[Answer, bytes]:
    """The answer, and the server's certificate."""
    with server.dial() as plain, context.wrap_socket(plain, server_hostname="localhost") as sock:
        sock.sendall(GET + b"\r\n")
        certificate = sock.getpeercert(True)
        assert certificate is not None
        return read(sock), certificate


@pytest.fixture(scope="module")
def ours() -> tuple[Ca, Ca]:
    root = Ca("root")
    return root, Ca("issuing", root)


@pytest.fixture
def mtls(ours: tuple[Ca, Ca]) -> Iterator[Running]:
    root, issuing = ours
    certificate, key = issuing.leaf("localhost")
    identity = TlsIdentity(
        pem(certificate, issuing.certificate), key, client_roots=[root.certificate, issuing.certificate]
    )
    with running(BUILD, limits=LIMITS, tls=identity) as made:
        yield made


def test_a_client_certificate_is_optional_and_reaches_the_door(
    mtls: Running, ours: tuple[Ca, Ca], tmp_path: Path
) -> None:
    root, issuing = ours
    own = issuing.leaf("device")
    assert ask_tls(mtls, client(root, tmp_path))[0].json["peer"] is None
    answer, _ = ask_tls(mtls, client(root, tmp_path, own))
    assert answer.json["peer"] == own[0].public_bytes(Encoding.DER).hex()


def test_an_expired_client_certificate_is_for_the_door_to_judge(
    mtls: Running, ours: tuple[Ca, Ca], tmp_path: Path
) -> None:
    root, issuing = ours
    own = issuing.leaf("device", end=NOW - DAY)
    assert ask_tls(mtls, client(root, tmp_path, own))[0].json["peer"] == own[0].public_bytes(Encoding.DER).hex()


def test_a_foreign_client_certificate_fails_the_handshake(mtls: Running, ours: tuple[Ca, Ca], tmp_path: Path) -> None:
    foreign = Ca("root").leaf("device")
    with pytest.raises((ssl.SSLError, OSError, EOFError)):
        ask_tls(mtls, client(ours[0], tmp_path, foreign))
    assert ask_tls(mtls, client(ours[0], tmp_path))[0].status == 200


def test_roots_that_go_and_come(mtls: Running, ours: tuple[Ca, Ca], tmp_path: Path) -> None:
    root, issuing = ours
    another = Ca("another")
    assert mtls.tls is not None
    mtls.tls.replace_roots([another.certificate])
    with pytest.raises((ssl.SSLError, OSError, EOFError)):
        ask_tls(mtls, client(root, tmp_path, issuing.leaf("device")))
    assert ask_tls(mtls, client(root, tmp_path, another.leaf("device")))[0].json["peer"] is not None


@pytest.mark.parametrize("offered", [False, True])
def test_https_never_asks_for_a_client_certificate(ours: tuple[Ca, Ca], tmp_path: Path, offered: bool) -> None:
    root, issuing = ours
    certificate, key = issuing.leaf("localhost")
    own = Ca("foreign").leaf("browser") if offered else None
    with running(BUILD, limits=LIMITS, tls=TlsIdentity(pem(certificate, issuing.certificate), key)) as server:
        assert ask_tls(server, client(root, tmp_path, own))[0].json["peer"] is None


def test_a_new_server_certificate_does_not_drop_open_connections(
    mtls: Running, ours: tuple[Ca, Ca], tmp_path: Path
) -> None:
    root, issuing = ours
    context = client(root, tmp_path)
    with mtls.dial() as plain, context.wrap_socket(plain, server_hostname="localhost") as sock:
        sock.sendall(GET + b"\r\n")
        assert read(sock).status == 200
        before = sock.getpeercert(True)
        certificate, key = issuing.leaf("localhost")
        assert mtls.tls is not None
        mtls.tls.replace(pem(certificate, issuing.certificate), key)
        _, after = ask_tls(mtls, context)
        assert after == certificate.public_bytes(Encoding.DER) != before
        sock.sendall(GET + b"\r\n")
        assert read(sock).status == 200


def test_a_certificate_and_a_key_that_do_not_fit_change_nothing(ours: tuple[Ca, Ca]) -> None:
    certificate, key = ours[1].leaf("localhost")
    identity = TlsIdentity(pem(certificate), key)
    before = identity.context
    with pytest.raises(ssl.SSLError):
        identity.replace(pem(certificate), ours[1].leaf("localhost")[1])
    assert identity.context is before


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_no_session_comes_back_after_the_roots_changed(
    mtls: Running, ours: tuple[Ca, Ca], tmp_path: Path, version: ssl.TLSVersion
) -> None:
    root, issuing = ours
    context = client(root, tmp_path, issuing.leaf("device"))
    context.minimum_version = context.maximum_version = version
    with mtls.dial() as plain, context.wrap_socket(plain, server_hostname="localhost") as sock:
        sock.sendall(GET + b"\r\n")
        assert read(sock).json["peer"] is not None
        session = sock.session
    assert mtls.tls is not None
    mtls.tls.replace_roots([Ca("another").certificate])
    with pytest.raises((ssl.SSLError, OSError, EOFError)):
        again(mtls, context, session)


def again(server: Running, context: ssl.SSLContext, session: ssl.SSLSession | None) -> None:
    with server.dial() as plain, context.wrap_socket(plain, server_hostname="localhost", session=session) as sock:
        sock.sendall(GET + b"\r\n")
        read(sock)


@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1"])
def test_old_tls_is_refused(mtls: Running, ours: tuple[Ca, Ca], tmp_path: Path, version: str) -> None:
    context = client(ours[0], tmp_path)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="deprecated"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    with pytest.raises((ssl.SSLError, OSError, EOFError)):
        ask_tls(mtls, context)


def test_a_connection_that_never_greets_gives_its_place_back(ours: tuple[Ca, Ca], tmp_path: Path) -> None:
    certificate, key = ours[1].leaf("localhost")
    identity = TlsIdentity(pem(certificate, ours[1].certificate), key)
    with (
        running(BUILD, limits=LIMITS, tls=identity, connections=1, handshake_seconds=0.5) as server,
        server.dial() as silent,
    ):
        assert is_closed(silent)
        context, until = client(ours[0], tmp_path), time.monotonic() + 20
        while True:
            try:
                answer, _ = ask_tls(server, context)
                break
            except (OSError, EOFError):
                assert time.monotonic() < until  # its place is given back right after it was closed
        assert answer.status == 200
