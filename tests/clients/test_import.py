"""Files that OpenSSL makes are read as it meant them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from rootward.core.problems import Problem
from rootward.core.upload import read_upload
from tests.vectors import imports as made


def openssl(*arguments: str, folder: Path) -> None:
    """Run it in that folder."""
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A certificate, its key and another certificate in PEM."""
    certificate, key = made.real(made.REAL)
    (tmp_path / "cert.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (tmp_path / "ca.pem").write_bytes(made.real("ca.test")[0].public_bytes(Encoding.PEM))
    (tmp_path / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return tmp_path


OLD = ("-keypbe", "PBE-SHA1-3DES", "-certpbe", "PBE-SHA1-3DES", "-macalg", "sha1")


@pytest.mark.parametrize(
    ("how", "password"),
    [
        ((), "pässword"),
        (("-iter", "50000"), "x"),
        (OLD, "pässword"),
        (OLD, ""),
        (("-certpbe", "NONE"), "x"),
        (("-keypbe", "NONE", "-certpbe", "NONE"), "x"),
        (("-keypbe", "AES-128-CBC", "-certpbe", "AES-192-CBC", "-macalg", "sha512"), "x"),
    ],
)
def test_pkcs12(folder: Path, how: tuple[str, ...], password: str) -> None:
    files = ("-inkey", "key.pem", "-in", "cert.pem", "-certfile", "ca.pem", "-out", "a.p12")
    openssl("pkcs12", "-export", *files, "-passout", f"pass:{password}", *how, folder=folder)
    content = (folder / "a.p12").read_bytes()
    found = read_upload(content, password)
    assert {item.der for item in found} == {made.real_der(), made.real_der("ca.test")}
    with pytest.raises(Problem, match="RW-IMPORT-PASSWORD"):
        read_upload(content, "another")


def test_pkcs12_without_a_mac_is_refused(folder: Path) -> None:
    files = ("-inkey", "key.pem", "-in", "cert.pem", "-out", "a.p12")
    openssl("pkcs12", "-export", *files, "-passout", "pass:x", "-nomac", folder=folder)
    with pytest.raises(Problem, match="no MAC"):
        read_upload((folder / "a.p12").read_bytes(), "x")


@pytest.mark.parametrize("form", ["PEM", "DER"])
def test_pkcs7(folder: Path, form: str) -> None:
    files = ("-certfile", "cert.pem", "-certfile", "ca.pem", "-out", "a.p7b")
    openssl("crl2pkcs7", "-nocrl", *files, "-outform", form, folder=folder)
    found = read_upload((folder / "a.p7b").read_bytes())
    assert {item.der for item in found} == {made.real_der(), made.real_der("ca.test")}


def test_a_trusted_certificate(folder: Path) -> None:
    openssl("x509", "-in", "cert.pem", "-trustout", "-addtrust", "serverAuth", "-out", "t.pem", folder=folder)
    assert [item.der for item in read_upload((folder / "t.pem").read_bytes())] == [made.real_der()]
