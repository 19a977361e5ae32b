-- Where the full text of a failure lies, as SEQ.INDEX of the run's payloads; absent for failures
-- whose message says it all, as those of before.

ALTER TABLE run_status ADD COLUMN error_detail TEXT;
ALTER TABLE step ADD COLUMN error_detail TEXT;

-- Where the reason of an answer lies, likewise.
ALTER TABLE approval ADD COLUMN reason_at TEXT;
