"""The tables and views, as SQLAlchemy Core describes them.

The job itself needs no ORM, whose import costs a cron run more than its work; the mapped classes for those who do want
one are in `etl.db.models`. The migrations own the schema: a test holds this description and theirs together.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    cast,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.types import UserDefinedType

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC, to the microsecond; always an aware datetime in Python."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        """Choose timestamptz, datetime(6) or, on SQLite, text that sorts as time does."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(DateTime(timezone=True))
        if dialect.name in ("mysql", "mariadb"):
            from sqlalchemy.dialects.mysql import DATETIME  # noqa: PLC0415 - for these databases only

            return dialect.type_descriptor(DATETIME(fsp=6))
        return dialect.type_descriptor(DateTime())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give databases without time zones a naive datetime, in UTC."""
        if value is None or dialect.name == "postgresql":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - the base class's signature
        """Return the moment in UTC, whatever the session's time zone."""
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


class PostgresJson(UserDefinedType[str]):
    """PostgreSQL's textual `json`, passed as text both ways: its numbers may exceed all that Python or jsonb holds."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Return the type's name in DDL."""
        return "JSON"

    def column_expression(self, colexpr: ColumnElement[Any]) -> ColumnElement[str]:
        """Read it as text: the driver would parse it otherwise."""
        return cast(colexpr, Text)


# MariaDB and MySQL have names of their own for what the others call text, bytes and a moment. They are given here, for
# SQLAlchemy's types of these names live in a module that a run on another database need not import.


class LongText(Text):
    """Text without a limit; MySQL's TEXT ends at 65,535 bytes, and a comment does not."""

    cache_ok = True


class Digest(LargeBinary):
    """16 bytes."""

    cache_ok = True


@compiles(LongText, "mysql", "mariadb")
def _long_text_on_mysql(*_: Any, **__: Any) -> str:
    return "LONGTEXT"


@compiles(Digest, "mysql", "mariadb")
def _digest_on_mysql(*_: Any, **__: Any) -> str:
    return "BINARY(16)"


LONG_TEXT = LongText()
DIGEST = Digest(16)
JSON_TEXT = LONG_TEXT.with_variant(PostgresJson(), "postgresql")
# SQLite numbers rows by itself only in a column that is an INTEGER.
ROW_ID = BigInteger().with_variant(Integer(), "sqlite")

sync_runs = Table(
    "sync_runs",
    metadata,
    Column("id", ROW_ID, primary_key=True, autoincrement=True, comment="Runs are ordered by this, never by the clock"),
    Column("source", String(64), nullable=False, comment="Name of the account in the configuration"),
    Column("started_at", UtcDateTime, nullable=False, comment="The time of the run: valid_from of what it opened"),
    Column("finished_at", UtcDateTime, comment="NULL while running, and after a run that was killed"),
    Column("outcome", String(16), nullable=False, comment="running, succeeded, refused or failed"),
    Column("error_code", String(64), comment="Stable word for what went wrong"),
    Column("error_message", LONG_TEXT, comment="One line: what happened and what to do"),
    Column("http_status", Integer, comment="Status of the last answer, if any came"),
    Column("attempts", Integer, comment="Requests sent, retries included"),
    Column("body_bytes", BigInteger, comment="Size of the body after decompression"),
    Column("body_sha256", String(64), comment="Of the body after decompression, hexadecimal"),
    Column("records_received", BigInteger, comment="Elements of the array"),
    Column("records_quarantined", BigInteger, comment="Records that break a rule"),
    Column("records_outside_filter", BigInteger, comment="Good records that the request's filter excludes"),
    Column("numbers_added", BigInteger, comment="Rows of virtual_numbers"),
    Column("numbers_changed", BigInteger, comment="Rows of virtual_numbers"),
    Column("numbers_removed", BigInteger, comment="Rows of virtual_numbers"),
    Column("numbers_unchanged", BigInteger, comment="Rows of virtual_numbers, those kept by quarantine included"),
    Column("redirects_added", BigInteger, comment="Rows of redirect_numbers"),
    Column("redirects_changed", BigInteger, comment="Rows of redirect_numbers"),
    Column("redirects_removed", BigInteger, comment="Rows of redirect_numbers"),
    Column("etl_version", String(32), nullable=False, comment="Version of the program"),
    Column("_origin", String(16), nullable=False, comment="Where the snapshot came from: api, file, archive or prune"),
    Column("_replay_of", BigInteger, comment="The run whose archived body was loaded again"),
    Index("ix_sync_runs_source", "source", "id"),
    comment="One row for every attempt to bring a source's tables to a snapshot",
)


