-- Roles, and a tenant's database, by psql as the server's administrator; can be repeated, for each tenant once:
--   psql "host=db.example user=postgres dbname=postgres" -v database=tenant_1 -f deploy/postgres/setup.sql
-- Passwords lie in the files posduif_admin_password, posduif_ingester_password and posduif_api_password in the folder
-- POSDUIF_SECRETS (/run/secrets): no argument and no statement that makes a role holds one. Where the
-- server logs all statements and its administrator may not turn that off, put SCRAM verifiers into the files.
\set ON_ERROR_STOP on
\if :{?database} \else
    \set database tenant_1
\endif
\if `cd "${POSDUIF_SECRETS:-/run/secrets}" && test -s posduif_admin_password && test -s posduif_ingester_password && test -s posduif_api_password && echo false || echo true`
    DO $$ BEGIN RAISE EXCEPTION 'password files are missing, or empty' USING HINT = 'Name their folder in POSDUIF_SECRETS.'; END $$;
\endif

SELECT rolsuper AS is_superuser FROM pg_roles WHERE rolname = current_user \gset
\if :is_superuser
    SET log_statement = 'none';
    SET log_min_duration_statement = -1;
    SET log_min_duration_sample = -1;
    SET log_transaction_sample_rate = 0;
    SET log_min_error_statement = 'panic';
\endif
\set password `cat "${POSDUIF_SECRETS:-/run/secrets}/posduif_admin_password"`
SELECT set_config('posduif.admin_password', :'password', false) \g /dev/null
\set password `cat "${POSDUIF_SECRETS:-/run/secrets}/posduif_ingester_password"`
SELECT set_config('posduif.ingester_password', :'password', false) \g /dev/null
\set password `cat "${POSDUIF_SECRETS:-/run/secrets}/posduif_api_password"`
SELECT set_config('posduif.api_password', :'password', false) \g /dev/null
\unset password
\ir roles.sql

SELECT format('CREATE DATABASE %I OWNER posduif_admin TEMPLATE template0 ENCODING ''UTF8''', :'database')
 WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database') \gexec
SELECT format('ALTER DATABASE %I OWNER TO posduif_admin', :'database')
  FROM pg_database WHERE datname = :'database' AND datdba <> 'posduif_admin'::regrole \gexec
\connect :"database"
\if :is_superuser \else
    SET ROLE posduif_admin;
\endif
\ir tenant.sql
