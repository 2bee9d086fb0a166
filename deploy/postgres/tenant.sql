-- Who may enter a tenant's database, once per database and in it; can be repeated. Plain SQL, see roles.sql. Run as
-- the database's owner (posduif_admin) or as a superuser. Rights on tables are granted by `posduif migrate`.

DO $tenant$
BEGIN
    -- A database lets everybody in, and lets them make temporary tables, unless told otherwise.
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO posduif_ingester, posduif_api', current_database());
    -- As PostgreSQL has it since version 15; a database that was upgraded from an older one has not.
    REVOKE CREATE ON SCHEMA public FROM PUBLIC;
    IF NOT has_schema_privilege('posduif_admin', 'public', 'CREATE') THEN
        GRANT CREATE ON SCHEMA public TO posduif_admin;
    END IF;
    -- What a role may not revoke is a mere warning to PostgreSQL.
    IF EXISTS (SELECT FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
                WHERE d.datname = current_database() AND a.grantee = 0)
       OR EXISTS (SELECT FROM pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
                   WHERE n.nspname = 'public' AND a.grantee = 0 AND a.privilege_type = 'CREATE') THEN
        RAISE EXCEPTION '% may not say who enters database %', current_user, current_database()
            USING HINT = 'Run this as the owner of the database, or as a superuser.';
    END IF;
END $tenant$;
