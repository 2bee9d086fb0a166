-- What makes an upload happen once, and lets the newest of several writes of a row win. None of it is published.

-- The answer to each upload, written in the upload's own transaction: whoever repeats it gets this and changes nothing.
-- The position is filled in after the commit, which it must not lie before. Rows go after 30 days.
CREATE TABLE posduif_engine.upload_receipts (
    device_id  text NOT NULL,
    -- The device's own name for the upload, or the hash of its body, which is too long to be such a name.
    upload_id  text NOT NULL,
    body_hash  bytea NOT NULL,
    -- The JSON of the answer without its position.
    answer     text NOT NULL DEFAULT '',
    lsn        pg_lsn,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (device_id, upload_id)
);
CREATE INDEX upload_receipts_by_age ON posduif_engine.upload_receipts (created_at);

-- Who wrote the newest uploaded version of a row, which decides between equal times, and which rows were deleted when.
-- Where a row has another version in its own column, that one counts, and nobody is its writer. Writers are forgotten after
-- a week, tombstones after 90 days.
CREATE TABLE posduif_engine.row_versions (
    table_name text NOT NULL,
    -- SHA-256 of the JSON array of the primary key's values: of one size, however long a key is.
    key        bytea NOT NULL,
    version    timestamptz NOT NULL,
    -- Empty where it was no device. Compared byte by byte on every server.
    device_id  text COLLATE "C" NOT NULL,
    deleted    boolean NOT NULL,
    -- Whose row it is or was, where the table says so.
    owner      uuid,
    written_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (table_name, key)
);
CREATE INDEX row_versions_writers_by_age ON posduif_engine.row_versions (written_at) WHERE NOT deleted;
CREATE INDEX row_versions_tombstones_by_age ON posduif_engine.row_versions (written_at) WHERE deleted;

-- Leaves a tombstone for every row that a statement deletes, so that no older write of a device brings it back. Its version is
-- later than that of the row, which a device whose clock is ahead may have put into the future. Arguments: the columns of
-- owner and version. Key and columns are looked up each time: a column that was renamed must not make the application's
-- own DELETE fail. The settings decide how a key becomes JSON and are those of the services' own connections.
CREATE FUNCTION posduif_engine.note_deleted_rows() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET timezone = 'UTC' SET datestyle = 'ISO,YMD' SET intervalstyle = 'postgres' SET bytea_output = 'hex'
    SET extra_float_digits = 1 SET lc_monetary = 'C' SET quote_all_identifiers = off AS $$
DECLARE
    key text;
    owner text := 'NULL::uuid';
    version text := 'NULL::timestamptz';
    field record;
BEGIN
    SELECT string_agg(format(CASE WHEN a.atttypid = 'numeric'::regtype THEN 'trim_scale(f.%I)' ELSE 'f.%I' END, a.attname),
                      ', ' ORDER BY k.place)
      INTO key
      FROM pg_index i
     CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY k (number, place)
      JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
     WHERE i.indrelid = TG_RELID AND i.indisprimary AND k.place <= i.indnkeyatts;
    IF key IS NULL THEN
        RETURN NULL;
    END IF;
    FOR field IN SELECT a.attname AS name, a.atttypid AS type FROM pg_attribute a
                  WHERE a.attrelid = TG_RELID AND a.attnum > 0 AND NOT a.attisdropped
                    AND a.attname IN (TG_ARGV[0], TG_ARGV[1])
    LOOP
        IF field.name = TG_ARGV[0] AND field.type = 'uuid'::regtype THEN
            owner := format('f.%I', field.name);
        END IF;
        IF field.name = TG_ARGV[1] AND field.type IN ('timestamptz'::regtype, 'timestamp'::regtype) THEN
            version := format('f.%I::timestamptz', field.name);
        END IF;
    END LOOP;
    EXECUTE format(
        'INSERT INTO posduif_engine.row_versions AS w (table_name, key, version, device_id, deleted, owner)
         SELECT $1, sha256(convert_to(jsonb_build_array(%1$s)::text, ''UTF8'')),
                greatest($2, CASE WHEN %2$s < ''9999-12-31Z'' THEN %2$s + interval ''1 microsecond''
                                  WHEN %2$s IS NOT NULL THEN ''9999-12-31Z'' END), '''', true, %3$s
           FROM former f
         ON CONFLICT (table_name, key) DO UPDATE
            SET version = excluded.version, device_id = '''', deleted = true, owner = excluded.owner, written_at = now()',
        key, version, owner)
      USING TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME, clock_timestamp();
    RETURN NULL;
END $$;
