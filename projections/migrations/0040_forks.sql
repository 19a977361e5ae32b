-- Forks: which run's history they begin with, and versions of graphs that were made for them.

ALTER TABLE run_status ADD COLUMN parent TEXT;
ALTER TABLE run_status ADD COLUMN parent_seq BIGINT;
ALTER TABLE graph_version ADD COLUMN derived BIGINT NOT NULL DEFAULT 0;
