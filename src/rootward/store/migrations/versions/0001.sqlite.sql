CREATE TABLE authorities (
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    parent TEXT,
    settings TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    frozen_at BIGINT,
    retired_at BIGINT,
    PRIMARY KEY (name),
    FOREIGN KEY(parent) REFERENCES authorities (name)
);
CREATE TABLE blocked_keys (
    key_id TEXT NOT NULL,
    why TEXT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (key_id)
);
CREATE TABLE certificates (
    n INTEGER NOT NULL,
    id TEXT NOT NULL,
    issuer INTEGER NOT NULL,
    serial BLOB NOT NULL,
    source TEXT NOT NULL,
    authority TEXT,
    profile TEXT,
    profile_version INTEGER,
    tbs BLOB NOT NULL,
    algorithm BLOB NOT NULL,
    signature BLOB,
    sha256 TEXT,
    key_id TEXT NOT NULL,
    subject TEXT NOT NULL,
    names TEXT NOT NULL,
    not_before BIGINT NOT NULL,
    not_after BIGINT NOT NULL,
    owner TEXT,
    labels TEXT DEFAULT '{}' NOT NULL,
    requester TEXT NOT NULL,
    request_id TEXT NOT NULL,
    replaces TEXT,
    retry_of TEXT,
    lease TEXT NOT NULL,
    lease_until BIGINT,
    intended_at BIGINT NOT NULL,
    issued_at BIGINT,
    failed_at BIGINT,
    orphaned_at BIGINT,
    revoked_at BIGINT,
    reason TEXT,
    indexed_at BIGINT,
    PRIMARY KEY (n),
    CONSTRAINT certificates_serial_issuer UNIQUE (serial, issuer),
    UNIQUE (id)
);
CREATE INDEX certificates_authority ON certificates (authority, n);
CREATE INDEX certificates_key_id ON certificates (key_id, requester);
CREATE INDEX certificates_not_after ON certificates (not_after, n);
CREATE INDEX certificates_open ON certificates (n) WHERE issued_at IS NULL AND failed_at IS NULL AND orphaned_at IS NULL;
CREATE INDEX certificates_orphan ON certificates (n) WHERE orphaned_at IS NOT NULL;
CREATE INDEX certificates_owner ON certificates (owner, n);
CREATE INDEX certificates_profile ON certificates (profile, n);
CREATE INDEX certificates_reason ON certificates (reason, n) WHERE revoked_at IS NOT NULL;
CREATE INDEX certificates_replaces ON certificates (replaces) WHERE replaces IS NOT NULL;
CREATE INDEX certificates_revoked ON certificates (issuer, revoked_at) WHERE revoked_at IS NOT NULL;
CREATE INDEX certificates_source ON certificates (source, n);
CREATE INDEX certificates_unindexed ON certificates (n) WHERE indexed_at IS NULL;
CREATE TABLE crl_numbers (
    issuer INTEGER NOT NULL,
    scope TEXT NOT NULL,
    number BIGINT NOT NULL,
    PRIMARY KEY (issuer, scope)
);
CREATE TABLE crls (
    issuer INTEGER NOT NULL,
    scope TEXT NOT NULL,
    number BIGINT NOT NULL,
    this_update BIGINT NOT NULL,
    next_update BIGINT NOT NULL,
    entries INTEGER NOT NULL,
    watermark BIGINT NOT NULL,
    der BLOB NOT NULL,
    PRIMARY KEY (issuer, scope, number)
);
CREATE TABLE events (
    n INTEGER NOT NULL,
    at BIGINT NOT NULL,
    kind TEXT NOT NULL,
    actor TEXT NOT NULL,
    authority TEXT,
    certificate TEXT,
    request_id TEXT NOT NULL,
    data TEXT NOT NULL,
    leaf INTEGER,
    PRIMARY KEY (n),
    UNIQUE (leaf)
);
CREATE INDEX events_certificate ON events (certificate, n);
CREATE INDEX events_unsequenced ON events (n) WHERE leaf IS NULL;
CREATE TABLE facts (
    name TEXT NOT NULL,
    at BIGINT NOT NULL,
    data TEXT DEFAULT '' NOT NULL,
    PRIMARY KEY (name)
);
CREATE TABLE idempotency (
    principal TEXT NOT NULL,
    "key" TEXT NOT NULL,
    digest BLOB NOT NULL,
    created_at BIGINT NOT NULL,
    certificate TEXT,
    request TEXT,
    answer TEXT,
    PRIMARY KEY (principal, "key")
);
CREATE TABLE jobs (
    name TEXT NOT NULL,
    due_at BIGINT NOT NULL,
    lease TEXT,
    lease_until BIGINT,
    fence BIGINT DEFAULT '0' NOT NULL,
    done_at BIGINT,
    failure TEXT,
    PRIMARY KEY (name)
);
CREATE TABLE principals (
    id TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    disabled_at BIGINT,
    PRIMARY KEY (id),
    UNIQUE (name)
);
CREATE TABLE profiles (
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    authority TEXT NOT NULL,
    body TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    retired_at BIGINT,
    PRIMARY KEY (name, version)
);
CREATE TABLE requests (
    n INTEGER NOT NULL,
    id TEXT NOT NULL,
    principal TEXT NOT NULL,
    authority TEXT NOT NULL,
    profile TEXT NOT NULL,
    profile_version INTEGER NOT NULL,
    names TEXT NOT NULL,
    binds TEXT NOT NULL,
    binding TEXT NOT NULL,
    "plan" TEXT NOT NULL,
    summary TEXT NOT NULL,
    ask TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    approved_at BIGINT,
    approved_by TEXT,
    denied_at BIGINT,
    denied_by TEXT,
    comment TEXT,
    used_at BIGINT,
    certificate TEXT,
    failed_at BIGINT,
    reasons TEXT,
    closed_at BIGINT,
    PRIMARY KEY (n),
    UNIQUE (id)
);
CREATE UNIQUE INDEX requests_binding ON requests (binding) WHERE closed_at IS NULL;
CREATE TABLE watermark (
    one INTEGER NOT NULL,
    revocations BIGINT NOT NULL,
    people BIGINT DEFAULT '0' NOT NULL,
    PRIMARY KEY (one)
);
CREATE TABLE grants (
    id TEXT NOT NULL,
    principal TEXT NOT NULL,
    role TEXT NOT NULL,
    authority TEXT,
    profile TEXT,
    created_at BIGINT NOT NULL,
    removed_at BIGINT,
    PRIMARY KEY (id),
    FOREIGN KEY(principal) REFERENCES principals (id)
);
CREATE INDEX grants_principal ON grants (principal);
CREATE TABLE issuers (
    n INTEGER NOT NULL,
    authority TEXT NOT NULL,
    key_id TEXT NOT NULL,
    certificate BLOB NOT NULL,
    backend TEXT,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (n),
    FOREIGN KEY(authority) REFERENCES authorities (name),
    UNIQUE (key_id)
);
CREATE TABLE tokens (
    id TEXT NOT NULL,
    principal TEXT NOT NULL,
    label TEXT NOT NULL,
    hash BLOB NOT NULL,
    scopes TEXT NOT NULL,
    made_by TEXT,
    parent TEXT,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    revoked_at BIGINT,
    PRIMARY KEY (id),
    FOREIGN KEY(principal) REFERENCES principals (id),
    UNIQUE (hash)
);
