CREATE TABLE proposals (
    n BIGSERIAL NOT NULL,
    id TEXT NOT NULL,
    kind TEXT NOT NULL,
    authority TEXT NOT NULL,
    body TEXT NOT NULL,
    digest TEXT NOT NULL,
    proposed_by TEXT NOT NULL,
    proposed_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    approved_by TEXT,
    approved_at BIGINT,
    denied_by TEXT,
    denied_at BIGINT,
    comment TEXT,
    done_at BIGINT,
    failure TEXT,
    closed_at BIGINT,
    PRIMARY KEY (n),
    UNIQUE (id)
);

CREATE UNIQUE INDEX proposals_open ON proposals (digest) WHERE closed_at IS NULL;

CREATE TABLE ceremonies (
    n BIGSERIAL NOT NULL,
    id TEXT NOT NULL,
    script_sha256 TEXT NOT NULL,
    transcript_sha256 TEXT NOT NULL,
    title TEXT NOT NULL,
    lab INTEGER NOT NULL,
    held_at BIGINT NOT NULL,
    imported_at BIGINT NOT NULL,
    imported_by TEXT NOT NULL,
    result BYTEA NOT NULL,
    PRIMARY KEY (n),
    UNIQUE (id),
    UNIQUE (transcript_sha256)
);

CREATE TABLE offline_requests (
    n BIGSERIAL NOT NULL,
    id TEXT NOT NULL,
    authority TEXT NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    body BYTEA NOT NULL,
    made_by TEXT NOT NULL,
    made_at BIGINT NOT NULL,
    answered_at BIGINT,
    ceremony TEXT,
    withdrawn_at BIGINT,
    PRIMARY KEY (n),
    UNIQUE (id)
);
