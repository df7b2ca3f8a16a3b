"""Authorities on the command line, judged by OpenSSL: an empty home, later authorities, one that is revoked, somebody
else's root, and a single-tier lab.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.programs import run, said
from tests.support.site import Site

SPEC = """\
common_name: Example Constrained CA
organization: Example
lifetime: 3y
permitted: {dns: [internal]}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An installation that its first ceremony founded, served."""
    made = Site(tmp_path_factory.mktemp("site"))
    made.init()
    made("ca", "create", "issuing", "--parent", "root")
    script = made.plan("first", "--root", "root", "--org", "Example", "--request", "issuing-request.json", "--crl")
    made("ceremony", "import", made.hold(script))
    with made.serving():
        yield made


def shown(site: Site, *words: str) -> Any:
    return json.loads(site(*words, "--json").stdout)


def verify(site: Site, folder: str, *more: str | Path, code: int = 0, root: Path | None = None) -> str:
    """What OpenSSL says of a certificate that `cert issue` has left in `folder`."""
    chain = site.folder / folder / "chain.pem"
    above = ("-untrusted", chain) if chain.read_text() else ()  # a single-tier lab has nothing between
    trust = ("-CAfile", root or site.home / "root.pem", *above, "-x509_strict")
    return said(run("openssl", "verify", *trust, *more, site.folder / folder / "cert.pem", codes=(code,)))


def crl(site: Site, name: str) -> Path:
    """The current CRL of an authority, PEM."""
    assert site.server is not None
    with site.server.client() as client:
        data = client.get(f"/crl/{name}.crl").content
    path = site.folder / f"{name}.crl"
    path.write_bytes(data)
    pem = site.folder / f"{name}.crl.pem"
    run("openssl", "crl", "-inform", "DER", "-in", path, "-out", pem)
    return pem


def test_what_the_first_ceremony_founded_issues(site: Site) -> None:
    assert [(one["name"], one["state"], one["lab"]) for one in shown(site, "ca", "list")["items"]] == [
        ("issuing", "active", False),
        ("root", "offline", False),
    ]
    site("cert", "issue", "--profile", "server", "--name", "a.internal", "--out", "a")
    verify(site, "a", "-purpose", "sslserver")
    held = shown(site, "ceremony", "list")["items"]
    assert [one["title"] for one in held] == ["Ceremony of root"]
    assert "certify-root" in site("ceremony", "show", held[0]["id"], "--script").stdout
    assert "2 certificates and 1 CRL." in site("ceremony", "show", held[0]["id"]).stdout
    assert '"rootward-transcript"' in site("ceremony", "show", held[0]["id"], "--transcript").stdout
    assert [one["name"] for one in shown(site, "ceremony", "participants")["items"]] == ["Anna", "Ben"]
    assert "must stay" in said(site("ceremony", "participants", "--forget", "Ben", code=1))
    again = site("ceremony", "import", site.folder / "first.result.json", code=1)
    assert "taken in before" in said(again)


@pytest.mark.slow
@pytest.mark.invariant("I-22", "I-37")
def test_a_second_authority_comes_and_is_revoked_in_ceremonies(site: Site) -> None:
    (site.folder / "spec.yaml").write_text(SPEC)
    site("ca", "create", "constrained", "--parent", "root", "--spec", "spec.yaml")
    assert "is there already" in said(site("ca", "request", "constrained", code=1))
    first = (site.folder / "constrained-request.json").read_bytes()
    site("ca", "request", "constrained", "--out", "again.json")
    assert (site.folder / "again.json").read_bytes() == first
    waits = shown(site, "ceremony", "requests")["items"]
    assert [(one["kind"], one["authority"], one["subject"]) for one in waits] == [("certify", "root", "constrained")]
    under = ("--under", "root=home/root.pem", "--folder", "root-key")
    result = site.hold(site.plan("second", *under, "--request", "constrained-request.json"))
    site("ceremony", "import", result)
    profile = site("profile", "show", "server", "--yaml").stdout.replace("issuing", "constrained")
    (site.folder / "profile.yaml").write_text(profile.replace("name: server", "name: inside"))
    site("profile", "create", "profile.yaml")
    site("cert", "issue", "--profile", "inside", "--name", "b.internal", "--out", "b")
    verify(site, "b")
    outside = site("cert", "issue", "--profile", "inside", "--name", "b.test", "--out", "c", code=1)
    assert "RW-NAME-CONSTRAINED" in said(outside)
    # Its certificate is revoked: here at once, for others with the root's next CRL.
    wanted = ("ca", "revoke", "constrained", "--reason", "cessationOfOperation")
    assert "rootward request approve" in said(site(*wanted, code=3))
    waiting = shown(site, "request", "list")["proposals"]
    site("request", "approve", next(one["id"] for one in waiting if one.get("kind") == "ca.revoke"))
    assert "constrained is retired" in said(site(*wanted))
    refused = site("cert", "issue", "--profile", "inside", "--name", "d.internal", "--out", "d", code=1)
    assert "RW-FROZEN" in said(refused)
    before = ("-crl_check_all", "-CRLfile", crl(site, "root"), "-CRLfile", crl(site, "constrained"))
    verify(site, "b", *before)
    asked = next(one for one in shown(site, "ceremony", "requests")["items"] if one["kind"] == "crl")
    site("ceremony", "request", asked["id"], "--out", "crl-request.json")
    assert site.server is not None
    forgetful = site.hold(site.plan("forgetful", *under, "--crl", "--pki-url", site.server.pki))
    assert "which is revoked here" in said(site("ceremony", "import", forgetful, code=1))
    site("ceremony", "import", site.hold(site.plan("third", *under, "--request", "crl-request.json")))
    after = ("-crl_check_all", "-CRLfile", crl(site, "root"), "-CRLfile", crl(site, "constrained"))
    assert "certificate revoked" in verify(site, "b", *after, code=2)
    assert shown(site, "ceremony", "requests")["items"] == []


@pytest.mark.slow
def test_one_witness_is_not_enough_and_what_was_changed_is_found(site: Site) -> None:
    site("ca", "create", "lonely", "--parent", "root")
    under = ("--under", "root=home/root.pem", "--folder", "root-key")
    script = site.plan("lonely", *under, "--request", "lonely-request.json")
    assert "2 are needed" in said(site("ceremony", "import", site.hold(script, signers=("Anna",)), code=1))
    good = site.hold(script)
    changed = site.folder / "changed.json"
    changed.write_bytes(good.read_bytes().replace(b'"lonely"', b'"lonelx"', 1))
    assert "RW-CEREMONY" in said(site("ceremony", "import", changed, code=1))
    site("ca", "withdraw", "lonely")
    assert "withdrawn" in said(site("ceremony", "import", good, code=1))
    assert "no such authority" in said(site("ca", "show", "lonely", code=1)).lower()


@pytest.mark.slow
def test_somebody_elses_root_certifies(site: Site) -> None:
    folder = site.folder / "theirs"
    folder.mkdir()
    make = (
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "3650",
    )
    run(
        *make, "-subj", "/O=Corp/CN=Corp Root", "-keyout", "root.key", "-out", "root.pem",
        "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign", cwd=folder,
    )  # fmt: skip
    site("ca", "create", "bridge", "--external", "--out", "theirs/bridge.csr", "--org", "Example", "--cn", "Bridge CA")
    said_csr = run("openssl", "req", "-in", "bridge.csr", "-noout", "-verify", "-subject", cwd=folder)
    assert "Bridge CA" in said(said_csr)

    def sign(name: str, *extensions: str, subject: tuple[str, ...] = ()) -> Path:
        (folder / "ext.cnf").write_text("\n".join(extensions) + "\n")
        run(
            "openssl", "x509", "-req", "-in", "bridge.csr", "-CA", "root.pem", "-CAkey", "root.key", "-days", "1000",
            "-extfile", "ext.cnf", "-out", f"{name}.pem", *subject, cwd=folder,
        )  # fmt: skip
        chain = folder / f"{name}-chain.pem"
        chain.write_text((folder / f"{name}.pem").read_text() + (folder / "root.pem").read_text())
        return chain

    good = ("basicConstraints=critical,CA:TRUE,pathlen:0", "keyUsage=critical,keyCertSign,cRLSign")
    keyed = (*good, "subjectKeyIdentifier=hash", "authorityKeyIdentifier=keyid")
    install = ("ca", "install", "bridge")
    for name, extensions, why in (
        ("no-ca", ("basicConstraints=critical,CA:FALSE", keyed[1]), "is no CA certificate"),
        ("deep", ("basicConstraints=critical,CA:TRUE,pathlen:3", *keyed[1:]), "Its path length is 3"),
        ("narrow", (*keyed, "nameConstraints=critical,permitted;DNS:x.test"), "name constraints"),
        ("usage", (good[0], "keyUsage=critical,keyCertSign", *keyed[2:]), "key usage"),
    ):
        refused = said(site(*install, sign(name, *extensions), "--parent-name", "corp", code=1))
        assert why in refused, refused
        assert "RW-CERTIFICATE" in refused
    chain = sign("right", *keyed)
    assert "is new here" in said(site(*install, chain, code=1))
    assert "certificate" in said(site(*install, folder / "root.key", "--parent-name", "corp", code=1))
    assert "root" in said(site(*install, folder / "right.pem", "--parent-name", "corp", code=1))
    assert "is active" in said(site(*install, chain, "--parent-name", "corp"))
    listed = {one["name"]: one for one in shown(site, "ca", "list")["items"]}
    assert (listed["corp"]["kind"], listed["corp"]["external"], listed["bridge"]["parent"]) == ("root", True, "corp")
    profile = site("profile", "show", "server", "--yaml").stdout.replace("issuing", "bridge")
    (site.folder / "bridge.yaml").write_text(profile.replace("name: server", "name: bridged"))
    site("profile", "create", "bridge.yaml")
    site("cert", "issue", "--profile", "bridged", "--name", "e.internal", "--out", "e")
    verify(site, "e", "-purpose", "sslserver", root=folder / "root.pem")
    assert "ask them to revoke it" in said(site("ca", "revoke", "bridge", code=1))
    assert "waits for a certificate" in said(site(*install, chain, code=1))


@pytest.mark.slow
def test_somebody_elses_root_founds_an_empty_home(tmp_path: Path) -> None:
    first = Site(tmp_path)
    first.init()
    run(
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650"),
        *("-subj", "/CN=Corp Root", "-keyout", "corp.key", "-out", "corp.pem"),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        cwd=tmp_path,
    )
    lines = ("basicConstraints=critical,CA:TRUE,pathlen:0", "keyUsage=critical,keyCertSign,cRLSign")
    (tmp_path / "ext.cnf").write_text("\n".join((*lines, "subjectKeyIdentifier=hash", "authorityKeyIdentifier=keyid")))
    first("ca", "create", "issuing", "--external")
    sign = ("openssl", "x509", "-req", "-in", "issuing-csr.pem", "-CA", "corp.pem", "-CAkey", "corp.key")
    run(*sign, "-days", "900", "-extfile", "ext.cnf", "-out", "issuing.pem", cwd=tmp_path)
    (tmp_path / "chain.pem").write_text((tmp_path / "issuing.pem").read_text() + (tmp_path / "corp.pem").read_text())
    told = said(first("ca", "install", "issuing", "chain.pem", "--parent-name", "corp"))
    assert "is founded" in told
    with first.serving():
        first("cert", "issue", "--profile", "server", "--name", "a.internal", "--out", "a")
        verify(first, "a", root=tmp_path / "corp.pem")


@pytest.mark.slow
@pytest.mark.invariant("I-36")
def test_a_single_tier_lab_says_so_everywhere_and_stays_one(tmp_path: Path) -> None:
    lab = Site(tmp_path)
    lab.init("--single-tier")
    with lab.serving() as server:
        assert "SINGLE-TIER LAB" in server.output
        (only,) = shown(lab, "ca", "list")["items"]
        assert (only["name"], only["kind"], only["state"], only["lab"]) == ("root", "root", "active", True)
        assert "root (lab)" in lab("ca", "list").stdout
        assert "single-tier lab" in lab("ca", "show", "root").stdout
        assert "single-tier" in said(lab("doctor"))
        lab("cert", "issue", "--profile", "server", "--name", "a.internal", "--out", "a")
        verify(lab, "a")
        text = run("openssl", "x509", "-in", tmp_path / "a" / "cert.pem", "-noout", "-text").stdout
        assert "2.25.263865961453661437771894427292656117079" in text
        assert "single-tier lab" in said(lab("ca", "create", "more", "--parent", "root", code=1))
        assert "single-tier lab" in said(lab("ca", "create", "more", "--external", code=1))
        result = tmp_path / "result.json"
        result.write_text("{}")
        assert "RW-CEREMONY" in said(lab("ceremony", "import", result, code=1))
