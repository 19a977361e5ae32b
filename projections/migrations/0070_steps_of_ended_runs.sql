-- Steps of ended runs are abandoned, runs know the run that they are within and the step of their
-- error. Rows of before lack all this: every table is emptied and folded again from the log.
-- `forked_from` and `forked_seq` were `parent` and `parent_seq`.

DROP TABLE run_status;
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
    steps_abandoned BIGINT NOT NULL,
    steps_total BIGINT NOT NULL,
    tokens_in BIGINT NOT NULL,
    tokens_out BIGINT NOT NULL,
    cost TEXT NOT NULL,
    unpriced BIGINT NOT NULL,
    error_code TEXT,
    error_message TEXT,
    error_step TEXT,
    input TEXT NOT NULL,
    output TEXT,
    seq BIGINT NOT NULL,
    created_pos BIGINT NOT NULL,
    forked_from TEXT,
    forked_seq BIGINT,
    parent TEXT,
    parent_step TEXT,
    PRIMARY KEY (tenant, run)
);
CREATE INDEX run_status_recent ON run_status (tenant, created_pos);
CREATE INDEX run_status_family ON run_status (tenant, parent, created_pos);

-- `resume_status` is where an abandoned step stands again if its run is reopened.
DROP TABLE step;
CREATE TABLE step (
    tenant TEXT NOT NULL,
    run TEXT NOT NULL,
    step TEXT NOT NULL,
    node TEXT NOT NULL,
    item BIGINT NOT NULL,
    kind TEXT NOT NULL,
    status TEXT NOT NULL,
    resume_status TEXT,
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

DELETE FROM graph_version;
DELETE FROM usage_line;
DELETE FROM usage_conflict;
DELETE FROM ledger_entry;
DELETE FROM ledger_balance;
DELETE FROM audit;
DELETE FROM approval;
DELETE FROM agent_directory;

-- An older program on the same server does not find the table and stops, in place of writing rows of
-- the form before.
ALTER TABLE projection_position RENAME TO read_position;
UPDATE read_position SET pos = 0;
