"""Configurations of other people's ACME clients: text from a few facts, without a server.

Each works as pasted on a host that listens on port 80 for the names, once the words in capitals have been replaced.
They are written for Debian's and Ubuntu's places of files. Keys are P-256; where a client renews by days of its own, it
gets a third of the certificate's life.
"""

from __future__ import annotations

import json
import shlex
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

KID, HMAC_KEY = "KID", "HMAC_KEY"  # what stands for a key of external account binding


@dataclass(frozen=True, slots=True)
class Facts:
    """What a snippet says of the server and the host. `root` is the path of root.pem on the client's host, None where
    the system's store is meant; `anchors` is that file in PEM, or empty. `days` is the certificate's life, 0 for less
    than one.
    """

    directory: str
    names: tuple[str, ...]
    root: str | None
    anchors: bytes
    bound: bool
    days: int

    @property
    def first(self) -> str:
        return self.names[0]

    @property
    def third(self) -> int:
        return self.days // 3

    def domains(self) -> str:
        return " ".join(f"-d {name}" for name in self.names)

    def trust(self, variable: str) -> list[str]:
        """The line for a shell that makes a program trust the root."""
        return [f"export {variable}={shlex.quote(self.root)}"] if self.root else []


@dataclass(frozen=True, slots=True)
class Snippet:
    """`title` says what it is for, `proof` is how it proves names, `tested` whether a test of ours runs it."""

    title: str
    lines: Callable[[Facts], Iterator[str]]
    tested: bool = False
    proof: str = "http-01"


def render(client: str, facts: Facts) -> str:
    """The whole text, with a newline at its end."""
    snippet = SNIPPETS[client]
    head = [f"# {snippet.title}", "# Tested here." if snippet.tested else "# Not tested here."]
    if facts.bound:
        head.append(f"# {KID} and {HMAC_KEY}: from rootward acme eab create, with the names they are shown by.")
    return "\n".join([*head, *snippet.lines(facts)]) + "\n"


def _certbot(facts: Facts) -> Iterator[str]:
    yield from facts.trust("REQUESTS_CA_BUNDLE")
    yield from _certonly(facts, "--standalone")
    yield from _timer(facts)


def _nginx(facts: Facts) -> Iterator[str]:
    names, live = " ".join(facts.names), f"/etc/letsencrypt/live/{facts.first}"
    yield "mkdir -p /var/www/acme"
    yield f"cat >/etc/nginx/conf.d/{facts.first}.conf <<'END'"
    yield from _server(names, "80", "location /.well-known/acme-challenge/ { root /var/www/acme; }")
    yield "END"
    yield "nginx -s reload"
    yield from facts.trust("REQUESTS_CA_BUNDLE")
    yield from _certonly(facts, "--webroot -w /var/www/acme", "--deploy-hook 'nginx -s reload'")
    yield f"cat >/etc/nginx/conf.d/{facts.first}-tls.conf <<'END'"
    yield from _server(
        names,
        "443 ssl",
        f"ssl_certificate {live}/fullchain.pem;",
        f"ssl_certificate_key {live}/privkey.pem;",
        "root /var/www/html;",
    )
    yield "END"
    yield "nginx -s reload"
    yield from _timer(facts)


def _server(names: str, port: str, *lines: str) -> Iterator[str]:
    yield "server {"
    yield f"    listen {port};"
    yield f"    listen [::]:{port};"
    yield f"    server_name {names};"
    for line in lines:
        yield f"    {line}"
    yield "}"


def _certonly(facts: Facts, *how: str) -> Iterator[str]:
    binding = [f"--eab-kid {KID} --eab-hmac-key {HMAC_KEY}"] if facts.bound else []
    yield _command(
        "certbot certonly --non-interactive --agree-tos --register-unsafely-without-email",
        f"--server {facts.directory}",
        *binding,
        *how,
        f"--cert-name {facts.first} {facts.domains()}",
    )


