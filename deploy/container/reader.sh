#!/bin/sh
# Makes the role by which Grafana reads the database of compose.yaml: it sees every table and view,
# those too that the engine will make, and changes nothing. PostgreSQL's image runs this when the
# database is made; run it again to give the role another password:
#
#   docker compose -f deploy/container/compose.yaml exec database sh /docker-entrypoint-initdb.d/reader.sh
#
# The tables' owner is the engine's own role, POSTGRES_USER.
set -eu

READER_PASSWORD=$(cat "$POSTGRES_READER_PASSWORD_FILE")
export READER_PASSWORD # in no command line, which others could see
psql -X -q --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" -v reader="$POSTGRES_READER" <<'SQL'
\set ON_ERROR_STOP on
\getenv password READER_PASSWORD
BEGIN;
SELECT format('CREATE ROLE %I', :'reader')
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'reader') \gexec
ALTER ROLE :"reader" LOGIN PASSWORD :'password';
-- A panel that nobody waits for any more must not keep the upkeep from dropping a day.
ALTER ROLE :"reader" SET statement_timeout = '60s';
ALTER ROLE :"reader" SET default_transaction_read_only = on;
SELECT format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), :'reader') \gexec
GRANT USAGE ON SCHEMA public TO :"reader";
GRANT SELECT ON ALL TABLES IN SCHEMA public TO :"reader";
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO :"reader";
COMMIT;
SQL
