-- Three accounts for one database: one that migrates, one that loads, one that reads. None can do another's work.
-- For MariaDB 10.4 and later, and for MySQL 8.
--
-- Run it as an administrator before the first `etl db upgrade`, where it ends at its first grant on a table, for there
-- is none yet, and once more after every upgrade; it can be run any number of times:
--
--     mariadb < roles-mariadb.sql          # makes the accounts, then says that sync_runs does not exist
--     ETL_DATABASE_URL=mysql://etl_migrator:…@host/numbers etl db upgrade
--     mariadb < roles-mariadb.sql
--
-- The database `numbers`, the names and the hosts ('%': from anywhere) may be changed throughout this file.
-- Accounts are made locked; give each its own password and let it in:
--
--     ALTER USER 'etl_loader'@'%' IDENTIFIED BY '…' ACCOUNT UNLOCK;
--
-- The job then runs as etl_loader with database.migrate = "check", analysts and `etl status` as etl_reader.

CREATE USER IF NOT EXISTS 'etl_migrator'@'%' ACCOUNT LOCK;
CREATE USER IF NOT EXISTS 'etl_loader'@'%' ACCOUNT LOCK;
CREATE USER IF NOT EXISTS 'etl_reader'@'%' ACCOUNT LOCK;

-- Views read with the rights of who made them: keep this account as long as the views.
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES, CREATE VIEW, SHOW VIEW
    ON `numbers`.* TO 'etl_migrator'@'%';
GRANT SELECT ON `numbers`.* TO 'etl_loader'@'%';
GRANT SELECT ON `numbers`.* TO 'etl_reader'@'%';

-- From here on the tables must be there.
GRANT INSERT, UPDATE, DELETE ON `numbers`.`sync_runs` TO 'etl_loader'@'%';
GRANT INSERT, UPDATE, DELETE ON `numbers`.`virtual_numbers` TO 'etl_loader'@'%';
GRANT INSERT, UPDATE, DELETE ON `numbers`.`redirect_numbers` TO 'etl_loader'@'%';
GRANT INSERT, UPDATE, DELETE ON `numbers`.`quarantined_records` TO 'etl_loader'@'%';
-- What is past is never changed; `etl prune` deletes what is old.
GRANT INSERT, DELETE ON `numbers`.`virtual_numbers_history` TO 'etl_loader'@'%';
GRANT INSERT, DELETE ON `numbers`.`redirect_numbers_history` TO 'etl_loader'@'%';
