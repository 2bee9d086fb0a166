-- What the image runs once, in a new data directory. The scripts are those of every installation; what they read lies in
-- /run/secrets.
\i /etc/posduif/postgres/setup.sql
