WITH publication AS (
    SELECT *, xmin FROM pg_publication WHERE pubname = $3::text
), role AS (
    SELECT oid, rolname, rolsuper OR rolbypassrls AS unbound FROM pg_roles WHERE rolname = coalesce($4::text, current_user)
), wanted AS (
    SELECT place, c.oid AS table_oid
      FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS w (schema, name, place)
      LEFT JOIN (pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace) ON n.nspname = w.schema AND c.relname = w.name
), facts AS (
    SELECT c.oid AS table_oid, json_build_object(
        'oid', c.oid::int8,
        'kind', c.relkind,
        'persistence', c.relpersistence,
        'identity', c.relreplident,
        'filenode', c.relfilenode::int8,
        'parent', (SELECT h.inhparent::regclass::text FROM pg_inherits h WHERE h.inhrelid = c.oid AND c.relispartition),
        'inherited', c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits h WHERE h.inhparent = c.oid),
        'row_security', c.relrowsecurity AND NOT role.unbound
            AND (c.relforcerowsecurity OR NOT pg_has_role(role.oid, c.relowner, 'USAGE')),
        -- These look at what is there now, not at this statement's snapshot: NULL is a table that was dropped in between, which
        -- is no lack of rights, and shows with the next look.
        'readable', coalesce(has_table_privilege(role.oid, c.oid, 'SELECT'), true)
            AND coalesce(has_schema_privilege(role.oid, c.relnamespace, 'USAGE'), true),
        'published', (
            SELECT json_build_object('oid', r.oid::int8, 'column_list', r.prattrs IS NOT NULL,
                                     'row_filter', r.prqual IS NOT NULL)
              FROM publication p JOIN pg_publication_rel r ON r.prpubid = p.oid WHERE r.prrelid = c.oid),
        'key', (
            SELECT json_build_object('oid', i.indexrelid::int8, 'immediate', i.indimmediate, 'columns', ARRAY(
                SELECT a.attname::text FROM unnest(i.indkey) WITH ORDINALITY k (attnum, place)
                  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
                 WHERE k.place <= i.indnkeyatts ORDER BY k.place))
              FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary),
        'identity_index', (
            SELECT json_build_object('oid', i.indexrelid::int8, 'immediate', i.indimmediate, 'columns', ARRAY(
                SELECT a.attname::text FROM unnest(i.indkey) WITH ORDINALITY k (attnum, place)
                  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
                 WHERE k.place <= i.indnkeyatts ORDER BY k.place))
              FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident),
        'columns', (
            SELECT coalesce(json_agg(json_build_object(
                'number', a.attnum, 'name', a.attname, 'type_oid', a.atttypid::int8, 'modifier', a.atttypmod,
                'type_name', format_type(a.atttypid, a.atttypmod), 'toastable', a.attstorage <> 'p',
                'generated', a.attgenerated, 'version', a.xmin::text) ORDER BY a.attnum), '[]')
              FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
        'partitions', CASE WHEN c.relkind <> 'p' THEN '[]' ELSE (
            WITH RECURSIVE below AS (
                SELECT h.inhrelid, h.xmin AS attached_by, h.inhdetachpending FROM pg_inherits h WHERE h.inhparent = c.oid
                UNION ALL
                SELECT h.inhrelid, h.xmin, h.inhdetachpending FROM pg_inherits h JOIN below b ON h.inhparent = b.inhrelid)
            SELECT coalesce(json_agg(json_build_object(
                'oid', l.oid::int8, 'schema', s.nspname, 'name', l.relname, 'kind', l.relkind,
                'persistence', l.relpersistence, 'identity', l.relreplident, 'filenode', l.relfilenode::int8,
                'attached', b.attached_by::text || CASE WHEN b.inhdetachpending THEN '!' ELSE '' END,
                'born', l.relfilenode IN (0, l.oid) AND EXISTS (
                    SELECT FROM pg_attribute system JOIN pg_attribute own ON own.attrelid = system.attrelid
                     WHERE system.attrelid = l.oid AND system.attnum = -1 AND own.attnum > 0
                       AND system.xmin = b.attached_by AND own.xmin = system.xmin AND own.cmin = system.cmin)
                ) ORDER BY s.nspname, l.relname), '[]')
              FROM below b JOIN pg_class l ON l.oid = b.inhrelid JOIN pg_namespace s ON s.oid = l.relnamespace)
            END,
        'capture', (
            WITH RECURSIVE parts AS (
                SELECT c.oid UNION ALL SELECT h.inhrelid FROM pg_inherits h JOIN parts ON h.inhparent = parts.oid
                 WHERE c.relkind = 'p'
            ), triggers AS (
                SELECT parts.oid, t.tgname, t.tgfoid
                  FROM parts JOIN pg_trigger t ON t.tgrelid = parts.oid AND t.tgenabled = 'A')
            SELECT json_build_object(
                'body', (SELECT p.prosrc FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
                          WHERE t.tgrelid = c.oid AND t.tgname = 'posduif_moved_rows'),
                'notes_moves', (SELECT count(*) FROM triggers WHERE tgname = 'posduif_moved_rows')
                    = (SELECT count(*) FROM parts)
                    AND EXISTS (SELECT FROM triggers WHERE oid = c.oid AND tgname = 'posduif_truncated_rows'),
                'notes_changes', (SELECT count(*) FROM triggers WHERE tgname = 'posduif_changed_rows')
                    = (SELECT count(*) FROM parts))),
        'sequences', (
            SELECT coalesce(json_agg(n.nspname || '.' || s.relname ORDER BY s.oid), '[]')
              FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
              JOIN pg_namespace n ON n.oid = s.relnamespace
             WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid
               AND d.deptype = 'a' AND strpos(n.nspname, '.') = 0)
        ) AS facts
      FROM wanted JOIN pg_class c ON c.oid = wanted.table_oid CROSS JOIN role
)
SELECT json_build_object(
    'version', current_setting('server_version'),
    'version_number', current_setting('server_version_num')::int,
    'wal_level', current_setting('wal_level'),
    'encoding', current_setting('server_encoding'),
    'role', (SELECT rolname FROM role),
    'migrated', to_regclass('posduif_engine.captured') IS NOT NULL,
    'publication', (SELECT json_build_object(
        'oid', oid::int8, 'version', publication.xmin::text, 'all_tables', puballtables,
        'operations', pubinsert AND pubupdate AND pubdelete AND pubtruncate,
        'via_root', pubviaroot, 'generated', pubgencols = 's') FROM publication),
    'published', (SELECT coalesce(json_agg(r.prrelid::int8), '[]')
        FROM publication p JOIN pg_publication_rel r ON r.prpubid = p.oid),
    'tables', (SELECT coalesce(json_agg(facts.facts ORDER BY wanted.place), '[]')
        FROM wanted LEFT JOIN facts USING (table_oid)))
