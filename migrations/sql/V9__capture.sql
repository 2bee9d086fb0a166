-- Which rows changed, for an ingester that cannot follow the WAL: it polls, or its slot was lost. None of it is published.

-- Versions of rows that came or went, by whom they were seen, and which transaction did it. Rows go once the log has them.
CREATE TABLE posduif_engine.captured (
    -- The order within a transaction.
    number     bigint GENERATED ALWAYS AS IDENTITY,
    xid        xid8 NOT NULL DEFAULT pg_current_xact_id(),
    table_name text NOT NULL,
    -- r: a version of a row; t: all rows were truncated; x: the trigger could not tell, because a column was renamed.
    kind       "char" NOT NULL,
    -- The key's values in their types' text form.
    key        text[],
    -- What the columns held that name its users.
    users      uuid[],
    -- The device whose upload it was.
    origin     text
);
CREATE INDEX captured_by_transaction ON posduif_engine.captured (xid);

-- The synced tables, and since which transaction their triggers are there. Deletes, moves and truncates are noted always,
-- everything else only while the tenant is polled.
CREATE TABLE posduif_engine.capture (
    relation   regclass PRIMARY KEY,
    table_name text NOT NULL UNIQUE,
    noted_by   xid8 NOT NULL DEFAULT pg_current_xact_id(),
    enabled    boolean NOT NULL DEFAULT false,
    enabled_by xid8
);

-- Of transactions below this nothing is kept in `captured` any more.
ALTER TABLE posduif_engine.sync_epoch ADD COLUMN captured_from xid8 NOT NULL DEFAULT '0';

-- Lets the ingester switch the trigger on and off, which only the table's owner may: it waits for whoever is writing to
-- the table, as long as the caller's lock_timeout allows. Off first, so that the trigger's row is written anew: a trigger
-- whose row is of another transaction than `enabled_by` was switched by somebody else meanwhile.
CREATE FUNCTION posduif_engine.switch_capture() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s DISABLE TRIGGER posduif_changed_rows', NEW.relation);
    IF NEW.enabled THEN
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER posduif_changed_rows', NEW.relation);
    END IF;
    NEW.enabled_by := CASE WHEN NEW.enabled THEN pg_current_xact_id() END;
    RETURN NEW;
END $$;
CREATE TRIGGER switch_capture BEFORE UPDATE OF enabled ON posduif_engine.capture
    FOR EACH ROW EXECUTE FUNCTION posduif_engine.switch_capture();

-- A slot that was lost and replaced without an epoch is told of, too, under the epoch that goes on.
ALTER TABLE posduif_engine.epoch_history DROP CONSTRAINT epoch_history_pkey, ADD PRIMARY KEY (epoch, token);
