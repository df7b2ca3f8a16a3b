CREATE TABLE acme_accounts (
    n INTEGER NOT NULL,
    id TEXT NOT NULL,
    thumbprint TEXT NOT NULL,
    jwk TEXT NOT NULL,
    contacts TEXT DEFAULT '[]' NOT NULL,
    terms_at BIGINT,
    binding TEXT,
    owner TEXT,
    made_by TEXT,
    profile TEXT,
    names TEXT DEFAULT '[]' NOT NULL,
    preauthorized TEXT DEFAULT '[]' NOT NULL,
    address TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    deactivated_at BIGINT,
    PRIMARY KEY (n),
    UNIQUE (id),
    UNIQUE (thumbprint)
);

CREATE INDEX acme_accounts_address ON acme_accounts (address, created_at);

CREATE TABLE acme_bindings (
    n INTEGER NOT NULL,
    id TEXT NOT NULL,
    secret BLOB NOT NULL,
    owner TEXT NOT NULL,
    profile TEXT,
    names TEXT DEFAULT '[]' NOT NULL,
    preauthorized TEXT DEFAULT '[]' NOT NULL,
    uses INTEGER NOT NULL,
    used INTEGER DEFAULT '0' NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    revoked_at BIGINT,
    PRIMARY KEY (n),
    UNIQUE (id)
);

CREATE TABLE acme_nonces (
    nonce BLOB NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (nonce)
);

CREATE INDEX acme_nonces_expires_at ON acme_nonces (expires_at);

CREATE TABLE acme_orders (
    n INTEGER NOT NULL,
    id TEXT NOT NULL,
    account TEXT NOT NULL,
    profile TEXT NOT NULL,
    identifiers TEXT NOT NULL,
    authorizations TEXT NOT NULL,
    not_after BIGINT,
    replaces TEXT,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    csr BLOB,
    finalized_at BIGINT,
    request TEXT,
    certificate TEXT,
    settled_at BIGINT,
    error TEXT,
    PRIMARY KEY (n),
    UNIQUE (id)
);

CREATE INDEX acme_orders_account ON acme_orders (account, n);

CREATE TABLE acme_authorizations (
    n INTEGER NOT NULL,
    id TEXT NOT NULL,
    account TEXT NOT NULL,
    name TEXT NOT NULL,
    wildcard INTEGER NOT NULL,
    token TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    offered TEXT NOT NULL,
    challenge TEXT,
    chosen_at BIGINT,
    thumbprint TEXT,
    tries INTEGER DEFAULT '0' NOT NULL,
    next_try_at BIGINT,
    lease TEXT,
    lease_until BIGINT,
    error TEXT,
    validated_at BIGINT,
    failed_at BIGINT,
    deactivated_at BIGINT,
    PRIMARY KEY (n),
    UNIQUE (id)
);

CREATE INDEX acme_authorizations_account ON acme_authorizations (account, n);

CREATE INDEX acme_authorizations_failed ON acme_authorizations (account, failed_at) WHERE failed_at IS NOT NULL;

CREATE INDEX acme_authorizations_trying ON acme_authorizations (account, next_try_at) WHERE next_try_at IS NOT NULL;

CREATE INDEX acme_authorizations_valid ON acme_authorizations (account, name) WHERE validated_at IS NOT NULL AND deactivated_at IS NULL;

CREATE TABLE cross_certificates (
    n INTEGER NOT NULL,
    authority TEXT NOT NULL,
    chain BLOB NOT NULL,
    sha256 TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    removed_at BIGINT,
    PRIMARY KEY (n),
    FOREIGN KEY(authority) REFERENCES authorities (name),
    UNIQUE (sha256)
);
