-- The three roles of an installation, once per server; can be repeated. Plain SQL, so that any client can run it:
-- setup.sql does with psql, `posduif dev` and the tests do by themselves. Run by a superuser, or by a role with CREATEROLE
-- and REPLICATION that a provider gives out for one.
--
-- Passwords come from the session's settings posduif.admin_password, posduif.ingester_password and posduif.api_password, in
-- clear or as SCRAM verifiers; one that is not set stays as it is. So no password is part of a CREATE ROLE or ALTER ROLE
-- that a client sends and a server logs.

DO $roles$
DECLARE
    wanted record;
    attribute record;
    secret text;
    is_superuser boolean := (SELECT rolsuper FROM pg_roles WHERE rolname = current_user);
BEGIN
    PERFORM set_config('password_encryption', 'scram-sha-256', true);
    FOR wanted IN
        SELECT * FROM (VALUES
            -- Owns the tenants' databases, what `posduif migrate` makes in them, and the publication.
            ('posduif_admin', false, 'posduif.admin_password'),
            -- Reads the WAL. PostgreSQL checks no rights there: whoever replicates reads every table of every publication.
            ('posduif_ingester', true, 'posduif.ingester_password'),
            -- Reads and writes rows, as `posduif migrate` grants them.
            ('posduif_api', false, 'posduif.api_password')) AS v (name, replicates, setting)
    LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted.name) THEN
            EXECUTE format('CREATE ROLE %I', wanted.name);
        END IF;
        -- Only what differs: to mention an attribute takes the right to give it. BYPASSRLS is the operator's to give.
        FOR attribute IN
            SELECT v.name, v.wanted FROM pg_roles r
             CROSS JOIN LATERAL (VALUES
                ('LOGIN', r.rolcanlogin, true), ('SUPERUSER', r.rolsuper, false), ('CREATEDB', r.rolcreatedb, false),
                ('CREATEROLE', r.rolcreaterole, false),
                ('REPLICATION', r.rolreplication, wanted.replicates)) AS v (name, found, wanted)
             WHERE r.rolname = wanted.name AND v.found <> v.wanted
        LOOP
            BEGIN
                EXECUTE format('ALTER ROLE %I %s', wanted.name,
                               CASE WHEN attribute.wanted THEN '' ELSE 'NO' END || attribute.name);
            EXCEPTION WHEN insufficient_privilege THEN
                IF NOT attribute.wanted THEN
                    RAISE;
                END IF;
                RAISE WARNING '% may not give % to %: %', current_user, attribute.name, wanted.name, SQLERRM
                    USING HINT = 'A managed server has a role for it, such as rds_replication: grant that one.';
            END;
        END LOOP;
        secret := current_setting(wanted.setting, true);
        IF secret <> '' THEN
            BEGIN
                EXECUTE format('ALTER ROLE %I PASSWORD %L', wanted.name, secret);
            EXCEPTION WHEN OTHERS THEN
                -- Raised anew: the original would show the statement, password and all.
                RAISE EXCEPTION 'the password of % cannot be set: %', wanted.name, SQLERRM;
            END;
            PERFORM set_config(wanted.setting, '', false);
        END IF;
        -- Who is gone in the middle of a transaction must not hold locks and the horizon of vacuum for ever.
        EXECUTE format('ALTER ROLE %I SET idle_in_transaction_session_timeout = ''5min''', wanted.name);
    END LOOP;
    -- The API sets shorter limits of its own; these hold for whoever else logs in with its password. The ingester has none:
    -- making a slot waits for every running transaction.
    ALTER ROLE posduif_api SET statement_timeout = '1min';
    ALTER ROLE posduif_api SET lock_timeout = '30s';
    IF NOT is_superuser THEN
        -- To create a database for a role one must be able to become it.
        EXECUTE 'GRANT posduif_admin TO CURRENT_USER WITH INHERIT FALSE, SET TRUE';
    END IF;
END $roles$;
