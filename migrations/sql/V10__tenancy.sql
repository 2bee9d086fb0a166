-- What an operator has said of the tenant: to be left alone for a while, or for good. One row. It stands here and not in Redis,
-- so that losing Redis resumes nothing.
CREATE TABLE posduif_engine.tenancy (
    only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    -- No ingester follows the tenant meanwhile; its replication slot stays and keeps WAL.
    paused_at  timestamptz,
    -- Its slot, publication and log go; its rows stay.
    dropped_at timestamptz,
    -- Who said so last: a person's name as their machine knows it, or the role.
    changed_by text NOT NULL DEFAULT ''
);
INSERT INTO posduif_engine.tenancy DEFAULT VALUES;
