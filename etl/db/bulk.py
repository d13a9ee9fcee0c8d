"""The fastest way each database has for many rows: past SQLAlchemy's own, which looks at every value of every row."""

import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing
from functools import cache
from itertools import islice
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    DateTime,
    Insert,
    Integer,
    LargeBinary,
    Table,
    TypeDecorator,
    insert,
    select,
)
from sqlalchemy.types import TypeEngine

from etl.db.tables import virtual_numbers

Row = Sequence[Any]

_ROWS_PER_BATCH = 5_000
_CHARACTERS_PER_STATEMENT = 250_000
"""At most a megabyte, which every MySQL accepts, unless one row is larger than that."""

# A number without a fingerprint has its id in hexadecimal for one, and no digest begins with a digit.
_ONE_BY_ONE_ON_SQLITE = (
    "SELECT coalesce(_fingerprint, cast(printf('%016x', id) AS BLOB)), id FROM virtual_numbers WHERE source = ?"
)
# Servers join the values of many rows faster than drivers take rows apart.
_JOINED = {
    "psycopg": "SELECT count(*), string_agg(coalesce(_fingerprint, convert_to(lpad(to_hex(id), 16, '0'), 'UTF8')) "
    "|| int8send(id), '') FROM virtual_numbers WHERE source = %s GROUP BY id %% 16",
    "pymysql": "SELECT count(*), group_concat(concat(coalesce(_fingerprint, lpad(lower(hex(id)), 16, '0')), "
    "unhex(lpad(hex(id), 16, '0'))) SEPARATOR '') FROM virtual_numbers WHERE source = %s GROUP BY id DIV 20000",
}
_JOINED_ROW = struct.Struct(">16sq")
_JOINED_LENGTH_ON_MYSQL = 1_048_576

Fingerprints = Iterator[tuple[int, Iterable[tuple[bytes, int]]]]


def fetch_fingerprints(connection: Connection, source: str) -> Fingerprints:
    """Yield fingerprint and id of all live numbers of a source, many at a time with their count, in no order."""
    driver = connection.dialect.driver
    if driver == "pysqlite":
        with closing(connection.connection.cursor()) as cursor:
            cursor.execute(_ONE_BY_ONE_ON_SQLITE, (source,))
            while rows := cursor.fetchmany(_ROWS_PER_BATCH):
                yield len(rows), rows
        return
    if driver in _JOINED:
        groups = _fetch_joined(connection, source)
        # What is too long for MySQL's `max_allowed_packet` is cut off with no more than a warning.
        if all(len(joined or b"") == count * _JOINED_ROW.size for count, joined in groups):
            yield from ((count, _JOINED_ROW.iter_unpack(joined)) for count, joined in groups)
            return
    yield from _fetch_one_by_one(connection, source)


def _fetch_joined(connection: Connection, source: str) -> Sequence[Row]:
    raw: Any = connection.connection
    driver = connection.dialect.driver
    # In PostgreSQL's text format, bytes would come as twice as many hexadecimal digits.
    with closing(raw.cursor(binary=True) if driver == "psycopg" else raw.cursor()) as cursor:
        if driver == "pymysql":
            cursor.execute(f"SET SESSION group_concat_max_len = {_JOINED_LENGTH_ON_MYSQL}")
        cursor.execute(_JOINED[driver], (source,))
        groups: Sequence[Row] = cursor.fetchall()
        return groups


def _fetch_one_by_one(connection: Connection, source: str) -> Fingerprints:
    columns = virtual_numbers.c
    query = select(columns["_fingerprint"], columns.id).where(columns.source == source)
    for rows in connection.execute(query).partitions(_ROWS_PER_BATCH):
        yield len(rows), [(b"%016x" % identity if mark is None else mark, identity) for mark, identity in rows]


def bulk_insert(
    connection: Connection, table: Table, rows: Collection[Row], meanwhile: Callable[[], None] | None = None
) -> None:
    """Insert rows, whose values stand in the order of the table's columns.

    `meanwhile` may be called, once, while the server is at work on what it was sent.
    """
    if not rows:
        return
    if connection.dialect.driver == "psycopg":
        _copy(connection, table, rows, meanwhile)
    elif connection.dialect.driver == "pymysql":
        _insert_literals(connection, table, rows)
    else:
        _execute_many(connection, insert(table), table, rows)