def _timer(facts: Facts) -> Iterator[str]:
    if facts.root:
        yield "# The timer that renews has to trust the root as well:"
        yield "mkdir -p /etc/systemd/system/certbot.service.d"
        setting = shlex.quote(f'Environment="REQUESTS_CA_BUNDLE={facts.root}"')
        yield f"printf '[Service]\\n%s\\n' {setting} >/etc/systemd/system/certbot.service.d/root.conf"
        yield "if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi"


def _lego(facts: Facts) -> Iterator[str]:
    account = f"--server {facts.directory} --accept-tos --email root@{facts.first} --path /etc/lego"
    binding = [f"--eab --kid {KID} --hmac {HMAC_KEY}"] if facts.bound else []
    # lego 4 does nothing without --eab where the directory asks for one; with an account it needs no key
    again = "--eab " if facts.bound else ""
    yield from facts.trust("LEGO_CA_CERTIFICATES")
    yield _command(f"lego {account}", *binding, f"--http {facts.domains()} run")
    yield "# Renews what is due, once a day:"
    yield f"cat >/etc/cron.daily/lego-{facts.first.replace('.', '-')} <<'END'"
    yield "#!/bin/sh"
    yield from facts.trust("LEGO_CA_CERTIFICATES")
    yield _command(f"lego {account}", f"{again}--http {facts.domains()} renew --days {facts.third}")
    yield "END"
    yield f"chmod +x /etc/cron.daily/lego-{facts.first.replace('.', '-')}"


def _caddy(facts: Facts) -> Iterator[str]:
    yield f"{', '.join(facts.names)} {{"
    yield "    tls {"
    yield f"        ca {facts.directory}"
    if facts.root:
        yield f"        ca_root {json.dumps(facts.root)}"
    if facts.bound:
        yield f"        eab {KID} {HMAC_KEY}"
    yield "    }"
    yield "    root * /var/www/html"
    yield "    file_server"
    yield "}"


def _apache(facts: Facts) -> Iterator[str]:
    yield f"cat >/etc/apache2/sites-available/{facts.first}.conf <<'END'"
    yield f"MDCertificateAuthority {facts.directory}"
    if facts.root:
        yield f"MDCACertificateFile {json.dumps(facts.root)}"
    yield "MDCertificateAgreement accepted"
    yield f"MDContactEmail root@{facts.first}"
    yield "MDPrivateKeys secp256r1"
    if facts.bound:
        yield f"MDExternalAccountBinding {KID} {HMAC_KEY}"
    yield f"MDomain {' '.join(facts.names)}"
    yield "<VirtualHost *:443>"
    yield f"    ServerName {facts.first}"
    if facts.names[1:]:
        yield f"    ServerAlias {' '.join(facts.names[1:])}"
    yield "    DocumentRoot /var/www/html"
    yield "    SSLEngine on"
    yield "</VirtualHost>"
    yield "END"
    yield "# A certificate is taken at a reload: once a day."
    yield "cat >/etc/cron.daily/apache2-certificates <<'END'"
    yield "#!/bin/sh"
    yield "exec apachectl graceful"
    yield "END"
    yield "chmod +x /etc/cron.daily/apache2-certificates"
    yield "a2enmod -q md ssl"
    yield f"a2ensite -q {facts.first}"
    yield "# A full restart: mod_md does nothing after the reload that first loads it."
    yield "service apache2 restart"


def _traefik(facts: Facts) -> Iterator[str]:
    yield "# /etc/traefik/traefik.yml"
    if facts.root:
        yield f"# Traefik trusts the root by its environment: LEGO_CA_CERTIFICATES={facts.root}"
    yield "entryPoints:"
    yield '  web: {address: ":80"}'
    yield '  websecure: {address: ":443"}'
    yield "providers:"
    yield "  file: {filename: /etc/traefik/sites.yml}"
    yield "certificatesResolvers:"
    yield "  rootward:"
    yield "    acme:"
    yield f"      caServer: {json.dumps(facts.directory)}"
    yield f"      email: root@{facts.first}"
    yield "      storage: /etc/traefik/acme.json"
    yield "      keyType: EC256"
    yield f"      certificatesDuration: {max(24, facts.days * 24)}"
    if facts.bound:
        yield f"      eab: {{kid: {KID}, hmacEncoded: {HMAC_KEY}}}"
    yield "      httpChallenge: {entryPoint: web}"
    yield "---"
    yield "# /etc/traefik/sites.yml"
    yield "http:"
    yield "  routers:"
    yield "    site:"
    rule = " || ".join(f"Host(`{name}`)" for name in facts.names)
    yield f'      rule: "{rule}"'
    yield "      entryPoints: [websecure]"
    yield "      service: site"
    yield "      tls:"
    yield "        certResolver: rootward"
    yield f"        domains: [{{main: {facts.first}, sans: {json.dumps(list(facts.names[1:]))}}}]"
    yield "  services:"
    yield '    site: {loadBalancer: {servers: [{url: "http://127.0.0.1:8080"}]}}'


