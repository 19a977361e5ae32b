-- Read models: folds of the log, disposable. Statements keep to what SQLite and PostgreSQL share.
-- Amounts of money are whole numbers of 10^-15 units, as text: they exceed 64 bits.

CREATE TABLE projection_position (name TEXT PRIMARY KEY, pos BIGINT NOT NULL);

CREATE TABLE graph_version (
    tenant TEXT NOT NULL,
    graph TEXT NOT NULL,
    version TEXT NOT NULL,
    name TEXT NOT NULL,
    nodes BIGINT NOT NULL,
    manifest TEXT NOT NULL,
    registered_ms BIGINT NOT NULL,
    pos BIGINT NOT NULL,
    PRIMARY KEY (tenant, graph, version)
);

CREATE TABLE run_status (
    tenant TEXT NOT NULL,
    run TEXT NOT NULL,
    graph TEXT NOT NULL,
    version TEXT NOT NULL,
    status TEXT NOT NULL,
    actor TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    updated_ms BIGINT NOT NULL,
    ended_ms BIGINT,
    steps_done BIGINT NOT NULL,
    steps_total BIGINT NOT NULL,
    tokens_in BIGINT NOT NULL,
    tokens_out BIGINT NOT NULL,
    cost TEXT NOT NULL,
    unpriced BIGINT NOT NULL,
    error_code TEXT,
    error_message TEXT,
    input TEXT NOT NULL,
    output TEXT,
    seq BIGINT NOT NULL,
    created_pos BIGINT NOT NULL,
    PRIMARY KEY (tenant, run)
);
CREATE INDEX run_status_recent ON run_status (tenant, created_pos);

CREATE TABLE step (
    tenant TEXT NOT NULL,
    run TEXT NOT NULL,
    step TEXT NOT NULL,
    node TEXT NOT NULL,
    item BIGINT NOT NULL,
    kind TEXT NOT NULL,
    status TEXT NOT NULL,
    attempt BIGINT NOT NULL,
    started_ms BIGINT,
    ended_ms BIGINT,
    provider TEXT,
    model TEXT,
    tokens_in BIGINT NOT NULL,
    tokens_out BIGINT NOT NULL,
    cost TEXT NOT NULL,
    error_code TEXT,
    error_message TEXT,
    output TEXT,
    first_seq BIGINT NOT NULL,
    PRIMARY KEY (tenant, run, step)
);

CREATE TABLE usage_line (
    usage_id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    run TEXT NOT NULL,
    step TEXT NOT NULL,
    attempt BIGINT NOT NULL,
    meter TEXT NOT NULL,
    quantity BIGINT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    confirmed BIGINT NOT NULL,
    price TEXT,
    currency TEXT,
    amount TEXT,
    at_ms BIGINT NOT NULL,
    event TEXT NOT NULL,
    pos BIGINT NOT NULL
);
CREATE INDEX usage_line_run ON usage_line (tenant, run);
CREATE INDEX usage_line_pos ON usage_line (tenant, pos);

CREATE TABLE usage_conflict (
    usage_id TEXT NOT NULL,
    tenant TEXT NOT NULL,
    quantity BIGINT NOT NULL,
    event TEXT NOT NULL,
    pos BIGINT NOT NULL
);

CREATE TABLE ledger_entry (
    entry TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    run TEXT NOT NULL,
    debit TEXT NOT NULL,
    credit TEXT NOT NULL,
    currency TEXT NOT NULL,
    amount TEXT NOT NULL,
    at_ms BIGINT NOT NULL,
    pos BIGINT NOT NULL
);
CREATE INDEX ledger_entry_pos ON ledger_entry (tenant, pos);

CREATE TABLE ledger_balance (
    tenant TEXT NOT NULL,
    account TEXT NOT NULL,
    currency TEXT NOT NULL,
    amount TEXT NOT NULL,
    PRIMARY KEY (tenant, account, currency)
);

CREATE TABLE audit (
    tenant TEXT NOT NULL,
    pos BIGINT NOT NULL,
    idx BIGINT NOT NULL,
    event TEXT NOT NULL,
    stream TEXT NOT NULL,
    seq BIGINT NOT NULL,
    at_ms BIGINT NOT NULL,
    actor TEXT NOT NULL,
    type TEXT NOT NULL,
    summary TEXT NOT NULL,
    hash TEXT NOT NULL,
    PRIMARY KEY (tenant, pos, idx)
);
CREATE INDEX audit_stream ON audit (tenant, stream, pos);

CREATE TABLE approval (
    tenant TEXT NOT NULL,
    approval TEXT NOT NULL,
    run TEXT NOT NULL,
    step TEXT NOT NULL,
    role TEXT NOT NULL,
    content TEXT NOT NULL,
    content_hash TEXT NOT NULL,
    state TEXT NOT NULL,
    asked_ms BIGINT NOT NULL,
    expires_ms BIGINT,
    answered_by TEXT,
    answered_ms BIGINT,
    reason TEXT,
    pos BIGINT NOT NULL,
    PRIMARY KEY (tenant, approval)
);
CREATE INDEX approval_open ON approval (tenant, state, pos);
