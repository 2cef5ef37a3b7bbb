#!/bin/sh
# What either database needs before Relevo comes (README.md, "What the databases need"): the role that owns the application's
# tables, and the role of Relevo, which is no superuser. Run once by the image of PostgreSQL, on an empty data directory.
set -eu

psql --no-psqlrc -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
    -v database="$POSTGRES_DB" \
    -v relevo_password="$(cat "$RELEVO_PASSWORD_FILE")" -v shop_password="$(cat "$SHOP_PASSWORD_FILE")" <<'SQL'
CREATE ROLE shop LOGIN PASSWORD :'shop_password';
CREATE ROLE relevo LOGIN REPLICATION PASSWORD :'relevo_password';
-- It publishes the tables, and puts the guard before them: PostgreSQL asks for their owner.
GRANT shop TO relevo;
ALTER DATABASE :"database" OWNER TO shop;
GRANT CREATE ON DATABASE :"database" TO relevo;
GRANT SET ON PARAMETER session_replication_role TO relevo;
-- Sees what delays the slot.
GRANT pg_monitor TO relevo;
SQL
