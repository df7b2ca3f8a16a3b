"""What the server tells its operators: log lines, the request id that ties them together, and metrics. Imports core
only.

A log line is `noun.verb key=value`; `LINES` lists every one. A request's id is made at the edge, never taken from
outside, and goes by context variable into every log line and event that the request causes. Secrets never get in:
values are redacted by type (bytes) and by the name of their key. Metrics are Prometheus objects in one registry of our
own, all in `METRICS` below.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections.abc import MutableMapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Final, TextIO

import structlog
from prometheus_client import REGISTRY, Counter, Gauge, Histogram

LINES: Final[dict[str, str]] = {
    "server.start": "The server serves now.",
    "server.stop": "The server was asked to stop and finishes what is under way.",
    "server.stopped": "The server has stopped.",
    "acme.chaos": "ACME is in its test mode, which is not for production.",
    "acme.validation-broke": "A try to prove a name ended in a way that nobody foresaw; it is tried again.",
    "acme.validation-unwritten": "The end of a try to prove a name could not be written; it is tried again.",
    "http.request": "A request was answered (CRL, OCSP and issuers: at debug, or where it failed).",
    "http.refused": "A request was refused before it reached a door (limits, malformed HTTP).",
    "http.error": "A request failed on our side; the line has the traceback, the answer does not.",
    "connection.refused": "A connection was closed at once: too many, in total or from this address.",
    "connection.stalled": "A connection was cut: its client did not read the answer.",
    "egress.refused": "A target that somebody chose may not be called; `why` says by which rule.",
    "tls.refused": "A TLS handshake failed (foreign client certificate, no common version, ...).",
    "tls.replaced": "New connections get a new server certificate from now on.",
    "job.done": "A background job did its work.",
    "job.lost": "A background job took longer than its lease; another process has it by now.",
    "job.end": "The end of a background job could not be written; its lease runs out by itself.",
    "clock.doubt": "The clock is in doubt, and nothing is issued.",
    "clock.right": "The clock is in doubt no longer.",
    "disk.low": "There is little room left on the disk, and nothing is issued.",
    "disk.room": "There is room on the disk again.",
    "log.first_seen": "This host has seen nothing of the audit log yet, and takes the store's newest head for right.",
    "log.behind": "The audit log in the store does not go on from what this host saw.",
    "log.unsettled": "Events of the last moment wait for the next start to get into the audit log.",
    "ocsp.responder-failed": "An OCSP responder could not be had at the start; the worker goes on trying.",
    "ocsp.store-away": "The count of revocations cannot be read; answers are those of the last reading, then tryLater.",
    "ocsp.store-back": "The count of revocations can be read again.",
    "job.failed": "A background job failed; it is tried again.",
    "issue.orphaned": "An issuance that a dead process left open was closed: it counts as issued and is revoked.",
    "authority.frozen": "An authority stopped issuing.",
    "authority.unfrozen": "An authority issues again.",
    "authority.succeeded": "An authority that was certified by now took the place of a compromised one.",
    "authority.ended": "Nothing that a retired or compromised authority issued is valid any more.",
    "proposal.carried-out": "What two people agreed to was done, such as that an authority is compromised.",
    "import.key-refused": "Somebody uploaded a private key where certificates belong; it was not kept.",
    "acme.private-key": "An ACME client sent a private key where a public one belongs; it was not kept.",
    "clock.behind": "The clock stands behind its last reading.",
    "token.renewed": "The administrator's token in the home was replaced; the old one works for a day more.",
    "own.issued": "The installation issued a certificate to itself (OCSP responder, its own TLS).",
    "crl.failed": "A CRL could not be made at the start; the worker goes on trying.",
    "ca.signed": "The CA of another system was certified, as two people agreed.",
    "authority.begin": "A new authority could not publish its first CRL at once; it is tried again.",
    "authority.cannot-settle": "An authority that waits could not be certified under its parent; it is tried again.",
    "authority.learned": "This process learned of authorities that are new.",
    "authority.settled-elsewhere": "Another process certified an authority that waited.",
    "kek.rewrapped": "Everything is sealed with the new key-encryption key.",
    "key.away": "An authority's key cannot be had now; it is looked for again.",
    "key.destroyed": "An authority's key was destroyed.",
    "roots.replaced": "The home's root.pem has other roots from now on: those that /roots.pem serves.",
    "roots.not-written": "The home's root.pem has not the roots that /roots.pem serves, and cannot be written.",
    "tls.not-renewed": "The server's own certificate could not be renewed at the start; the old one is shown.",
    "token.pin-refused": "A token refused its PIN, and is not tried again until the PIN changes.",
    "crl.published": "A CRL was made and is served from now on.",
    "request.failed": "A request failed on our side; the line has the traceback, the answer only the request's id.",
    "ocsp.refused": "An OCSP request was answered with an error status.",
    "ocsp.lint": "An OCSP answer did not pass its own lints and was not signed.",
    "ocsp.key": "The key of an OCSP responder did not sign.",
    "ocsp.responder-expired": "There is no living OCSP responder certificate.",
    "ocsp.failed": "An OCSP request could not be answered.",
    "signer.refused": "The signer did not sign what it was asked to; its journal has the reason too.",
    "signer.peer": "Somebody who may not ask connected to the signer's socket.",
    "signer.pinned": "What the signer signs under was changed on its host, or could not be read.",
    "signer.journal": "The signer's journal cannot be written, so nothing is signed.",
    "python.log": "A line of a library.",
}

# ── request id ────────────────────────────────────────────────────────────────────────────────────────────────────

request_id: ContextVar[str] = ContextVar("request_id", default="")


def new_request_id() -> str:
    """`req-` and 16 random hex digits."""
    return f"req-{os.urandom(8).hex()}"


# ── log ───────────────────────────────────────────────────────────────────────────────────────────────────────────

_SECRET_KEY = re.compile(r"token|secret|passw|passphrase|authorization|cookie|challenge|hmac|private", re.IGNORECASE)
# Not a secret: what makes a token recognisable, here and to secret scanners.
TOKEN_PREFIX = "rwt_"  # noqa: S105  # as said
_TOKEN = re.compile(TOKEN_PREFIX + r"[A-Za-z0-9_-]{20,}")
_PLAIN = re.compile(r"[A-Za-z0-9_./:@+,-]+", re.ASCII)
_Event = MutableMapping[str, Any]


def configure_logging(form: str, level: str, *, stream: TextIO | None = None) -> None:
    """Sends our lines and libraries' warnings to `stream` (standard error) as `console` or `json`, from `level` on."""
    least = getattr(logging, level.upper())
    before: list[Any] = [
        _bind_request,
        structlog.processors.add_log_level,
        _bind_time,
        structlog.processors.format_exc_info,
        redact,
    ]
    render = _json if form == "json" else _console
    structlog.configure(
        processors=[*before, render],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.WriteLoggerFactory(stream or sys.stderr),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Libraries)]:
        root.removeHandler(handler)
    root.addHandler(_Libraries(logging.WARNING))


