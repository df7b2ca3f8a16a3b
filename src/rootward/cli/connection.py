"""Where the server is, who asks, and which root proves it: each from its flag, else the environment, else the home.

The home is `--home`, ROOTWARD_HOME or `./var`. From it come the address (`rootward.toml`), the token (`admin.token`)
and the trust anchor (`root.pem`); where there is no home, the system's own trust store decides.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from rootward.cli.failure import USAGE, Failure


@dataclass(frozen=True, slots=True)
class Flags:
    """What was said on the command line; None where nothing was. `json` asks for the server's own answer."""

    url: str | None = None
    token_file: Path | None = None
    ca_file: Path | None = None
    home: Path | None = None
    json: bool = False

    def over(self, outer: Flags | None) -> Flags:
        """These, and those given before the noun where these say nothing."""
        if outer is None:
            return self
        return Flags(
            self.url or outer.url,
            self.token_file or outer.token_file,
            self.ca_file or outer.ca_file,
            self.home or outer.home,
            self.json or outer.json,
        )


@dataclass(frozen=True, slots=True)
class Connection:
    """`url` has no slash at its end; `ca_file` is None for the system's store. The token was read from `token_file`;
    `home` is None where there is none.
    """

    url: str
    token: str
    ca_file: Path | None
    token_file: Path
    home: Path | None


def home_of(flags: Flags, environ: Mapping[str, str] = os.environ) -> Path:
    """The home directory, absolute, whether it is there or not."""
    return Path(os.path.abspath(flags.home or environ.get("ROOTWARD_HOME") or "var"))


def ca_file_of(flags: Flags, environ: Mapping[str, str] = os.environ) -> Path | None:
    """The file with the trust anchors, or None where the system's store is meant."""
    given = flags.ca_file or environ.get("ROOTWARD_CA_FILE")
    if given:
        return Path(given)
    own = home_of(flags, environ) / "root.pem"
    return own if own.is_file() else None


def resolve(flags: Flags, environ: Mapping[str, str] = os.environ) -> Connection:
    """The connection that flags, environment and home ask for. Failure (exit 2) where something is missing or wrong."""
    home = home_of(flags, environ)
    url = flags.url or environ.get("ROOTWARD_URL") or _url_of(home)
    ca_file = ca_file_of(flags, environ)
    if ca_file is not None and not ca_file.is_file():
        raise Failure(f"There is no file {ca_file} with the root to trust.", next="Name it with --ca-file.", exit=USAGE)
    url = checked_url(url)
    token_file, token = _token(flags, environ, home, ca_file)
    return Connection(url, token, ca_file, token_file, home if (home / "rootward.toml").is_file() else None)


def checked_url(url: str) -> str:
    """The URL without a slash at its end; Failure (exit 2) unless it is https: a token goes over nothing else."""
    try:
        parts = urlsplit(url)
        right = (
            parts.scheme == "https"
            and bool(parts.hostname)
            and not (parts.query or parts.fragment or "@" in parts.netloc)
        )
        right = right and (parts.port is None or parts.port > 0)
    except ValueError:
        right = False
    if not right:
        raise Failure(
            f"{url} is not the address of a server.",
            "It must begin with https://, for a token is never sent without TLS, and hold no user, query or fragment.",
            next="Name it as in --url https://pki.internal:8443.",
            exit=USAGE,
        )
    return url.rstrip("/")


def _url_of(home: Path) -> str:
    if not (home / "rootward.toml").is_file():
        raise Failure(
            "No server is named.",
            f"There is no --url, no ROOTWARD_URL, and no home at {home} (rootward.toml is not there).",
            next="Name the server with --url, or its home with --home. rootward quickstart makes one.",
            exit=USAGE,
        )
    from rootward.config import address, load_config

    config = load_config(home, {}, {})
    host, port = address(config.listen.https)
    # On the server's own machine its outside name need not resolve.
    return f"https://localhost:{port}" if host == "127.0.0.1" and "localhost" in config.hosts else config.external_url


def _token(flags: Flags, environ: Mapping[str, str], home: Path, ca_file: Path | None) -> tuple[Path, str]:
    named = flags.token_file or environ.get("ROOTWARD_TOKEN_FILE")
    path = Path(named) if named else home / "admin.token"
    if not named and _is_strange(flags, environ, home, ca_file):
        raise Failure(
            "No token is named.",
            f"The server and its root are others than those of {home}, so the token there is not sent to it.",
            next="Name the token with --token-file, or that home with --home.",
            exit=USAGE,
        )
    try:
        token = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        token = ""
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"The token in {path} cannot be read.", f"{type(error).__name__}.", exit=USAGE) from error
    if not named and not token and (home / "rootward.toml").is_file() and not (home / "root.pem").is_file():
        raise Failure(
            f"{home} has no authorities yet, so there is no server and no token.",
            next="rootward ca create asks for the first authority, rootward ceremony import takes it in.",
            exit=USAGE,
        )
    if not token or not token.isprintable() or len(token) > 4096:
        raise Failure(
            f"There is no token in {path}.", next="Name the file with --token-file or ROOTWARD_TOKEN_FILE.", exit=USAGE
        )
    return path, token


def _is_strange(flags: Flags, environ: Mapping[str, str], home: Path, ca_file: Path | None) -> bool:
    """Whether nobody named the home, but both the server and the root that proves it: then they are another
    installation's.
    """
    if flags.home or environ.get("ROOTWARD_HOME") or not (flags.url or environ.get("ROOTWARD_URL")):
        return False
    own = home / "root.pem"
    return ca_file is not None and not (own.is_file() and own.read_bytes().strip() == ca_file.read_bytes().strip())