def _number_columns() -> list[Column[Any]]:
    return [
        Column("source", String(64), primary_key=True, comment="Name of the account in the configuration"),
        Column("id", BigInteger, primary_key=True, autoincrement=False, comment="Identity of the virtual number"),
        Column("number", LONG_TEXT, nullable=False, comment="The phone number as received: digits, no +"),
        Column("comment", LONG_TEXT, comment="Note on the number (заметка)"),
        Column("type", LONG_TEXT, nullable=False, comment="def: mobile, abc: city"),
        Column("purpose", LONG_TEXT, comment="Назначение: company or employee; anything else is new to us"),
        Column("scenario_id", BigInteger, comment="Inbound scenario bound to the number"),
        Column("group_scenario_id", BigInteger, comment="Inbound scenario of the number's group"),
        Column("group_id", BigInteger, comment="Group of numbers for inbound scenarios"),
        Column("is_scenario_active", Boolean, comment="Is the inbound scenario active"),
        Column("is_group_scenario_active", Boolean, comment="Is the group's inbound scenario active"),
        Column("state", LONG_TEXT, nullable=False, comment="Состояние: always active, for the request asks for it"),
        Column("reason", LONG_TEXT, comment="Why the state changed"),
        Column("employee_id", BigInteger, comment="Employee the number is assigned to"),
        Column("dgn_number", LONG_TEXT, comment="Additional city number (ДГН)"),
        Column("redirect_number", LONG_TEXT, comment="Number to redirect to"),
        Column("region_name", LONG_TEXT, comment="Region of the number"),
        Column("sip_uri", LONG_TEXT, comment="SIP URI, for SIP redirection"),
        Column("nc_type", LONG_TEXT, comment="Kind of number capacity"),
        Column("app_id", BigInteger, comment="The account (личный кабинет)"),
        Column("extra", JSON_TEXT, comment="JSON object of fields this version does not know, NULL if none"),
    ]


def _redirect_columns() -> list[Column[Any]]:
    return [
        Column("source", String(64), primary_key=True, comment="Name of the account in the configuration"),
        Column(
            "virtual_number_id", BigInteger, primary_key=True, autoincrement=False, comment="The number redirected to"
        ),
        Column("id", BigInteger, primary_key=True, autoincrement=False, comment="Identity of the redirected number"),
        Column("number", LONG_TEXT, nullable=False, comment="The redirected phone number as received"),
        Column("extra", JSON_TEXT, comment="JSON object of fields this version does not know, NULL if none"),
    ]


def _opened(*, key: bool = False) -> list[Column[Any]]:
    return [
        Column(
            "valid_from_run", BigInteger, primary_key=key, autoincrement=False, nullable=False,
            comment="The run that made this version live",
        ),
        Column("valid_from", UtcDateTime, nullable=False, comment="started_at of that run"),
    ]  # fmt: skip


def _closed() -> list[Column[Any]]:
    return [
        Column("valid_to_run", BigInteger, nullable=False, comment="The run that changed or removed this version"),
        Column("valid_to", UtcDateTime, nullable=False, comment="started_at of that run"),
    ]


virtual_numbers = Table(
    "virtual_numbers",
    metadata,
    *_number_columns(),
    *_opened(),
    Column("_fingerprint", DIGEST, comment="Digest of the record's text; the loader's own"),
    Column("_digest", DIGEST, comment="Digest of the record's values and redirects; the loader's own"),
    comment="The numbers of each source's last accepted snapshot",
)

redirect_numbers = Table(
    "redirect_numbers",
    metadata,
    *_redirect_columns(),
    *_opened(),
    ForeignKeyConstraint(["source", "virtual_number_id"], ["virtual_numbers.source", "virtual_numbers.id"]),
    comment="The numbers redirected to each live number",
)

virtual_numbers_history = Table(
    "virtual_numbers_history",
    metadata,
    *_number_columns(),
    *_opened(key=True),
    *_closed(),
    Index("ix_virtual_numbers_history_closed", "source", "valid_to_run"),
    comment="Versions of numbers that are no longer live",
)

redirect_numbers_history = Table(
    "redirect_numbers_history",
    metadata,
    *_redirect_columns(),
    *_opened(key=True),
    *_closed(),
    Index("ix_redirect_numbers_history_closed", "source", "valid_to_run"),
    comment="Versions of redirects that are no longer live",
)

quarantined_records = Table(
    "quarantined_records",
    metadata,
    Column("_id", ROW_ID, primary_key=True, autoincrement=True, comment="The loader's own"),
    Column("source", String(64), nullable=False, comment="Name of the account in the configuration"),
    Column("valid_from_run", BigInteger, nullable=False, comment="The run that met it first"),
    Column("valid_to_run", BigInteger, comment="The run whose snapshot no longer held it, NULL while it is there"),
    Column("position", BigInteger, nullable=False, comment="0-based, in the array of the run that met it first"),
    Column("number_id", BigInteger, comment="NULL if it could not be read"),
    Column("reason_code", String(64), nullable=False, comment="Stable word for the rule it breaks"),
    Column("reason", LONG_TEXT, nullable=False, comment="What is wrong with it"),
    Column("record", LONG_TEXT, nullable=False, comment="Its JSON text, as received"),
    Column("_identity", DIGEST, nullable=False, comment="Tells the same bad record again; the loader's own"),
    Index("ix_quarantined_records_open", "source", "valid_to_run"),
    comment="Records that were not loaded, and why",
)

NUMBERED_ONCE = (sync_runs, quarantined_records)
"""On SQLite these are `sqlite_autoincrement`: a number is never given twice. Said here, it would import that dialect in
every run on any database; what creates tables says it."""

TIMELINE_NUMBERS = "virtual_numbers_timeline"
TIMELINE_REDIRECTS = "redirect_numbers_timeline"


def _view(name: str, columns: list[Column[Any]]) -> Table:
    # A registry of its own: what is not a table must not be created as one.
    return Table(name, MetaData(), *columns)


virtual_numbers_timeline = _view(TIMELINE_NUMBERS, [*_number_columns(), *_opened(key=True), *_closed()])
redirect_numbers_timeline = _view(TIMELINE_REDIRECTS, [*_redirect_columns(), *_opened(key=True), *_closed()])
