-- Runs that came as files: who imported which file, and the fingerprint of the key that signed it.
-- Logs of before name none, so that no row changes.

ALTER TABLE run_status ADD COLUMN imported_by TEXT;
ALTER TABLE run_status ADD COLUMN imported_ms BIGINT;
ALTER TABLE run_status ADD COLUMN imported_file TEXT;
ALTER TABLE run_status ADD COLUMN imported_signer TEXT;
