"""Bad inputs at the REST door, each with the one answer that it must get: status and code.

The numbers are those of the list of bad inputs, where a line there is meant. `{id}` stands for a
certificate that exists, `{csr}` for a good CSR for a name that the profile `server` allows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

CERTIFICATES = "/api/v1/certificates"
JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Bad:
    """One request that must be refused. `raw` goes out as it is, `body` as JSON."""

    name: str
    method: str
    path: str
    status: int
    code: str
    body: Any = None
    raw: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)


def issue(name: str, status: int, code: str, /, **more: Any) -> Bad:
    """An issuance that is right but for some fields."""
    return Bad(name, "POST", CERTIFICATES, status, code, body={"profile": "server", "csr": "{csr}", **more})


def get(name: str, path: str, status: int = 404, code: str = "RW-NOT-FOUND") -> Bad:
    """A GET below /api/v1."""
    return Bad(name, "GET", "/api/v1" + path, status, code)


def query(name: str, text: str) -> Bad:
    """A list of certificates with a wrong query."""
    return get(name, f"/certificates?{text}", 400, "RW-QUERY")


def raw(name: str, data: bytes, status: int = 400, code: str = "RW-MALFORMED", **headers: str) -> Bad:
    """An issuance whose body is these octets."""
    return Bad(name, "POST", CERTIFICATES, status, code, raw=data, headers=headers)


_UPPER = "0E4B6F2A-1C3D-4E5F-8A9B-0C1D2E3F4A5B"

PATHS = [
    get("288 dot segments", "/certificates/../principals"),
    get("288 dot segment at the end", "/certificates/.."),
    get("288 escaped slash", "/certificates%2f{id}"),
    get("288 escaped letter", "/certificate%73/{id}"),
    get("288 escaped dot segment", "/certificates/%2e%2e/me"),
    get("288 upper-case uuid", f"/certificates/{_UPPER}"),
    get("288 upper-case request id", f"/requests/{_UPPER}"),
    get("288 unicode digits", "/certificates/\u0661\u0662\u0663\u0664".encode().decode("latin-1")),
    get("288 escaped unicode digits", "/certificates/%D9%A1%D9%A2"),
    get("serial of odd length", "/certificates/abc"),
    get("serial that is too long", "/certificates/" + "ab" * 21),
    get("serial with colons", "/certificates/ab:cd"),
    get("281 NUL", "/certificates/%00"),
    get("empty segment", "/certificates//{id}"),
    get("slash at the end", "/certificates/"),
    get("path parameter", "/certificates/{id};a=b"),
    get("very long path", "/certificates/" + "a" * 5_000),
    get("certificate that is not there", "/certificates/00000000-0000-4000-8000-000000000000"),
    get("serial that is not there", "/certificates/00ab"),
    get("profile that is not there", "/profiles/nothing"),
    get("profile with an upper-case name", "/profiles/Server"),
    get("version 0", "/profiles/server/versions/0"),
    get("version that is not there", "/profiles/server/versions/99"),
    get("version beyond any number", "/profiles/server/versions/" + "9" * 40),
    get("event beyond any number", "/events/" + "9" * 40),
    get("resource that does not exist", "/nothing"),
    Bad("other version of the API", "GET", "/api/v2/certificates", 404, "RW-NOT-FOUND"),
    Bad("nothing but /api", "GET", "/api/", 404, "RW-NOT-FOUND"),
    Bad("below the docs", "GET", "/api/docs/x", 404, "RW-NOT-FOUND"),
    Bad("method that a list does not take", "DELETE", CERTIFICATES, 405, "RW-METHOD"),
    Bad("TRACE", "TRACE", CERTIFICATES, 405, "RW-METHOD"),
    Bad("a method nobody knows", "FROB", "/api/v1/me", 405, "RW-METHOD"),
    Bad("lower-case method", "get", "/api/v1/me", 405, "RW-METHOD"),
    Bad("POST to the document", "POST", "/api/openapi.json", 405, "RW-METHOD"),
    get("proof before there is a log", "/certificates/{id}/proof"),
]

QUERIES = [
    query("292 page size -1", "limit=-1"),
    query("292 page size 0", "limit=0"),
    query("292 page size 10^9", "limit=1000000000"),
    query("292 page size 501", "limit=501"),
    query("page size with a plus", "limit=%2B5"),
    query("page size in unicode digits", "limit=%D9%A5"),
    query("page size that is no number", "limit=many"),
    query("292 forged cursor", "cursor=AAAA"),
    query("292 cursor that is no base64", "cursor=%21%21"),
    query("292 cursor of another kind of list", "cursor=kwHEDAAAAAAAAAAAAAAAAAAB"),
    query("cursor beyond any size", "cursor=" + "A" * 3_000),
    query("294 sort by a private column", "sort=lease"),
    query("294 order by", "order_by=n"),
    query("unknown parameter", "colour=red"),
    query("repeated parameter", "limit=5&limit=5"),
    query("repeated filter", "owner=a&owner=b"),
    query("empty filter", "owner="),
    query("parameter without a value", "owner"),
    query("escape that is none", "owner=%zz%"),
    query("filter that is no UTF-8", "owner=%ff"),
    query("filter with NUL", "owner=a%00"),
    query("filter with a line feed", "owner=a%0Ab"),
    query("filter with a bidi override", "owner=a%E2%80%AEb"),
    query("q of two characters", "q=ab"),
    query("status that is none", "status=good"),
    query("status twice in one", "status=active,revoked"),
    query("source that is none", "source=stolen"),
    query("expiry that is no time", "expires_before=tomorrow"),
    query("expiry on a day that is none", "expires_before=2026-02-30T00:00:00Z"),
    query("expiry without a zone", "expires_after=2026-02-03T00:00:00"),
    query("more parameters than any list has", "&".join(f"a{n}=1" for n in range(100))),
    query("query beyond any size", "owner=" + "a" * 5_000),
    get("status of requests that is none", "/requests?status=open", 400, "RW-QUERY"),
    get("parameter of another list", "/requests?owner=a", 400, "RW-QUERY"),
    get("parameter where there is none", "/me?limit=1", 400, "RW-QUERY"),
    get("parameter of the document", "/../openapi.json?x=1"),
    *(
        get(f"300 {name} in the URL", f"/certificates?{name}=abc", 400, "RW-SECRET-IN-URL")
        for name in ("token", "access_token", "password", "TOKEN", "api_key", "client_secret")
    ),
]

_GOOD = json.dumps({"profile": "server", "csr": "x"}).encode()

BODIES = [
    raw("1. empty body", b""),
    raw("no JSON", b"profile=server&csr=x"),
    raw("JSON cut off", _GOOD[:-1]),
    raw("something behind the JSON", _GOOD + b" {}"),
    raw("byte order mark", b"\xef\xbb\xbf" + _GOOD),
    raw("UTF-16", _GOOD.decode().encode("utf-16")),
    raw("no UTF-8", b'{"profile":"\xff","csr":"x"}'),
    raw("lone surrogate", b'{"profile":"\\ud800","csr":"x"}'),
    raw("control character in a string", b'{"profile":"a\nb","csr":"x"}'),
    raw("single quotes", b"{'profile':'server','csr':'x'}"),
    raw("comment", b'{"profile":"server","csr":"x"}//'),
    raw("NaN", b'{"profile":"server","csr":"x","labels":NaN}'),
    raw("infinity", b'{"profile":"server","csr":"x","labels":-Infinity}'),
    raw("field twice", b'{"profile":"server","profile":"client","csr":"x"}'),
    raw("field twice, once escaped", b'{"profile":"server","pr\\u006ffile":"client","csr":"x"}'),
    raw("field twice further in", b'{"profile":"server","csr":"x","labels":{"a":"b","a":"c"}}'),
    raw("33 levels deep", b'{"profile":' + b"[" * 32 + b"]" * 32 + b"}"),
    raw("100,000 levels deep", b"[" * 100_000),
    raw("100,000 objects deep", b'{"a":' * 40_000),
    raw("number of 10,000 digits", b'{"profile":' + b"9" * 10_000 + b"}"),
    raw("256 KiB and one", b'{"profile":"' + b"a" * 256 * 1024, 413, "RW-TOO-LARGE"),
    raw("array", b"[]", 422, "RW-FIELD"),
    raw("null", b"null", 422, "RW-FIELD"),
    raw("string", b'"profile"', 422, "RW-FIELD"),
    raw("32 levels deep", b'{"profile":' + b"[" * 31 + b"]" * 31 + b',"csr":"x"}', 422, "RW-FIELD"),
    Bad("no content type", "POST", CERTIFICATES, 415, "RW-MEDIA-TYPE", raw=_GOOD, headers={"content-type": ""}),
    Bad("form", "POST", CERTIFICATES, 415, "RW-MEDIA-TYPE", raw=_GOOD, headers={"content-type": "text/plain"}),
    Bad(
        "308 JSON as a form",
        "POST",
        CERTIFICATES,
        415,
        "RW-MEDIA-TYPE",
        raw=_GOOD,
        headers={"content-type": "application/x-www-form-urlencoded"},
    ),
    Bad(
        "JSON in another character set",
        "POST",
        CERTIFICATES,
        415,
        "RW-MEDIA-TYPE",
        raw=_GOOD,
        headers={"content-type": "application/json; charset=latin-1"},
    ),
]

FIELDS = [
    issue("289 status from outside", 422, "RW-FIELD", status="active"),
    issue("289 approval from outside", 422, "RW-FIELD", approved_by="me"),
    issue("289 issuer from outside", 422, "RW-FIELD", ca_id="root"),
    issue("289 names beside the CSR", 422, "RW-FIELD", names=["dns:b.internal"]),
    issue("289 serial from outside", 422, "RW-FIELD", serial="00"),
    issue("unknown field with markup", 422, "RW-FIELD", **{"<script>": "1"}),
    issue("profile that is a number", 422, "RW-FIELD", profile=7),
    issue("profile that is empty", 422, "RW-FIELD", profile=""),
    issue("profile with a control character", 422, "RW-FIELD", profile="server\n"),
    issue("profile with NUL", 422, "RW-FIELD", profile="server\x00"),
    issue("CSR that is null", 422, "RW-FIELD", csr=None),
    issue("CSR that is a list", 422, "RW-FIELD", csr=["x"]),
    issue("owner with an escape sequence", 422, "RW-FIELD", owner="\x1b[31mred"),
    issue("owner of 201 characters", 422, "RW-FIELD", owner="a" * 201),
    issue("labels that are a list", 422, "RW-FIELD", labels=["a"]),
    issue("label that is a number", 422, "RW-FIELD", labels={"a": 1}),
    issue("label of a label", 422, "RW-FIELD", labels={"a": {"b": "c"}}),
    issue("51 labels", 422, "RW-FIELD", labels={f"k{n}": "v" for n in range(51)}),
    issue("lifetime that is a number", 422, "RW-FIELD", lifetime=30),
    issue("replaces that is a path", 422, "RW-FIELD", replaces="../x"),
    Bad("no fields", "POST", CERTIFICATES, 422, "RW-FIELD", body={}),
    issue("lifetime in words", 400, "RW-VALIDITY", lifetime="a month"),
    issue("lifetime in unicode digits", 400, "RW-VALIDITY", lifetime="\u0663d"),
    issue("lifetime of nothing", 400, "RW-VALIDITY", lifetime="0d"),
    issue("lifetime beyond the profile", 400, "RW-VALIDITY", lifetime="91d"),
    issue("replaces what is not there", 400, "RW-REPLACES", replaces="00000000-0000-4000-8000-000000000000"),
    issue("asking under a profile that is not there", 400, "RW-PROFILE", profile="nothing"),
    issue("profile with SQL", 400, "RW-PROFILE", profile="server' OR '1'='1"),
    issue("profile of our own", 400, "RW-PROFILE", profile="ocsp:issuing"),
    issue("2. CSR that is no base64", 400, "RW-CSR-MALFORMED", csr="not a CSR"),
    issue("CSR that is empty", 400, "RW-CSR-MALFORMED", csr=""),
    issue("CSR with a lone surrogate's neighbour", 400, "RW-CSR-MALFORMED", csr="\U0001f600"),
    issue("CSR of 100 KB", 413, "RW-CSR-SIZE", csr="A" * 100_000),
    Bad("reason that is none", "POST", CERTIFICATES + "/{id}/revoke", 422, "RW-FIELD", body={"reason": "boredom"}),
    Bad("reason 7", "POST", CERTIFICATES + "/{id}/revoke", 422, "RW-FIELD", body={"reason": "7"}),
    Bad("reason of deltas", "POST", CERTIFICATES + "/{id}/revoke", 422, "RW-FIELD", body={"reason": "removeFromCRL"}),
    Bad("reason that is a number", "POST", CERTIFICATES + "/{id}/revoke", 422, "RW-FIELD", body={"reason": 1}),
    Bad("release of what is not held", "POST", CERTIFICATES + "/{id}/release", 409, "RW-NOT-HELD", body={}),
    Bad("revocation of nothing", "POST", "/api/v1/revocations", 422, "RW-FIELD", body={"reason": "superseded"}),
    Bad(
        "revocation of two things",
        "POST",
        "/api/v1/revocations",
        422,
        "RW-FIELD",
        body={"reason": "superseded", "serial": "00ab", "authority": "issuing", "public_key": "x"},
    ),
    Bad(
        "revocation of a serial with colons",
        "POST",
        "/api/v1/revocations",
        422,
        "RW-FIELD",
        body={"reason": "superseded", "serial": "00:ab", "authority": "issuing"},
    ),
    Bad(
        "revocation of a key that is none",
        "POST",
        "/api/v1/revocations",
        422,
        "RW-FIELD",
        body={"reason": "superseded", "public_key": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"},
    ),
    Bad(
        "revocation of a serial that nobody gave",
        "POST",
        "/api/v1/revocations",
        404,
        "RW-NOT-FOUND",
        body={"reason": "superseded", "serial": "00ab", "authority": "issuing"},
    ),
    Bad(
        "profile with an unknown rule",
        "POST",
        "/api/v1/profiles",
        422,
        "RW-FIELD",
        body={"name": "a", "authority": "issuing", "is_ca": True},
    ),
    Bad(
        "profile that contradicts itself",
        "POST",
        "/api/v1/profiles",
        400,
        "RW-PROFILE-INVALID",
        body={"name": "a", "authority": "issuing", "keys": []},
    ),
    Bad(
        "profile under a reserved name",
        "POST",
        "/api/v1/profiles",
        400,
        "RW-PROFILE-INVALID",
        body={"name": "crl", "authority": "issuing"},
    ),
    Bad(
        "profile of another name than its address",
        "PUT",
        "/api/v1/profiles/server",
        422,
        "RW-FIELD",
        body={"name": "client", "authority": "issuing"},
    ),
    Bad("role that is none", "POST", "/api/v1/grants", 422, "RW-FIELD", body={"principal": "x", "role": "god"}),
    Bad("token for ever", "POST", "/api/v1/tokens", 422, "RW-FIELD", body={"label": "a", "lifetime": "90000d"}),
    Bad(
        "token with a secret of one's own", "POST", "/api/v1/tokens", 422, "RW-FIELD", body={"label": "a", "token": "x"}
    ),
    Bad("principal with a role", "POST", "/api/v1/principals", 422, "RW-FIELD", body={"name": "a", "grants": []}),
    Bad(
        "hash that is none",
        "POST",
        "/api/v1/blocked-keys",
        422,
        "RW-FIELD",
        body={"keys": [{"sha256": "x", "why": "y"}]},
    ),
    Bad("approval of nothing", "POST", "/api/v1/requests/{id}/approve", 404, "RW-NOT-FOUND", body={}),
    Bad(
        "idempotency key with a space",
        "POST",
        CERTIFICATES,
        400,
        "RW-MALFORMED",
        body={"profile": "server", "csr": "{csr}"},
        headers={"idempotency-key": "a b"},
    ),
    Bad(
        "idempotency key of 201 characters",
        "POST",
        CERTIFICATES,
        400,
        "RW-MALFORMED",
        body={"profile": "server", "csr": "{csr}"},
        headers={"idempotency-key": "a" * 201},
    ),
]

BAD = [*PATHS, *QUERIES, *BODIES, *FIELDS]

# Values of the header Authorization that make nobody a principal (285).
CREDENTIALS = [
    "",
    "Bearer",
    "Bearer ",
    "Bearer nothing",
    "Bearer rwt_" + "A" * 43,
    "bearer rwt_\u00e9",
    "Basic YWRtaW46YWRtaW4=",
    "Token rwt_x",
    "Bearer a b",
    "Bearer " + "A" * 600,
    "Bearer rwt_" + "A" * 43 + ",Bearer x",
]