def redact(_logger: object, _method: str, event: _Event) -> _Event:
    """Bytes never get into a log, nor does anything whose key sounds like a secret (OpenBao CVE-2025-62513), nor what
    looks like one of our tokens: people put them into paths.
    """
    for key, value in event.items():
        if _sounds_secret(key):
            event[key] = "[redacted]"
        elif isinstance(value, bytes | bytearray | memoryview):
            event[key] = f"[{len(value)} bytes]"
        elif isinstance(value, str) and TOKEN_PREFIX in value:
            event[key] = _TOKEN.sub("[redacted]", value)
    return event


@lru_cache(maxsize=1024)
def _sounds_secret(key: str) -> bool:
    return _SECRET_KEY.search(key) is not None


def _bind_request(_logger: object, _method: str, event: _Event) -> _Event:
    current = request_id.get()
    if current:
        event.setdefault("request_id", current)
    return event


def _bind_time(_logger: object, _method: str, event: _Event) -> _Event:
    second, rest = divmod(time.time_ns(), 1_000_000_000)
    event["timestamp"] = f"{_second(second)}.{rest // 1000:06d}Z"
    return event


@lru_cache(maxsize=4)
def _second(unix: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(unix))


def _json(_logger: object, _method: str, event: _Event) -> str:
    return json.dumps(event, default=str)


