"""Java validates our chains with PKIX revocation checking that fails hard: by OCSP (which it asks by GET with
URL-encoded base64), by CRL, and as it comes.
"""

from __future__ import annotations

import urllib.parse
from pathlib import Path

import pytest

from tests.clients.pki import KEYS, Issued, Pki
from tests.support.programs import run, said

CHECK = Path(__file__).parent / "java" / "Check.java"


def check(pki: Pki, *pairs: tuple[str, Issued], root: Path | None = None) -> list[str]:
    """What Check.java says of each pair of a mode and a chain."""
    words = [str(word) for mode, issued in pairs for word in (mode, issued.fullchain)]
    done = run(
        *("java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-Dcom.sun.security.enableCRLDP=true"),
        "-Djava.net.useSystemProxies=false",
        CHECK,
        root or pki.root,
        *words,
    )
    lines = done.stdout.splitlines()
    assert [line.split(" ", 1)[0] for line in lines] == [mode for mode, _ in pairs], said(done)
    return [line.split(" ", 1)[1] for line in lines]


def asked(pki: Pki) -> list[str]:
    """The lines of the server's access log about OCSP."""
    log = pki.server.home.with_suffix(".log").read_text()
    return [line for line in log.splitlines() if " http.request " in line and "/ocsp/issuing" in line]


@pytest.mark.invariant("I-15")
@pytest.mark.invariant("I-27")
def test_java_by_ocsp_and_by_crl(pki: Pki, revoked: Issued) -> None:
    good, before = pki.issue(), len(asked(pki))
    answers = check(
        pki,
        *((mode, one) for mode in ("chain", "ocsp", "crl", "both") for one in (good, revoked)),
    )
    assert answers == ["valid", "valid", *(["valid", "revoked PRIVILEGE_WITHDRAWN"] * 3)]
    lines = asked(pki)[before:]
    assert len(lines) == 4  # one for each chain under "ocsp" and "both", none for the others
    for line in lines:
        assert " method=GET " in line
        path = line.partition(' path="')[2].partition('"')[0]
        assert urllib.parse.unquote(path) != path  # Java escapes what base64 has beyond letters and digits
        assert " status=200 " in line


def test_java_sees_a_revocation_at_once_by_ocsp(pki: Pki) -> None:
    issued = pki.issue()
    assert check(pki, ("ocsp", issued)) == ["valid"]
    pki.revoke(issued, "keyCompromise")
    assert check(pki, ("ocsp", issued)) == ["revoked KEY_COMPROMISE"]


@pytest.mark.slow
def test_java_takes_each_kind_of_key(pki: Pki) -> None:
    issued = [pki.issue(kind=kind) for kind in KEYS]
    assert check(pki, *(("both", one) for one in issued)) == ["valid"] * len(KEYS)


def test_java_refuses_another_root(pki: Pki) -> None:
    (answer,) = check(pki, ("chain", pki.issue()), root=pki.stranger)
    assert answer.startswith("refused ")


def test_keytool_reads_the_chain(pki: Pki) -> None:
    text = said(run("keytool", "-printcert", "-file", pki.issue().fullchain))
    assert text.count("Owner:") == 2
    assert f"accessMethod: ocsp\n   accessLocation: URIName: {pki.ocsp_url}" in text
    assert f"{pki.server.pki}/crl/issuing.crl" in text
