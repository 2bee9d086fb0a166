-- The role that the services use. Run once, by the image, as the administrator, in the first tenant's database.
-- It may replicate and use what `posduif migrate` creates; it owns nothing, so it can change no schema and no publication.

-- Read here, not passed as an argument: arguments are visible to every process.
\set password `cat /run/secrets/postgres_password`
CREATE ROLE posduif LOGIN REPLICATION PASSWORD :'password';

-- What migrations create later, whichever schema they put it in.
GRANT USAGE ON SCHEMA public TO posduif;
ALTER DEFAULT PRIVILEGES GRANT USAGE ON SCHEMAS TO posduif;
ALTER DEFAULT PRIVILEGES GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO posduif;
ALTER DEFAULT PRIVILEGES GRANT USAGE, SELECT, UPDATE ON SEQUENCES TO posduif;