def _console(_logger: object, _method: str, event: _Event) -> str:
    head = f"{event.pop('timestamp')} {event.pop('level'):7} {event.pop('event')}"
    trace = event.pop("exception", None)
    fields = "".join(f" {key}={_shown(value)}" for key, value in event.items())
    return head + fields + (f"\n{trace}" if trace else "")


def _shown(value: object) -> str:
    text = str(value)
    # json.dumps leaves ASCII only: control, bidi and terminal sequences come out as escapes
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


class _Libraries(logging.Handler):
    """What libraries log through the standard library comes out as our lines."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger()
        say = log.error if record.levelno >= logging.ERROR else log.warning
        say("python.log", logger=record.name, message=record.getMessage(), exc_info=record.exc_info or None)


# ── metrics ───────────────────────────────────────────────────────────────────────────────────────────────────────

METRICS: Final = REGISTRY  # the library's own, which also counts the process's memory, CPU and file handles

HTTP_REQUESTS = Counter("rootward_http_requests", "Requests answered.", ["door", "status"], registry=METRICS)
HTTP_SECONDS = Histogram(
    "rootward_http_request_seconds",
    "Time from the request's header to the end of the answer.",
    ["door"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
    registry=METRICS,
)
CONNECTIONS = Gauge("rootward_connections", "Open connections.", ["door"], registry=METRICS)
CONNECTIONS_REFUSED = Counter(
    "rootward_connections_refused", "Connections closed at once.", ["door", "cause"], registry=METRICS
)
REQUESTS_RUNNING = Gauge("rootward_requests_running", "Requests under way.", ["door"], registry=METRICS)
TURNS_WAITING = Gauge("rootward_requests_waiting", "API requests that wait for their turn.", registry=METRICS)
LOOP_STALL = Gauge(
    "rootward_loop_stall_seconds", "The longest time in the last minute that nothing else got a turn.", registry=METRICS
)
LOOP_STALLS = Counter("rootward_loop_stalls", "Times that nothing else got a turn for 50 ms.", registry=METRICS)
ISSUANCES = Counter("rootward_issuances", "Issuances, by how they ended.", ["profile", "outcome"], registry=METRICS)
ISSUANCE_SECONDS = Histogram(
    "rootward_issuance_seconds", "Time of an issuance from ask to certificate.", registry=METRICS
)
ACME_VALIDATIONS = Counter(
    "rootward_acme_validations", "Tries to prove a name, by how they ended.", ["challenge", "outcome"], registry=METRICS
)
REVOCATIONS = Counter("rootward_revocations", "Certificates revoked.", registry=METRICS)
OCSP_ANSWERS = Counter("rootward_ocsp_answers", "OCSP answers, by OCSPResponseStatus.", ["status"], registry=METRICS)
CRL_AGE = Gauge(
    "rootward_crl_age_seconds", "Seconds since the current CRL's thisUpdate.", ["authority"], registry=METRICS
)
CRL_REMAINING = Gauge(
    "rootward_crl_remaining_seconds", "Seconds until the current CRL's nextUpdate.", ["authority"], registry=METRICS
)
RESPONDER_REMAINING = Gauge(
    "rootward_responder_remaining_seconds",
    "Seconds until the certificate of this process's OCSP responder ends.",
    ["authority"],
    registry=METRICS,
)
AUTHORITY_REMAINING = Gauge(
    "rootward_authority_remaining_seconds",
    "Seconds until an authority's certificate ends.",
    ["authority"],
    registry=METRICS,
)
CRL_ENTRIES = Gauge("rootward_crl_entries", "Entries of the current CRL.", ["authority"], registry=METRICS)
KEY_FAILURES = Counter("rootward_key_failures", "Times that a key did not sign.", ["authority"], registry=METRICS)
LINT_FAILURES = Counter(
    "rootward_lint_failures",
    "Drafts that did not pass their own lints, and were not signed.",
    ["what"],
    registry=METRICS,
)
STATUS_COMPARED = Counter(
    "rootward_status_compared", "Certificates whose CRL, OCSP and inventory were compared.", registry=METRICS
)
STATUS_MISMATCHES = Counter(
    "rootward_status_mismatches", "Certificates of which they did not agree.", ["authority"], registry=METRICS
)
STORE_UP = Gauge("rootward_store_up", "Whether the store could be read the last time.", registry=METRICS)
STORE_WAITING = Gauge("rootward_store_waiting", "Work that waits for the store.", ["queue"], registry=METRICS)
CLOCK_SKEW = Gauge("rootward_clock_skew_seconds", "This machine's clock minus the database's.", registry=METRICS)
CLOCK_BEHIND = Gauge(
    "rootward_clock_behind_seconds",
    "How far the clock is behind its last reading; 0 where it is not.",
    registry=METRICS,
)
DISK_FREE = Gauge("rootward_disk_free_bytes", "Free bytes where the SQLite database is.", registry=METRICS)
EVENTS_UNSEQUENCED = Gauge(
    "rootward_events_unsequenced", "Events without a place in the audit tree, up to 10,000.", registry=METRICS
)
EVENTS_UNSEQUENCED_AGE = Gauge(
    "rootward_events_unsequenced_age_seconds",
    "Age of the oldest event without a place in the audit tree.",
    registry=METRICS,
)
LOG_SIZE = Gauge("rootward_log_size", "Events in the newest signed head of the audit log.", registry=METRICS)
LOG_FILE_LAG = Gauge(
    "rootward_log_file_lag_events", "How far this host's file of the head is behind the store's.", registry=METRICS
)
HALTED = Gauge("rootward_halted", "For how many reasons nothing is issued.", registry=METRICS)
CHECK = Gauge("rootward_check", "What doctor finds: 0 ok, 1 warning, 2 error.", ["check"], registry=METRICS)
OPEN_INTENT_AGE = Gauge("rootward_open_intent_age_seconds", "Age of the oldest open issuance.", registry=METRICS)
ORPHANED = Gauge("rootward_certificates_orphaned", "Certificates that are orphans.", registry=METRICS)
JOB_LAG = Gauge(
    "rootward_job_lag_seconds",
    "How long a job is due and not done, by the database's clock.",
    ["job"],
    registry=METRICS,
)
LEASES_HELD = Gauge("rootward_leases_held", "Jobs that this process has the lease of.", registry=METRICS)
LEASES_LOST = Counter(
    "rootward_leases_lost", "Jobs whose lease was somebody else's before they were done.", ["job"], registry=METRICS
)
OPEN_INTENTS = Gauge("rootward_open_intents", "Issuances intended and neither done nor failed.", registry=METRICS)
ORPHANS = Counter("rootward_orphans", "Intents closed as orphan.", registry=METRICS)
TLS_REMAINING = Gauge(
    "rootward_tls_remaining_seconds", "Seconds until the server's own certificate ends.", registry=METRICS
)
JOB_RUNS = Counter("rootward_job_runs", "Runs of background jobs.", ["job", "outcome"], registry=METRICS)
JOB_LAST = Gauge(
    "rootward_job_last_success_timestamp_seconds", "When a background job last succeeded.", ["job"], registry=METRICS
)
