"""The server's own TLS, as curl, OpenSSL and GnuTLS meet it: its chain ends at root.pem, and HTTPS asks nobody back."""

from __future__ import annotations

import re

import pytest

from tests.clients.pki import Pki
from tests.support.programs import run, said

TRUST = ("-no-CApath", "-no-CAstore", "-verify_return_error")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
@pytest.mark.parametrize("door", ["https", "mtls"])
def test_curl_trusts_the_server(pki: Pki, door: str, host: str) -> None:
    port = pki.server.ports[door]
    trust = ("--capath", "/nonexistent", "--cacert")
    shape = ("-o", "/dev/null", "-w", "%{http_code} %{ssl_verify_result} %{http_version}")
    done = run("curl", "-sS", *trust, pki.root, *shape, f"https://{host}:{port}/healthz")
    assert done.stdout == "200 0 1.1"
    run("curl", "-sS", *trust, pki.stranger, f"https://{host}:{port}/healthz", codes=(60,))
    other = f"other.internal:{port}"
    wrong = ("--resolve", f"{other}:127.0.0.1", f"https://{other}/healthz")
    assert "no alternative certificate subject name" in run("curl", "-sS", *trust, pki.root, *wrong, codes=(60,)).stderr


def test_openssl_sees_the_chain_without_the_root(pki: Pki) -> None:
    address = f"127.0.0.1:{pki.server.ports['https']}"
    host = ("-servername", "localhost", "-verify_hostname", "localhost")
    text = said(run("openssl", "s_client", "-connect", address, *host, "-CAfile", pki.root, *TRUST, stdin=""))
    assert "Verify return code: 0 (ok)" in text
    assert "No client certificate CA names sent" in text  # HTTPS never asks for one
    assert len(re.findall(r"^ \d s:", text, re.MULTILINE)) == 2  # the server and the issuing authority
    assert "New, TLSv1.3" in text
    assert "New Session Ticket" not in text


@pytest.mark.parametrize(
    ("version", "good"), [("-tls1", False), ("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)]
)
def test_tls_versions(pki: Pki, version: str, good: bool) -> None:
    address = f"127.0.0.1:{pki.server.ports['https']}"
    weak = ("-cipher", "DEFAULT@SECLEVEL=0") if not good else ()  # so that it is the server that refuses
    done = run("openssl", "s_client", "-connect", address, version, *weak, "-CAfile", pki.root, stdin="", codes=(0, 1))
    assert (done.returncode == 0) is good
    # the server's doing: an alert, or the end of the connection
    assert good or re.search("alert protocol version|unexpected eof", said(done))


def test_gnutls_trusts_the_server(pki: Pki) -> None:
    port = str(pki.server.ports["https"])
    done = run("gnutls-cli", "--x509cafile", pki.root, "-p", port, "--sni-hostname=localhost", "127.0.0.1", stdin="")
    assert "Status: The certificate is trusted." in said(done)
    refused = run("gnutls-cli", "--x509cafile", pki.stranger, "-p", port, "127.0.0.1", stdin="", codes=(1,))
    assert "NOT trusted" in said(refused)


def test_a_client_certificate_of_ours_is_let_in_and_a_foreign_one_is_not(pki: Pki) -> None:
    url = f"https://localhost:{pki.server.ports['mtls']}/healthz"
    ours = pki.issue(profile="client", names="DNS:b.internal")
    shape = ("-o", "/dev/null", "-w", "%{http_code}")
    own = ("--cert", ours.fullchain, "--key", ours.key)
    assert run("curl", "-sS", "--cacert", pki.root, *own, *shape, url).stdout == "200"
    foreign = ("--cert", pki.stranger, "--key", pki.stranger.with_name("key.pem"))
    done = run("curl", "-sS", "--cacert", pki.root, *foreign, *shape, url, codes=None)
    # its root has our root's name; how curl says it depends on when the connection ends
    assert (done.returncode == 0, done.stdout) == (False, "000")
    # On HTTPS nobody is asked, so a foreign one does no harm.
    https = f"{pki.server.url}/healthz"
    assert run("curl", "-sS", "--cacert", pki.root, *foreign, *shape, https).stdout == "200"
