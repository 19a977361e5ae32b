-- Agents under their names. `runs` counts what ran as the agent, from wherever it was asked for.

CREATE TABLE agent_directory (
    tenant TEXT NOT NULL,
    agent TEXT NOT NULL,
    name TEXT NOT NULL,
    status TEXT NOT NULL,
    graph TEXT NOT NULL,
    version TEXT NOT NULL,
    definition TEXT NOT NULL,
    runs BIGINT NOT NULL,
    last_run TEXT,
    created_ms BIGINT NOT NULL,
    updated_ms BIGINT NOT NULL,
    pos BIGINT NOT NULL,
    PRIMARY KEY (tenant, agent)
);
CREATE INDEX agent_directory_recent ON agent_directory (tenant, pos);
