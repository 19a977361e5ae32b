-- Runs that came as files: who imported which file, and the fingerprint of the key that signed it.
-- Logs of before name none, so that no row changes.

ALTER TABLE run_status ADD COLUMN imported_by TEXT;
ALTER TABLE run_status ADD COLUMN imported_ms BIGINT;
ALTER TABLE run_status ADD COLUMN imported_file TEXT;
ALTER TABLE run_status ADD COLUMN imported_signer TEXT;

-- A file may hold a copy of a run that is here, under another id and with the same questions: each
-- run has its own.
CREATE TABLE approval_by_run (
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
    PRIMARY KEY (tenant, approval, run)
);
INSERT INTO approval_by_run SELECT * FROM approval;
DROP TABLE approval;
ALTER TABLE approval_by_run RENAME TO approval;
CREATE INDEX approval_open ON approval (tenant, state, pos);
