"""An authority cross-signed with `openssl x509`, added by `rootward ca cross`; and what OpenSSL and GnuTLS, which trust
the other root alone, say of what the authority issued.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.clients.pki import Pki
from tests.support.programs import Done, run, said

COMMAND = (sys.executable, "-m", "rootward")
# What stays of our certificate is its name constraints: OpenSSL keeps extensions that its file does not replace.
CA = (
    "basicConstraints=critical,CA:true,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\nauthorityKeyIdentifier=keyid\n"
)


class Theirs:
    """Somebody else's root in a folder, made and used by OpenSSL."""

    def __init__(self, pki: Pki, folder: Path) -> None:
        self.pki, self.folder = pki, folder
        self.root, self.key = folder / "their-root.pem", folder / "their.key"
        run("openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", self.key)
        usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
        subject = ("-subj", "/O=Others/CN=Their Root", "-days", "3000", *usage)
        run("openssl", "req", "-x509", "-new", "-key", self.key, *subject, "-out", self.root)

        self.public = folder / "issuing.pub"
        self.public.write_text(run("openssl", "x509", "-in", pki.issuing, "-noout", "-pubkey").stdout)

    def cross(self, name: str, extensions: str) -> Path:
        """A certificate for our issuing authority's name and key, with these extensions."""
        made, csr, file = (self.folder / f"{name}.{suffix}" for suffix in ("pem", "csr", "cnf"))
        file.write_text(extensions)
        subject = run("openssl", "x509", "-in", self.pki.issuing, "-noout", "-subject", "-nameopt", "RFC2253").stdout
        parts = subject.strip().removeprefix("subject=").split(",")
        # A request by a key that is not ours, as ours is the server's alone: of it only the name counts.
        run("openssl", "req", "-new", "-key", self.key, "-subj", "/" + "/".join(reversed(parts)), "-out", csr)
        signing = ("-CA", self.root, "-CAkey", self.key, "-set_serial", "4711", "-days", "300", "-extfile", file)
        run("openssl", "x509", "-req", "-in", csr, "-force_pubkey", self.public, *signing, "-out", made)
        return made

    @property
    def identifier(self) -> str:
        """The subject key identifier of our certificate."""
        found = run("openssl", "x509", "-in", self.pki.issuing, "-noout", "-ext", "subjectKeyIdentifier").stdout
        return f"subjectKeyIdentifier={found.split()[-1].replace(':', '')}\n"


@pytest.fixture
def theirs(pki: Pki, tmp_path: Path) -> Theirs:
    return Theirs(pki, tmp_path)


def rootward(pki: Pki, *words: str | Path, code: int = 0) -> Done:
    return run(*COMMAND, "--home", pki.server.home, "ca", "cross", *words, codes=(code,))


def test_a_cross_signed_authority(pki: Pki, theirs: Theirs) -> None:
    made = theirs.cross("good", theirs.identifier + CA)
    assert "is added" in rootward(pki, "add", "issuing", made).stdout
    try:
        (item,) = json.loads(rootward(pki, "list", "issuing", "--json").stdout)["items"]
        chain = theirs.folder / "chain.pem"
        chain.write_text(item["chain"])
        issued = pki.issue(names="DNS:a.internal,DNS:*.b.internal,IP:10.0.0.1")
        trust = ("-CAfile", theirs.root, "-no-CApath", "-no-CAstore", "-x509_strict", "-purpose", "sslserver")
        done = run("openssl", "verify", *trust, "-untrusted", chain, issued.cert, codes=None)
        assert done.stdout == f"{issued.cert}: OK\n", said(done)
        assert run("openssl", "verify", *trust, "-untrusted", issued.chain, issued.cert, codes=None).returncode == 2
        whole = issued.cert.read_text() + item["chain"]
        assert (
            "The certificate is trusted."
            in run("certtool", "--verify", "--load-ca-certificate", theirs.root, stdin=whole).stdout
        )
    finally:
        rootward(pki, "remove", "issuing", item["sha256"])
    assert json.loads(rootward(pki, "list", "issuing", "--json").stdout)["items"] == []


def test_another_key_identifier_is_refused_and_openssl_would_not_go_on_there(pki: Pki, theirs: Theirs) -> None:
    """What OpenSSL computes by itself is SHA-1; what our certificates name is not."""
    made = theirs.cross("ski", "subjectKeyIdentifier=hash\n" + CA)
    refused = rootward(pki, "add", "issuing", made, code=1)
    assert "subject key identifier" in refused.stderr
    issued = pki.issue()
    trust = ("-CAfile", theirs.root, "-no-CApath", "-no-CAstore")
    assert run("openssl", "verify", *trust, "-untrusted", made, issued.cert, codes=None).returncode == 2
