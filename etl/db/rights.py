"""What the database lets this user do, found out without leaving a trace."""

from sqlalchemy import Connection, Table, delete, false, insert, inspect, select, text, update

from etl.db.failures import database_failures
from etl.db.tables import metadata

_PROBE = "virtual_numbers_etl_doctor"
_NEEDED_TO_MIGRATE = frozenset(
    {"CREATE", "ALTER", "DROP", "INDEX", "REFERENCES", "CREATE VIEW", "SELECT", "INSERT", "UPDATE", "DELETE"}
)


def try_rows(connection: Connection) -> int:
    """Read, insert, update and delete no row at all of each table that is there; returns how many tables there are.

    The database checks the right to do so all the same. Raises NotPermittedError where one is missing.
    """
    with database_failures("the right to read and write rows"):
        transaction = connection.begin()
        try:
            existing = set(inspect(connection).get_table_names())
            tables = [table for table in metadata.sorted_tables if table.name in existing]
            for table in tables:
                _try_table(connection, table)
        finally:
            transaction.rollback()
    return len(tables)


def _try_table(connection: Connection, table: Table) -> None:
    names = [column.name for column in table.columns]
    none = select(table).where(false())
    connection.execute(none)
    connection.execute(insert(table).from_select(names, none, include_defaults=False))
    connection.execute(update(table).where(false()).values(source=table.c.source))
    connection.execute(delete(table).where(false()))


def try_create(connection: Connection) -> frozenset[str]:
    """Make a table and roll it back; returns the rights that seem to be missing.

    MariaDB and MySQL cannot roll that back, so there the grants are read instead; one that comes by a role is not seen.
    Raises NotPermittedError where the attempt was refused.
    """
    if connection.dialect.name in ("mysql", "mariadb"):
        return _NEEDED_TO_MIGRATE - _grants(connection)
    with database_failures("the right to create tables"):
        transaction = connection.begin()
        try:
            connection.execute(text(f"CREATE TABLE {_PROBE} (id integer)"))
        finally:
            transaction.rollback()
    return frozenset()


def _grants(connection: Connection) -> frozenset[str]:
    # Names of databases are patterns there, as in LIKE.
    query = text(
        "SELECT privilege_type FROM information_schema.user_privileges WHERE grantee = :grantee "
        "UNION SELECT privilege_type FROM information_schema.schema_privileges "
        "WHERE grantee = :grantee AND DATABASE() LIKE table_schema"
    )
    with database_failures(), connection.begin():
        user, _, host = str(connection.execute(text("SELECT CURRENT_USER()")).scalar_one()).rpartition("@")
        return frozenset(connection.scalars(query, {"grantee": f"'{user}'@'{host}'"}))
