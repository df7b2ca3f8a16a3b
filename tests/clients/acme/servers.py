"""Web servers that get their certificates themselves, on ports of their own, while a block runs."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.clients.acme.world import World
from tests.support.programs import SECONDS, environment, run

CADDYFILE = """\
{{
    admin off
    auto_https disable_redirects
    http_port {http}
    https_port {https}
    default_bind 127.0.0.1
    storage file_system {folder}/storage
}}
{name} {{
    tls {{
        issuer acme {{
            dir {directory}
            trusted_roots {root}
            {option}
        }}
    }}
    respond "hello from {name}"
}}
"""
MODULES = Path("/usr/lib/apache2/modules")
HTTPD = """\
ServerRoot {folder}
PidFile {folder}/httpd.pid
Mutex file:{folder} default
ErrorLog {folder}/error.log
LogLevel md:info
ServerName {name}
Listen 127.0.0.1:{http}
Listen 127.0.0.1:{https}
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule dir_module {modules}/mod_dir.so
LoadModule socache_shmcb_module {modules}/mod_socache_shmcb.so
LoadModule ssl_module {modules}/mod_ssl.so
LoadModule md_module {modules}/mod_md.so

MDCertificateAuthority {directory}
MDCACertificateFile {root}
MDCertificateAgreement accepted
MDContactEmail admin@{name}
MDPortMap 80:{http} 443:{https}
MDRetryDelay 1s
MDomain {name}

<VirtualHost 127.0.0.1:{https}>
    ServerName {name}
    SSLEngine on
    DocumentRoot {folder}/www
    <Directory {folder}/www>
        Require all granted
    </Directory>
</VirtualHost>
"""


@contextlib.contextmanager
def caddy(world: World, folder: Path, name: str, option: str = "") -> Iterator[None]:
    """Caddy with one site; `option` is one more line for its ACME client."""
    ports = {"http": world.http01_port, "https": world.tls_alpn01_port}
    config = folder / "Caddyfile"
    config.write_text(
        CADDYFILE.format(folder=folder, name=name, option=option, directory=world.directory(), root=world.root, **ports)
    )
    with started(["caddy", "run", "--config", str(config)], folder, {"HOME": str(folder)}):
        yield


@contextlib.contextmanager
def apache(world: World, name: str) -> Iterator[Path]:
    """Apache with mod_md and one site, as a user without rights. Gives its folder, `md/` in it is mod_md's store."""
    folder = Path(tempfile.mkdtemp(prefix="rootward-apache-"))
    try:
        ports = {"http": world.http01_port, "https": world.tls_alpn01_port}
        (folder / "www").mkdir()
        (folder / "www" / "index.html").write_text(f"hello from {name}")
        (folder / "httpd.conf").write_text(
            HTTPD.format(
                folder=folder,
                name=name,
                modules=MODULES,
                directory=world.directory(),
                root=shutil.copy(world.root, folder),
                **ports,
            )
        )
        command = ["apache2", "-f", str(folder / "httpd.conf"), "-DFOREGROUND"]
        if os.geteuid() == 0:  # Apache serves as nobody's root, and what it makes must be its own
            user = pwd.getpwnam("www-data")
            for path in (folder, *folder.rglob("*")):
                os.chown(path, user.pw_uid, user.pw_gid)
            command = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", *command]
        with started(command, folder, {"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin"}):
            yield folder
    finally:
        shutil.rmtree(folder)


def reload_apache(folder: Path) -> None:
    """What `apachectl graceful` does: mod_md then takes the certificate that it got."""
    os.kill(int((folder / "httpd.pid").read_text()), signal.SIGUSR1)


@contextlib.contextmanager
def started(command: list[str], folder: Path, environ: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A server in the foreground; what it says goes to `said.log` in its folder."""
    with (folder / "said.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, env=environment(environ)
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(SECONDS)


def visit(world: World, name: str) -> str | None:
    """What the server of that name says over TLS that our root vouches for; None as long as there is no such server."""
    address = f"{name}:{world.tls_alpn01_port}"
    trust = ("--cacert", world.root, "--capath", "/nonexistent", "--resolve", f"{address}:127.0.0.1")
    done = run("curl", "-sS", *trust, f"https://{address}/", codes=None)
    return done.stdout if done.returncode == 0 else None
