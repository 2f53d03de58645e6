-- Which credentials belong together. `continues` is the fingerprint whose entries an account goes
-- on with. For people as much as for the `accounts` command: every rule that a row can break alone
-- is a constraint.
CREATE TABLE accounts (
    account text COLLATE "C" PRIMARY KEY
        CHECK (octet_length(account) BETWEEN 1 AND 256 AND account !~ '[[:cntrl:]]'),
    continues bytea UNIQUE CHECK (octet_length(continues) = 32)
);

CREATE TABLE account_keys (
    fingerprint bytea PRIMARY KEY CHECK (octet_length(fingerprint) = 32),
    account text COLLATE "C" NOT NULL REFERENCES accounts ON DELETE CASCADE
);
CREATE INDEX account_keys_account ON account_keys (account, fingerprint);

-- One row, replaced by every statement that may change the two tables, whoever sends it: replicas
-- look at it to see whether there is something to read. Taken before the change, so that two
-- who change accounts wait for each other here and nowhere else.
CREATE TABLE accounts_version (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    value text NOT NULL
);
INSERT INTO accounts_version (value) VALUES (gen_random_uuid()::text);

CREATE FUNCTION replace_accounts_version() RETURNS trigger LANGUAGE plpgsql
-- Also for whoever has another search path.
SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE accounts_version SET value = gen_random_uuid()::text;
    RETURN NULL;
END $$;

CREATE TRIGGER changed BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON accounts
    FOR EACH STATEMENT EXECUTE FUNCTION replace_accounts_version();
CREATE TRIGGER changed BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON account_keys
    FOR EACH STATEMENT EXECUTE FUNCTION replace_accounts_version();