def upsert(connection: Connection, table: Table, rows: Iterable[Row]) -> None:
    """Insert rows, or give those that are there already all the new values."""
    keys = [column.name for column in table.primary_key]
    others = [column.name for column in table.columns if column.name not in keys]
    if connection.dialect.name in ("mysql", "mariadb"):
        from sqlalchemy.dialects.mysql import insert as insert_on_mysql  # noqa: PLC0415 - other databases do without

        on_mysql = insert_on_mysql(table)
        statement = on_mysql.on_duplicate_key_update({name: on_mysql.inserted[name] for name in others})
        _execute_many(connection, statement, table, rows)
        return
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as insert_or_update  # noqa: PLC0415 - as above
    else:
        from sqlalchemy.dialects.sqlite import insert as insert_or_update  # type: ignore[assignment] # noqa: PLC0415 - as above
    fresh = insert_or_update(table)
    _execute_many(
        connection,
        fresh.on_conflict_do_update(index_elements=keys, set_={name: fresh.excluded[name] for name in others}),
        table,
        rows,
    )


def _execute_many(connection: Connection, statement: Insert, table: Table, rows: Iterable[Row]) -> None:
    names = [column.name for column in table.columns]
    compiled = statement.compile(dialect=connection.dialect, column_keys=names)
    by_name = not compiled.positional
    iterator = iter(rows)
    while batch := list(islice(iterator, _ROWS_PER_BATCH)):
        parameters = [dict(zip(names, row, strict=True)) for row in batch] if by_name else [tuple(row) for row in batch]
        connection.exec_driver_sql(compiled.string, parameters)


def _insert_literals(connection: Connection, table: Table, rows: Iterable[Row]) -> None:
    # PyMySQL writes all values into the statement's text, whoever asks; its `executemany` takes twice as long for it.
    literal = _literal_writer(connection.connection)
    head = f"INSERT INTO {_name_and_columns(connection, table)} VALUES "  # noqa: S608 - names of our own tables
    tuples: list[str] = []
    length = 0
    for row in rows:
        text = f"({','.join(map(literal, row))})"
        length += len(text)
        if tuples and length > _CHARACTERS_PER_STATEMENT:
            _execute_text(connection, head + ",".join(tuples))
            tuples, length = [], len(text)
        tuples.append(text)
    if tuples:
        _execute_text(connection, head + ",".join(tuples))


def _execute_text(connection: Connection, statement: str) -> None:
    # Without parameters, lest a percent sign in a comment be taken for one.
    connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def _literal_writer(driver_connection: Any) -> Callable[[Any], str]:
    # What is not plain is left to the driver, which knows the session's settings.
    mogrify = driver_connection.cursor().mogrify

    @cache
    def moment(value: Any) -> str:
        return str(mogrify("%s", (value,)))

    def literal(value: Any) -> str:
        if value is None:
            return "NULL"
        if isinstance(value, str):
            return f"'{value}'" if "'" not in value and "\\" not in value else str(mogrify("%s", (str(value),)))
        if isinstance(value, int):
            return f"{value:d}"
        if isinstance(value, bytes):
            return f"x'{value.hex()}'"
        return moment(value)

    return literal


def _name_and_columns(connection: Connection, table: Table) -> str:
    preparer = connection.dialect.identifier_preparer
    columns = ", ".join(preparer.format_column(column) for column in table.columns)
    return f"{preparer.format_table(table)} ({columns})"


# What COPY's binary format needs to know. `json` travels as the same bytes as text.
_COPY_TYPES = {BigInteger: "int8", Integer: "int4", Boolean: "bool", LargeBinary: "bytea", DateTime: "timestamptz"}


def _copy(connection: Connection, table: Table, rows: Iterable[Row], meanwhile: Callable[[], None] | None) -> None:
    statement = f"COPY {_name_and_columns(connection, table)} FROM STDIN (FORMAT BINARY)"
    types = [
        next((name for kind, name in _COPY_TYPES.items() if isinstance(_bare_type(column), kind)), "text")
        for column in table.columns
    ]
    cursor: Any = connection.connection.cursor()
    try:
        with cursor.copy(statement) as copy:
            copy.set_types(types)
            for row in rows:
                copy.write_row(row)
            # At its end the block waits for the server.
            cursor.connection.meanwhile = meanwhile
    finally:
        cursor.connection.meanwhile = None
    cursor.close()


def _bare_type(column: Column[Any]) -> Any:
    return column.type.impl_instance if isinstance(column.type, TypeDecorator) else column.type


def driver_value(connection: Connection, kind: TypeEngine[Any], value: Any) -> Any:
    """Return a value as the driver wants it in `bulk_insert` and `upsert`, which convert nothing."""
    processor = kind.dialect_impl(connection.dialect).bind_processor(connection.dialect)
    return processor(value) if processor else value
