-- `due_s` is the second at which the sweeper looks at an entry, never after that of its expiry
-- (rounded up). It is indexed and a refresh leaves it alone, so that a refresh changes no indexed
-- column: with room on the page it is a heap-only update and writes no index.
CREATE TABLE entries (
    expires_at_ms bigint NOT NULL,
    due_s bigint NOT NULL,
    tokens bigint NOT NULL CHECK (tokens BETWEEN 0 AND 4294967295),
    tier smallint NOT NULL,
    scope bytea NOT NULL,
    hash bytea NOT NULL,
    PRIMARY KEY (scope, hash)
) WITH (
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.05
);

CREATE INDEX entries_due ON entries (due_s);
