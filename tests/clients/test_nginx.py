"""nginx serves our certificates, staples their status, and lets in who has a client certificate; curl trusts it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.clients.pki import KEYS, Issued, Pki
from tests.support.ports import free_port
from tests.support.programs import Done, nginx, run, said, until

Settings = Mapping[str, str | Path]


def visit(pki: Pki, port: int, *options: str | Path, codes: tuple[int, ...] = (0,), host: str = "a.internal") -> Done:
    """`curl` with the root as only trust, as if `host` were known to the DNS."""
    trust = ("--cacert", pki.root, "--capath", "/nonexistent")
    return run(
        *("curl", "-sS", *trust, "--resolve", f"{host}:{port}:127.0.0.1", *options, f"https://{host}:{port}/"),
        codes=codes,
    )


def settings(issued: Issued) -> Settings:
    return {"ssl_certificate": issued.fullchain, "ssl_certificate_key": issued.key}


@pytest.fixture(scope="module")
def ports(pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """An nginx with one server for each kind of key."""
    chosen = {kind: free_port() for kind in KEYS}
    servers = [(chosen[kind], "a.internal", settings(pki.issue(kind=kind))) for kind in KEYS]
    with nginx(tmp_path_factory.mktemp("nginx"), servers):
        yield chosen


@pytest.mark.parametrize("kind", list(KEYS))
def test_curl_trusts_an_nginx_with_each_kind_of_key(pki: Pki, ports: dict[str, int], kind: str) -> None:
    assert visit(pki, ports[kind]).stdout == "hello from a.internal\n"


def test_and_for_no_other_name_and_under_no_other_root(pki: Pki, ports: dict[str, int]) -> None:
    refused = visit(pki, ports["p256"], host="b.internal", codes=(60,))
    assert "no alternative certificate subject name matches" in refused.stderr
    untrusting = ("curl", "-sS", "--capath", "/nonexistent", "--cacert", pki.stranger)
    address = f"a.internal:{ports['p256']}"
    done = run(*untrusting, "--resolve", f"{address}:127.0.0.1", f"https://{address}/", codes=(60,))
    assert "unable to get local issuer certificate" in done.stderr


def test_curl_with_crls_refuses_what_is_revoked(pki: Pki, revoked: Issued, tmp_path: Path) -> None:
    good = pki.issue()
    crls = tmp_path / "crls.pem"
    crls.write_text(pki.crl("root").read_text() + pki.crl("issuing").read_text())
    ports = free_port(), free_port()
    both = [(port, "a.internal", settings(one)) for port, one in zip(ports, (good, revoked), strict=True)]
    with nginx(tmp_path / "nginx", both):
        assert visit(pki, ports[0], "--crlfile", crls).returncode == 0
        assert "certificate revoked" in visit(pki, ports[1], "--crlfile", crls, codes=(60,)).stderr


def status(pki: Pki, port: int) -> str:
    """What `openssl s_client -status` sees of the staple."""
    trust = ("-CAfile", pki.root, "-no-CApath", "-no-CAstore", "-verify_return_error", "-verify_hostname", "a.internal")
    address = ("-connect", f"127.0.0.1:{port}", "-servername", "a.internal")
    return said(run("openssl", "s_client", *address, *trust, "-status", stdin=""))


def test_nginx_fetches_and_staples_the_status(pki: Pki, tmp_path: Path) -> None:
    """nginx asks our responder itself, believes the answer, and curl believes the staple."""
    issued, port = pki.issue(), free_port()
    trusted = tmp_path / "trusted.pem"
    trusted.write_text(pki.issuing.read_text() + pki.root.read_text())
    wanted: Settings = {"ssl_stapling": "on", "ssl_stapling_verify": "on", "ssl_trusted_certificate": trusted}
    with nginx(tmp_path / "nginx", [(port, "a.internal", {**settings(issued), **wanted})]) as log:
        # the first visitor sets nginx going; whoever comes after its answer gets the staple
        stapled = until(lambda: "OCSP Response Status: successful" in (seen := status(pki, port)) and seen, seconds=60)
        assert re.search(r"Cert Status: good", str(stapled))
        assert issued.serial.upper() in str(stapled)
        assert visit(pki, port, "--cert-status").stdout == "hello from a.internal\n"
        assert "OCSP_basic_verify() failed" not in log.read_text()


def test_nginx_staples_a_file_and_a_client_refuses_the_revoked(pki: Pki, tmp_path: Path) -> None:
    issued, port = pki.issue(), free_port()
    answers = {name: tmp_path / f"{name}.der" for name in ("good", "revoked")}
    ask = ("openssl", "ocsp", "-no_nonce", "-issuer", pki.issuing, "-cert", issued.cert, "-url", pki.ocsp_url)
    run(*ask, "-CAfile", pki.root, "-respout", answers["good"])
    pki.revoke(issued, "keyCompromise")
    run(*ask, "-CAfile", pki.root, "-respout", answers["revoked"])
    for name, answer in answers.items():
        wanted: Settings = {"ssl_stapling": "on", "ssl_stapling_file": answer}
        with nginx(tmp_path / name, [(port, "a.internal", {**settings(issued), **wanted})]):
            assert f"Cert Status: {name}" in status(pki, port)
            done = visit(pki, port, "--cert-status", codes=(0, 91))
            assert done.returncode == (0 if name == "good" else 91), said(done)


def test_nginx_lets_client_certificates_in_and_no_others(pki: Pki, revoked: Issued, tmp_path: Path) -> None:
    server, port = pki.issue(), free_port()
    crls = tmp_path / "crls.pem"
    crls.write_text(pki.crl("root").read_text() + pki.crl("issuing").read_text())
    wanted: Settings = {
        "ssl_client_certificate": pki.root,
        "ssl_verify_client": "on",
        "ssl_verify_depth": "2",
        "ssl_crl": crls,
    }
    with nginx(tmp_path / "nginx", [(port, "a.internal", {**settings(server), **wanted})]) as log:
        for profile in ("client", "peer", "device", "short"):
            issued = pki.issue(profile=profile, names="DNS:b.internal")
            done = visit(pki, port, "--cert", issued.fullchain, "--key", issued.key)
            assert done.stdout == "hello from a.internal\n", profile
        for refused, why in ((server, "purpose"), (revoked, "certificate revoked")):
            done = visit(pki, port, "--cert", refused.fullchain, "--key", refused.key)
            assert "400 The SSL certificate error" in done.stdout
            assert why in log.read_text()
        assert "No required SSL certificate was sent" in visit(pki, port).stdout