def _cert_manager(facts: Facts) -> Iterator[str]:
    if facts.bound:
        yield "apiVersion: v1"
        yield "kind: Secret"
        yield "metadata: {name: rootward-eab, namespace: cert-manager}"
        yield f"stringData: {{hmac: {HMAC_KEY}}}"
        yield "---"
    yield "apiVersion: cert-manager.io/v1"
    yield "kind: ClusterIssuer"
    yield "metadata: {name: rootward}"
    yield "spec:"
    yield "  acme:"
    yield f"    server: {json.dumps(facts.directory)}"
    if facts.anchors:
        yield f"    caBundle: {b64encode(facts.anchors).decode()}"
    yield "    privateKeySecretRef: {name: rootward-account}"
    if facts.bound:
        yield f"    externalAccountBinding: {{keyID: {KID}, keySecretRef: {{name: rootward-eab, key: hmac}}}}"
    yield "    solvers:"
    yield "      - http01: {ingress: {ingressClassName: nginx}}"
    yield "---"
    yield "apiVersion: cert-manager.io/v1"
    yield "kind: Certificate"
    yield f"metadata: {{name: {json.dumps(facts.first)}}}"
    yield "spec:"
    yield f"  secretName: {json.dumps(facts.first + '-tls')}"
    yield f"  dnsNames: {json.dumps(list(facts.names))}"
    yield "  privateKey: {algorithm: ECDSA, size: 256, rotationPolicy: Always}"
    yield "  issuerRef: {name: rootward, kind: ClusterIssuer}"


def _acme_sh(facts: Facts) -> Iterator[str]:
    server = f"--server {facts.directory}"
    if facts.root:
        server += f" --ca-bundle {shlex.quote(facts.root)}"
    binding = [f"--eab-kid {KID} --eab-hmac-key {HMAC_KEY}"] if facts.bound else []
    folder = f"/etc/ssl/{facts.first}"
    yield _command(f"acme.sh --register-account {server}", *binding)
    yield _command(
        f"acme.sh --issue --standalone {server}",
        f"--keylength ec-256 --days {max(1, facts.days - facts.third)} {facts.domains()}",
    )
    yield f"mkdir -p {folder}"
    yield _command(
        f"acme.sh --install-cert --ecc -d {facts.first}",
        f"--key-file {folder}/key.pem --fullchain-file {folder}/fullchain.pem",
    )


def _command(*parts: str) -> str:
    """One command of a shell, in lines of its parts."""
    return " \\\n    ".join(parts)


SNIPPETS: Final[dict[str, Snippet]] = {
    "certbot": Snippet("certbot, as root, while nothing else listens on port 80.", _certbot, tested=True),
    "lego": Snippet("lego, as root, while nothing else listens on port 80.", _lego, tested=True),
    "caddy": Snippet("Caddy: a site for the Caddyfile.", _caddy, tested=True),
    "nginx": Snippet("nginx, with certbot for its certificate, as root.", _nginx, tested=True),
    "apache": Snippet("Apache with mod_md, as root; it has to listen on port 80 as well.", _apache, tested=True),
    "traefik": Snippet("Traefik: two files.", _traefik),
    "cert-manager": Snippet("cert-manager, for kubectl apply -f; its Ingress controller is nginx.", _cert_manager),
    "acme.sh": Snippet("acme.sh, as root, while nothing else listens on port 80 (it needs socat).", _acme_sh),
}
