-- Databases and roles, for psql, as a superuser. Safe to run again; sets the passwords anew each time.
-- Each service has a role of its own, which may log in to its own database only and may not create anything
-- there, and an owner role, which runs the migrations; the migrations grant the service what it needs.
-- The passwords come from the environment, so that no file and no process list holds them.
\set ON_ERROR_STOP on
\getenv orders_owner_password ORDERS_OWNER_PASSWORD
\getenv orders_password ORDERS_PASSWORD
\getenv verifier_owner_password VERIFIER_OWNER_PASSWORD
\getenv verifier_password VERIFIER_PASSWORD
\getenv ledger_owner_password LEDGER_OWNER_PASSWORD
\getenv ledger_password LEDGER_PASSWORD

SELECT format('CREATE ROLE %I', name)
FROM unnest(ARRAY['orders_owner', 'orders', 'verifier_owner', 'verifier', 'ledger_owner', 'ledger']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
\gexec

ALTER ROLE orders_owner LOGIN PASSWORD :'orders_owner_password';
ALTER ROLE orders LOGIN PASSWORD :'orders_password';
ALTER ROLE verifier_owner LOGIN PASSWORD :'verifier_owner_password';
ALTER ROLE verifier LOGIN PASSWORD :'verifier_password';
ALTER ROLE ledger_owner LOGIN PASSWORD :'ledger_owner_password';
ALTER ROLE ledger LOGIN PASSWORD :'ledger_password';

SELECT format('CREATE DATABASE %I OWNER %I', name, name || '_owner')
FROM unnest(ARRAY['orders', 'verifier', 'ledger']) AS name
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = name)
\gexec

-- PUBLIC may connect to every database by default: then one service's password would open another's.
REVOKE ALL ON DATABASE postgres, template1, orders, verifier, ledger FROM PUBLIC;
GRANT CONNECT ON DATABASE orders TO orders;
GRANT CONNECT ON DATABASE verifier TO verifier;
GRANT CONNECT ON DATABASE ledger TO ledger;
