-- `due_s` is the second at which the sweeper looks at an entry, never after that of its expiry
-- (rounded up). It is indexed and a refresh leaves it alone, so that a refresh changes no indexed
-- column: with room on the page it is a heap-only update and writes no index. The fill factor
-- leaves room for two of five rows of a page at a time.
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

-- What a scope stands for.
CREATE TABLE scopes (
    scope bytea PRIMARY KEY,
    account bytea NOT NULL,
    model text NOT NULL,
    tokenizer_version text NOT NULL
);

-- One row. A new ledger has an epoch of its own.
CREATE TABLE epoch (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    value bytea NOT NULL
);
INSERT INTO epoch (value) VALUES (decode(replace(gen_random_uuid()::text, '-', ''), 'hex'));
