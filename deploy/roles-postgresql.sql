-- Three roles for one database: one that migrates, one that loads, one that reads. None can do another's work.
--
-- Run it in the database, as its owner or a superuser, before the first `etl db upgrade` and once more after every
-- upgrade; it can be run any number of times:
--
--     psql -d numbers -f roles-postgresql.sql
--     ETL_DATABASE_URL=postgresql://etl_migrator@host/numbers etl db upgrade
--     psql -d numbers -f roles-postgresql.sql
--
-- The names may be changed throughout this file, the schema `public` too. Roles are made without a password, with
-- which nobody can log in by one; give each its own with psql's \password.
-- The job then runs as etl_loader with database.migrate = "check", analysts and `etl status` as etl_reader.

DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['etl_migrator', 'etl_loader', 'etl_reader'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I LOGIN', role);
        END IF;
    END LOOP;
END
$$;

-- Before PostgreSQL 15 everybody may create tables in `public`.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO etl_migrator;
GRANT USAGE ON SCHEMA public TO etl_loader, etl_reader;

DO $$
BEGIN
    IF to_regclass('public.sync_runs') IS NULL THEN
        RAISE NOTICE 'there are no tables yet: run etl db upgrade as etl_migrator, then this script again';
        RETURN;
    END IF;
    -- Views and alembic_version included. A reader sees no more of the world than these tables.
    GRANT SELECT ON ALL TABLES IN SCHEMA public TO etl_loader, etl_reader;
    GRANT INSERT, UPDATE, DELETE
        ON public.virtual_numbers, public.redirect_numbers, public.sync_runs, public.quarantined_records TO etl_loader;
    -- What is past is never changed; `etl prune` deletes what is old.
    GRANT INSERT, DELETE ON public.virtual_numbers_history, public.redirect_numbers_history TO etl_loader;
    GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO etl_loader;
END
$$;
