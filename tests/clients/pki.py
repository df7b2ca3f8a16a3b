"""What everybody with OpenSSL and curl can do with a running server: make a key, ask for a certificate, revoke it."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.support.programs import Done, run, said
from tests.support.server import Server

PROMISE = 60  # seconds that a revocation may take to be in the CRL (T_rev)
# What the OpenSSL of the distribution can make: `openssl genpkey` arguments by our name for the key.
KEYS = {
    "rsa-2048": ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"),
    "rsa-3072": ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"),
    "rsa-4096": ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:4096"),
    "p256": ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"),
    "p384": ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"),
    "p521": ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"),
    "ed25519": ("-algorithm", "ED25519"),
}


@dataclass(frozen=True)
class Issued:
    """A certificate with its files, and what the server said of it."""

    folder: Path
    body: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.body["id"])

    @property
    def serial(self) -> str:
        return str(self.body["serial"])

    @property
    def key(self) -> Path:
        return self.folder / "key.pem"

    @property
    def cert(self) -> Path:
        return self.folder / "cert.pem"

    @property
    def chain(self) -> Path:
        return self.folder / "chain.pem"

    @property
    def fullchain(self) -> Path:
        return self.folder / "fullchain.pem"


class Pki:
    """One running server, and a folder for what its clients make."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder
        self._count = itertools.count()

    @property
    def root(self) -> Path:
        return self.server.root

    @property
    def ocsp_url(self) -> str:
        return f"{self.server.pki}/ocsp/issuing"

    @cached_property
    def issuing(self) -> Path:
        """The issuing authority's certificate, PEM, as its AIA address serves it."""
        der, pem = self.folder / "issuing.cer", self.folder / "issuing.pem"
        run("curl", "-sSf", "-o", der, f"{self.server.pki}/ca/issuing.cer")
        run("openssl", "x509", "-inform", "DER", "-in", der, "-out", pem)
        return pem

    @cached_property
    def stranger(self) -> Path:
        """A root that is not ours and has our root's name, PEM."""
        key = self.make_key()
        name = run("openssl", "x509", "-in", self.root, "-noout", "-subject", "-nameopt", "RFC2253").stdout
        parts = name.strip().removeprefix("subject=").split(",")
        made = key.with_name("stranger.pem")
        run(
            "openssl", "req", "-x509", "-key", key, "-subj", "/" + "/".join(reversed(parts)), "-days", "9", "-out", made
        )
        return made

    def make_key(self, kind: str = "p256") -> Path:
        """A new key in a new folder: its path."""
        folder = self.folder / f"{next(self._count)}-{kind}"
        folder.mkdir()
        run("openssl", "genpkey", *KEYS[kind], "-out", folder / "key.pem")
        return folder / "key.pem"

    def make_csr(
        self,
        key: Path,
        *,
        subject: str = "/",
        names: str = "DNS:a.internal",
        config: str = "",
        options: Sequence[str] = (),
    ) -> str:
        """A CSR, PEM. `names` as OpenSSL writes them; `config` are lines for a section of extensions."""
        lines = ["[req]", "distinguished_name=dn", "req_extensions=ext", "[dn]", "[ext]"]
        lines += [f"subjectAltName={names}"] * bool(names) + [config]
        (key.parent / "req.cnf").write_text("\n".join(lines) + "\n")
        csr = key.parent / "csr.pem"
        command: list[str | Path] = ["openssl", "req", "-new", "-key", key, "-subj", subject, "-out", csr]
        run(*command, "-config", key.parent / "req.cnf", *options)
        return csr.read_text()

    def post(self, path: str, body: object) -> tuple[int, dict[str, Any]]:
        """A POST by curl as the README has it: the status and the JSON."""
        authorization = f"Authorization: Bearer {self.server.token}"
        command = ("curl", "-sS", "--cacert", self.root, "-H", authorization, "-H", "Content-Type: application/json")
        done = run(*command, "-w", "\n%{http_code}", "-d", "@-", f"{self.server.url}{path}", stdin=json.dumps(body))
        text, _, status = done.stdout.rpartition("\n")
        return int(status), json.loads(text)

    def get(self, path: str) -> dict[str, Any]:
        """A GET by curl; AssertionError unless it is 200."""
        authorization = f"Authorization: Bearer {self.server.token}"
        done = run("curl", "-sSf", "--cacert", self.root, "-H", authorization, f"{self.server.url}{path}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def certify(self, key: Path, csr: str, *, profile: str = "server", **fields: str) -> Issued:
        """The certificate for a CSR, its files beside its key."""
        status, body = self.post("/api/v1/certificates", {"profile": profile, "csr": csr, **fields})
        assert status == 201, body
        issued = Issued(key.parent, body)
        issued.cert.write_text(body["certificate"])
        issued.chain.write_text(body["chain"])
        issued.fullchain.write_text(body["certificate"] + body["chain"])
        return issued

    def issue(
        self, *, kind: str = "p256", profile: str = "server", names: str = "DNS:a.internal", subject: str = "/"
    ) -> Issued:
        """Key, CSR and certificate in one go."""
        key = self.make_key(kind)
        return self.certify(key, self.make_csr(key, names=names, subject=subject), profile=profile)

    def revoke(self, issued: Issued, reason: str | None = None) -> dict[str, Any]:
        """Revoke it; what the server said."""
        path = f"/api/v1/certificates/{issued.id}/revoke"
        status, body = self.post(path, {} if reason is None else {"reason": reason})
        assert status == 200, body
        return body

    def release(self, issued: Issued) -> dict[str, Any]:
        """Take it off hold; what the server said."""
        status, body = self.post(f"/api/v1/certificates/{issued.id}/release", {})
        assert status == 200, body
        return body

    def crl(self, authority: str = "issuing") -> Path:
        """The authority's CRL as it is served now, fetched by curl and written out as PEM by OpenSSL."""
        der, pem = self.folder / f"{authority}.crl", self.folder / f"{authority}.crl.pem"
        run("curl", "-sSf", "-o", der, f"{self.server.pki}/crl/{authority}.crl")
        run("openssl", "crl", "-inform", "DER", "-in", der, "-out", pem)
        return pem

    def revocations(self) -> dict[str, str | None]:
        """Serial to reason of every entry in the issuing authority's CRL, as `openssl crl -text` shows them."""
        found = {}
        for entry in self.crl_text().split("Serial Number: ")[1:]:
            reason = re.search(r"X509v3 CRL Reason Code: \n +(.+)", entry)
            found[entry.split("\n", 1)[0].strip().lower()] = None if reason is None else reason[1]
        return found

    def crl_text(self, authority: str = "issuing") -> str:
        """The same as text."""
        return run("openssl", "crl", "-in", self.crl(authority), "-noout", "-text").stdout

    def verify(self, issued: Issued, *options: str | Path) -> Done:
        """`openssl verify` with the root as only trust; any exit code."""
        trust = ("-CAfile", self.root, "-no-CApath", "-no-CAstore", "-untrusted", issued.chain)
        return run("openssl", "verify", *trust, *options, issued.cert, codes=None)


@dataclass(frozen=True)
class Answer:
    """What `openssl ocsp` made of an answer: status and reason, and whether it believed it."""

    status: str
    reason: str | None
    verified: bool
    text: str


def ocsp(pki: Pki, *options: str | Path, codes: Sequence[int] = (0,)) -> Answer:
    """`openssl ocsp` with the root as only trust; the options say what is asked, and where."""
    trust = ("-CAfile", pki.root, "-no-CApath", "-no-CAstore", "-issuer", pki.issuing)
    done = run("openssl", "ocsp", *trust, *options, codes=codes)
    status, reason = "", None
    for line in done.stdout.splitlines():
        left, _, right = line.partition(": ")
        if right in ("good", "revoked", "unknown"):
            status = right
        elif left.strip() == "Reason":
            reason = right.strip()
    return Answer(status, reason, "Response verify OK" in done.stderr, said(done))
