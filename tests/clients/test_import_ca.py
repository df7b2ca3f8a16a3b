"""A CA that OpenSSL ran comes here with its key, what it issued and what it revoked: `rootward ca import`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.programs import run, said
from tests.support.site import Site

CONFIG = """\
[ca]
default_ca = own
[own]
database = index.txt
serial = serial
crlnumber = crlnumber
new_certs_dir = .
certificate = sub.pem
private_key = sub.key
default_md = sha256
default_days = 300
default_crl_days = 30
policy = any
copy_extensions = copy
unique_subject = no
[any]
commonName = supplied
"""
CA = ("basicConstraints=critical,CA:TRUE,pathlen:0", "keyUsage=critical,keyCertSign,cRLSign")
KEYED = ("subjectKeyIdentifier=hash", "authorityKeyIdentifier=keyid")


class Old:
    """A root and an issuing CA of OpenSSL's, which has issued four certificates and revoked two."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        new = ("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        root = [part for extension in ("basicConstraints=critical,CA:TRUE", CA[1]) for part in ("-addext", extension)]
        self(
            "-x509", "-days", "3000", "-subj", "/CN=Old Root", "-keyout", "root.key", "-out", "root.pem", *root, by=new
        )
        self("-subj", "/CN=Old Issuing", "-keyout", "sub.key", "-out", "sub.csr", by=new)
        (folder / "ext.cnf").write_text("\n".join((*CA, *KEYED)) + "\n")
        sign = ("openssl", "x509", "-req", "-CA", "root.pem", "-CAkey", "root.key", "-days", "1500")
        self("-in", "sub.csr", "-extfile", "ext.cnf", "-out", "sub.pem", by=sign)
        (folder / "chain.pem").write_text((folder / "sub.pem").read_text() + (folder / "root.pem").read_text())
        (folder / "ca.cnf").write_text(CONFIG)
        (folder / "index.txt").write_text("")
        (folder / "serial").write_text("1001\n")
        (folder / "crlnumber").write_text("77\n")
        for name in ("good", "bad", "lost", "late"):
            self("-subj", f"/CN={name}.internal", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-addext",
                 f"subjectAltName=DNS:{name}.internal", by=new)  # fmt: skip
            self("-batch", "-in", f"{name}.csr", "-out", f"{name}.pem", "-notext")
        self("-revoke", "bad.pem", "-crl_reason", "superseded")
        self("-revoke", "lost.pem", "-crl_reason", "keyCompromise")
        self("-gencrl", "-out", "old.crl")
        self("-in", "sub.key", "-aes256", "-passout", "pass:secret words", "-out", "sealed.key", by=("openssl", "pkey"))
        bundle = ("openssl", "pkcs12", "-export", "-inkey", "sub.key", "-passout", "pass:secret words")
        self("-in", "sub.pem", "-out", "sub.p12", by=bundle)
        (folder / "pass").write_text("secret words\n")
        (folder / "wrong").write_text("other words\n")
        (folder / "issued.pem").write_text("".join((folder / f"{name}.pem").read_text() for name in ("good", "bad")))

    def __call__(self, *words: str, by: tuple[str, ...] = ("openssl", "ca", "-config", "ca.cnf")) -> None:
        run(*by, *words, cwd=self.folder)

    def serial(self, name: str) -> str:
        text = run("openssl", "x509", "-in", f"{name}.pem", "-noout", "-serial", cwd=self.folder).stdout
        return text.strip().partition("=")[2].lower()


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Old:
    return Old(tmp_path_factory.mktemp("old") / "ca")


def importing(site: Site, old: Old, *words: str | Path, key: str = "sealed.key", code: int = 0, **more: Any) -> str:
    """What `ca import` of the issuing CA says."""
    given = {"chain": "chain.pem", "secret": "pass", **more}
    opened = () if key == "sub.key" else ("--passphrase-file", old.folder / str(given["secret"]))
    arguments = ("--key", old.folder / key, *opened, "--crl", old.folder / "old.crl", "--parent-name", "old-root")
    return said(site("ca", "import", "legacy", old.folder / str(given["chain"]), *arguments, *words, code=code))


