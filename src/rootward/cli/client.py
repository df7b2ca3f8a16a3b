"""The REST door's client: one request after the other, every answer either a body or a `Failure` that people can
read.
"""

from __future__ import annotations

import ipaddress
import json
import shlex
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx

from rootward.cli.connection import Connection
from rootward.cli.failure import UNREACHABLE, Failure, of_body, sentence

PAGE = 500
MAX_BODY = 64 * 1024 * 1024  # bytes of one answer; more is no answer of ours
_OTHER_NAMES = frozenset({62, 63, 64})  # X509_V_ERR_HOSTNAME_MISMATCH, EMAIL_MISMATCH, IP_ADDRESS_MISMATCH
_TIMEOUT = httpx.Timeout(60, connect=10)


class Answer:
    """A body as it came, and what it says."""

    def __init__(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.status = status
        self.body = body
        self.headers = headers
        self.value: Any = json.loads(body) if body else None


class Client:
    """Talks to one server, and follows no redirects. Failure, exit 4, where it cannot be reached or does not prove
    who it is.
    """

    def __init__(self, connection: Connection) -> None:
        self._url = connection.url
        self._ca_file = connection.ca_file
        self._connection = connection
        self._http = httpx.Client(
            verify=_context(connection.ca_file),
            headers={"authorization": f"Bearer {connection.token}", "accept": "application/json"},
            timeout=_TIMEOUT,
            # a proxy from the environment cannot reach this machine's own loopback
            trust_env=not is_loopback(urlsplit(connection.url).hostname or ""),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, path: str, query: Mapping[str, str | None] | None = None) -> Answer:
        return self._request("GET", path, query=query)

    def post(self, path: str, body: object, *, idempotency_key: str | None = None) -> Answer:
        """Send JSON; under an idempotency key the server does it once, however often it is sent."""
        headers = {} if idempotency_key is None else {"idempotency-key": idempotency_key}
        return self._request("POST", path, body=body, headers=headers)

    def put(self, path: str, body: object) -> Answer:
        return self._request("PUT", path, body=body)

    def delete(self, path: str) -> Answer:
        return self._request("DELETE", path)

    def pages(self, path: str, query: Mapping[str, str | None], *, limit: int | None) -> dict[str, Any]:
        """All items of a list, or the first `limit`, as one page: `{"items": […], "next_cursor": … or None}`."""
        items: list[Any] = []
        cursor: str | None = None
        while True:
            size = PAGE if limit is None else min(PAGE, limit - len(items))
            page = self.get(path, {**query, "limit": str(size), "cursor": cursor}).value
            if not isinstance(page, dict) or not isinstance(page.get("items"), list):
                raise self._strange(path)
            items += page["items"]
            cursor = page.get("next_cursor")
            if cursor is None or not page["items"] or (limit is not None and len(items) >= limit):
                return {"items": items, "next_cursor": cursor}

    def lines(self, path: str) -> Iterator[bytes]:
        """A long answer in pieces, as they come."""
        with self._guarded(), self._http.stream("GET", self._address(path)) as response:
            if response.status_code != 200:
                raise self._refused(response.status_code, response.read(), response.headers)
            yield from response.iter_bytes()

    def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | None] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        params = {name: value for name, value in (query or {}).items() if value is not None}
        content = None if body is None else json.dumps(body).encode()
        kind = {} if content is None else {"content-type": "application/json"}
        with self._guarded():
            response = self._http.request(
                method, self._address(path), params=params, content=content, headers={**kind, **(headers or {})}
            )
        if len(response.content) > MAX_BODY:
            raise self._strange(path)
        if not 200 <= response.status_code < 300:
            raise self._refused(response.status_code, response.content, response.headers)
        try:
            return Answer(response.status_code, response.content, response.headers)
        except ValueError:
            raise self._strange(path) from None

    def _address(self, path: str) -> str:
        return self._url + path

    def _refused(self, status: int, body: bytes, headers: Mapping[str, str]) -> Failure:
        try:
            problem = json.loads(body)
        except ValueError:
            problem = None
        if not isinstance(problem, dict) or "status" not in problem:
            return self._strange(f"a status of {status}")
        failure = of_body(status, problem, body=body, retry_after=headers.get("retry-after"))
        if status == 401:
            failure.next = _other_token(self._connection)
        return failure

    def _strange(self, what: str) -> Failure:
        return Failure(
            f"{self._url} does not answer as a Rootward server does.",
            f"What came for {what} is not what it sends.",
            next="Look at the address: --url, ROOTWARD_URL, or external_url in rootward.toml.",
        )

    def _guarded(self) -> _Guard:
        return _Guard(self._url, self._ca_file)


class _Guard:
    """Turns what can go wrong on the way into a Failure with exit code 4."""

    def __init__(self, url: str, ca_file: Path | None) -> None:
        self._url = url
        self._ca_file = ca_file

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, httpx.TransportError):
            return
        tls = _cause(error, ssl.SSLError)
        if isinstance(tls, ssl.SSLCertVerificationError) and tls.verify_code in _OTHER_NAMES:
            raise Failure(
                f"The server at {self._url} does not prove who it is.",
                sentence(f"Its certificate is not accepted: {tls.verify_message}"),
                next="The certificate is for other names: use --url with one of them. hosts in the server's "
                "rootward.toml lists them.",
                exit=UNREACHABLE,
            ) from error
        if isinstance(tls, ssl.SSLCertVerificationError):
            raise Failure(
                f"The server at {self._url} does not prove who it is.",
                sentence(f"Its certificate is not accepted: {tls.verify_message}"),
                f"The root that was used: {_root(self._ca_file)}.",
                next="Name the root of this server with --ca-file or ROOTWARD_CA_FILE, and compare its fingerprint.",
                exit=UNREACHABLE,
            ) from error
        if isinstance(error, httpx.TimeoutException):
            why = "It does not answer in time."
        elif tls is not None:
            why = sentence(f"The TLS handshake failed: {tls.reason or tls}")
        else:
            found = _cause(error, OSError)
            why = sentence(getattr(found, "strerror", None) or found or error)
        raise Failure(
            f"The server at {self._url} is not reachable.",
            why,
            next="See that it runs (rootward quickstart, or rootward serve), and that --url names it.",
            exit=UNREACHABLE,
        ) from error


def _cause(error: BaseException | None, kind: type[BaseException]) -> Any:
    """The first of this kind among the exception and what caused it."""
    for _ in range(10):
        if error is None or isinstance(error, kind):
            return error
        error = error.__cause__ or error.__context__
    return None


def _other_token(connection: Connection) -> str:
    """What to do about a token that is not taken."""
    text = f"The token in {connection.token_file} is not taken: name another one with --token-file."
    if connection.home is not None:
        text += (
            f" Who owns the home makes a new one: rootward access recover --home {shlex.quote(str(connection.home))}"
        )
    return text


def _root(ca_file: Path | None) -> str:
    if ca_file is None:
        return "those of the system's trust store"
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    try:
        certificates = x509.load_pem_x509_certificates(ca_file.read_bytes())
    except ValueError:
        return f"{ca_file}, which cannot be read"
    prints = ", ".join(certificate.fingerprint(hashes.SHA256()).hex() for certificate in certificates[:3])
    return f"{ca_file}, SHA-256 {prints}"


def _context(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except (ssl.SSLError, OSError) as error:
        raise Failure(f"{ca_file} holds no certificate that can be trusted.", sentence(error), exit=2) from error


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself, as far as its name or address tells."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def segment(text: str) -> str:
    """One part of a path, whatever is in it."""
    return quote(text, safe="")