@pytest.mark.slow
@pytest.mark.invariant("I-16", "I-17", "I-27")
def test_a_ca_comes_with_its_key_and_nothing_is_forgotten(old: Old, tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.init()
    (old.folder / "other.key").write_text((old.folder / "good.key").read_text())
    for words, why in (
        ({"secret": "wrong"}, "RW-IMPORT-PASSWORD"),
        ({"key": "other.key"}, "RW-KEY-MISMATCH"),
        ({"chain": "sub.pem"}, "RW-CERTIFICATE"),
        ({"chain": "good.pem"}, "is no CA certificate"),
        ({"key": "sub.pem"}, "RW-KEY-FILE"),
    ):
        options: dict[str, Any] = {"key": "sealed.key", **words}
        refused = importing(site, old, code=1, **options)
        assert why in refused, refused
        assert not list((site.home / "keys").glob("legacy-*"))
    told = importing(site, old, "--inventory", old.folder / "issued.pem")
    assert "legacy" in told
    stored = b"".join(path.read_bytes() for path in site.home.rglob("*") if path.is_file())
    for line in (old.folder / "sub.key").read_text().splitlines()[1:-1]:
        assert line.encode() not in stored
    with site.serving() as server:
        listed = {one["name"]: one for one in json.loads(site("ca", "list", "--json").stdout)["items"]}
        assert (listed["legacy"]["state"], listed["old-root"]["external"]) == ("active", True)
        with server.client() as client:
            crl = client.get("/crl/legacy.crl").content
            found = client.get("/api/v1/certificates?limit=100").json()["items"]
        (tmp_path / "new.crl").write_bytes(crl)
        text = run("openssl", "crl", "-inform", "DER", "-in", tmp_path / "new.crl", "-noout", "-text").stdout
        for name in ("bad", "lost"):
            assert f"Serial Number: {old.serial(name).upper()}" in text
        assert f"Serial Number: {old.serial('good').upper()}" not in text
        number = int(run("openssl", "crl", "-inform", "DER", "-in", tmp_path / "new.crl", "-noout", "-crlnumber").stdout
                     .strip().partition("=")[2], 16)  # fmt: skip
        assert number > 0x77
        by_serial = {one["serial"]: one["status"] for one in found}
        wanted = {"good": "active", "bad": "revoked", "lost": "revoked"}
        assert {name: by_serial[old.serial(name)] for name in wanted} == wanted
        for serial, answer in ((old.serial("good"), "good"), (old.serial("lost"), "revoked"), ("7777", "unknown")):
            asked = ("openssl", "ocsp", "-issuer", old.folder / "sub.pem", "-serial", f"0x{serial}", "-CAfile")
            ocsp = run(*asked, old.folder / "root.pem", "-url", f"{server.pki}/ocsp/legacy", "-no_nonce",
                       "-verify_other", old.folder / "sub.pem")  # fmt: skip
            assert f": {answer}" in said(ocsp), said(ocsp)
        later = json.loads(site("cert", "import", old.folder / "late.pem", "--json").stdout)["items"]
        assert [(one["result"], one["reasons"]) for one in later] == [("imported", [])]
        asked = ("openssl", "ocsp", "-issuer", old.folder / "sub.pem", "-cert", old.folder / "late.pem", "-CAfile")
        ocsp = run(*asked, old.folder / "root.pem", "-url", f"{server.pki}/ocsp/legacy", "-no_nonce",
                   "-verify_other", old.folder / "sub.pem")  # fmt: skip
        assert ": good" in said(ocsp)
        site("cert", "issue", "--profile", "server", "--name", "new.internal", "--out", "n")
        trust = ("-CAfile", old.folder / "root.pem", "-untrusted", old.folder / "sub.pem", "-crl_check")
        pem = tmp_path / "new.pem"
        run("openssl", "crl", "-inform", "DER", "-in", tmp_path / "new.crl", "-out", pem)
        run("openssl", "verify", *trust, "-CRLfile", pem, tmp_path / "n" / "cert.pem")
        site("audit", "verify")
    again = importing(site, old, "--inventory", old.folder / "issued.pem")  # the same again changes nothing
    assert "none" in again


@pytest.mark.slow
def test_a_root_comes_without_its_key_and_pkcs12_brings_one(old: Old, tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.init()
    root = old.folder / "root.pem"
    refused = said(site("ca", "import", "old-root", root, "--key", old.folder / "root.key", code=1))
    assert "never comes online" in refused
    site("ca", "import", "old-root", root)
    site("ca", "create", "next", "--parent", "old-root")  # its key is here, and the ceremony is the old root's
    asked = json.loads((tmp_path / "next-request.json").read_text())
    assert asked["issuer"].strip() == root.read_text().strip()
    bundle = ("--key", old.folder / "sub.p12", "--passphrase-file", old.folder / "pass")
    told = site("ca", "import", "legacy", old.folder / "chain.pem", *bundle, "--crl", old.folder / "old.crl", "--json")
    made = {"authorities": ["legacy"], "certificates": 0, "revoked": 2, "unknown": 2, "refused": []}
    assert json.loads(told.stdout) == made
    assert (site.home / "root.pem").read_text().strip() == root.read_text().strip()
