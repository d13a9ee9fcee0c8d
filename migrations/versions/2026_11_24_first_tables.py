"""Live tables, history, the log of runs, quarantine, and the views that analysts query.

Every statement can be run again: MariaDB and MySQL commit each one by itself, and a killed upgrade starts over.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql, postgresql

revision = "2026_11_24_first_tables"
down_revision = None
branch_labels = None
depends_on = None

# Tables whose rows a downgrade of this revision deletes; `etl db downgrade` asks before it does.
drops_rows_of = (
    "redirect_numbers",
    "virtual_numbers",
    "redirect_numbers_history",
    "virtual_numbers_history",
    "quarantined_records",
    "sync_runs",
)

_VIEWS = ("number_redirects", "virtual_numbers_ever", "redirect_numbers_timeline", "virtual_numbers_timeline")

_LONG_TEXT = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
_JSON = _LONG_TEXT.with_variant(postgresql.JSON(), "postgresql")
_MOMENT = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_DIGEST = sa.LargeBinary(16).with_variant(mysql.BINARY(16), "mysql", "mariadb")


def upgrade() -> None:
    options = _table_options(op.get_bind().dialect)
    _create_sync_runs(options)
    op.create_table(
        "virtual_numbers",
        *_number_columns(),
        *_opened(),
        sa.Column("_fingerprint", _DIGEST, comment="Digest of the record's text; the loader's own"),
        sa.Column("_digest", _DIGEST, comment="Digest of the record's values and redirects; the loader's own"),
        sa.PrimaryKeyConstraint("source", "id", name="pk_virtual_numbers"),
        comment="The numbers of each source's last accepted snapshot",
        if_not_exists=True,
        **options,
    )
    op.create_table(
        "redirect_numbers",
        *_redirect_columns(),
        *_opened(),
        sa.PrimaryKeyConstraint("source", "virtual_number_id", "id", name="pk_redirect_numbers"),
        sa.ForeignKeyConstraint(
            ["source", "virtual_number_id"],
            ["virtual_numbers.source", "virtual_numbers.id"],
            name="fk_redirect_numbers_virtual_numbers",
        ),
        comment="The numbers redirected to each live number",
        if_not_exists=True,
        **options,
    )
    _create_history(options)
    _create_quarantine(options)
    _create_views()


def downgrade() -> None:
    for view in _VIEWS:
        op.execute(f"DROP VIEW IF EXISTS {view}")
    for table in drops_rows_of:
        op.drop_table(table, if_exists=True)


def _table_options(dialect: sa.Dialect) -> dict[str, Any]:
    # Only a collation that neither folds case nor ignores trailing blanks tells apart what the source tells apart.
    # MariaDB and MySQL give it different names, whichever of the two the URL says.
    collation = "utf8mb4_nopad_bin" if getattr(dialect, "is_mariadb", False) else "utf8mb4_0900_bin"
    values = {"engine": "InnoDB", "charset": "utf8mb4", "collate": collation, "row_format": "DYNAMIC"}
    return {f"{dialect.name}_{key}": value for key, value in values.items() if dialect.name in ("mysql", "mariadb")}


def _create_sync_runs(options: dict[str, Any]) -> None:
    op.create_table(
        "sync_runs",
        sa.Column(
            "id",
            _ROW_ID,
            primary_key=True,
            autoincrement=True,
            comment="Runs are ordered by this, never by the clock",
        ),
        sa.Column("source", sa.String(64), nullable=False, comment="Name of the account in the configuration"),
        sa.Column("started_at", _MOMENT, nullable=False, comment="The time of the run: valid_from of what it opened"),
        sa.Column("finished_at", _MOMENT, comment="NULL while running, and after a run that was killed"),
        sa.Column("outcome", sa.String(16), nullable=False, comment="running, succeeded, refused or failed"),
        sa.Column("error_code", sa.String(64), comment="Stable word for what went wrong"),
        sa.Column("error_message", _LONG_TEXT, comment="One line: what happened and what to do"),
        sa.Column("http_status", sa.Integer, comment="Status of the last answer, if any came"),
        sa.Column("attempts", sa.Integer, comment="Requests sent, retries included"),
        sa.Column("body_bytes", sa.BigInteger, comment="Size of the body after decompression"),
        sa.Column("body_sha256", sa.String(64), comment="Of the body after decompression, hexadecimal"),
        sa.Column("records_received", sa.BigInteger, comment="Elements of the array"),
        sa.Column("records_quarantined", sa.BigInteger, comment="Records that break a rule"),
        sa.Column("records_outside_filter", sa.BigInteger, comment="Good records that the request's filter excludes"),
        sa.Column("numbers_added", sa.BigInteger, comment="Rows of virtual_numbers"),
        sa.Column("numbers_changed", sa.BigInteger, comment="Rows of virtual_numbers"),
        sa.Column("numbers_removed", sa.BigInteger, comment="Rows of virtual_numbers"),
        sa.Column(
            "numbers_unchanged",
            sa.BigInteger,
            comment="Rows of virtual_numbers, those kept by quarantine included",
        ),
        sa.Column("redirects_added", sa.BigInteger, comment="Rows of redirect_numbers"),
        sa.Column("redirects_changed", sa.BigInteger, comment="Rows of redirect_numbers"),
        sa.Column("redirects_removed", sa.BigInteger, comment="Rows of redirect_numbers"),
        sa.Column("etl_version", sa.String(32), nullable=False, comment="Version of the program"),
        sa.Column(
            "_origin",
            sa.String(16),
            nullable=False,
            comment="Where the snapshot came from: api, file, archive or prune",
        ),
        sa.Column("_replay_of", sa.BigInteger, comment="The run whose archived body was loaded again"),
        sa.PrimaryKeyConstraint("id", name="pk_sync_runs"),
        comment="One row for every attempt to bring a source's tables to a snapshot",
        sqlite_autoincrement=True,
        if_not_exists=True,
        **options,
    )
    _create_index("ix_sync_runs_source", "sync_runs", "id")


def _create_history(options: dict[str, Any]) -> None:
    op.create_table(
        "virtual_numbers_history",
        *_number_columns(),
        *_opened(),
        *_closed(),
        sa.PrimaryKeyConstraint("source", "id", "valid_from_run", name="pk_virtual_numbers_history"),
        comment="Versions of numbers that are no longer live",
        if_not_exists=True,
        **options,
    )
    op.create_table(
        "redirect_numbers_history",
        *_redirect_columns(),
        *_opened(),
        *_closed(),
        sa.PrimaryKeyConstraint(
            "source", "virtual_number_id", "id", "valid_from_run", name="pk_redirect_numbers_history"
        ),
        comment="Versions of redirects that are no longer live",
        if_not_exists=True,
        **options,
    )
    for table in ("virtual_numbers_history", "redirect_numbers_history"):
        _create_index(f"ix_{table}_closed", table, "valid_to_run")


def _create_quarantine(options: dict[str, Any]) -> None:
    op.create_table(
        "quarantined_records",
        sa.Column("_id", _ROW_ID, primary_key=True, autoincrement=True, comment="The loader's own"),
        sa.Column("source", sa.String(64), nullable=False, comment="Name of the account in the configuration"),
        sa.Column("valid_from_run", sa.BigInteger, nullable=False, comment="The run that met it first"),
        sa.Column(
            "valid_to_run",
            sa.BigInteger,
            comment="The run whose snapshot no longer held it, NULL while it is there",
        ),
        sa.Column(
            "position",
            sa.BigInteger,
            nullable=False,
            comment="0-based, in the array of the run that met it first",
        ),
        sa.Column("number_id", sa.BigInteger, comment="NULL if it could not be read"),
        sa.Column("reason_code", sa.String(64), nullable=False, comment="Stable word for the rule it breaks"),
        sa.Column("reason", _LONG_TEXT, nullable=False, comment="What is wrong with it"),
        sa.Column("record", _LONG_TEXT, nullable=False, comment="Its JSON text, as received"),
        sa.Column("_identity", _DIGEST, nullable=False, comment="Tells the same bad record again; the loader's own"),
        sa.PrimaryKeyConstraint("_id", name="pk_quarantined_records"),
        comment="Records that were not loaded, and why",
        sqlite_autoincrement=True,
        if_not_exists=True,
        **options,
    )
    _create_index("ix_quarantined_records_open", "quarantined_records", "valid_to_run")


def _create_index(name: str, table: str, column: str) -> None:
    # MySQL has no CREATE INDEX IF NOT EXISTS.
    if name not in {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(table)}:
        op.create_index(name, table, ["source", column])


def _number_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("source", sa.String(64), nullable=False, comment="Name of the account in the configuration"),
        sa.Column("id", sa.BigInteger, nullable=False, autoincrement=False, comment="Identity of the virtual number"),
        sa.Column("number", _LONG_TEXT, nullable=False, comment="The phone number as received: digits, no +"),
        sa.Column("comment", _LONG_TEXT, comment="Note on the number (заметка)"),
        sa.Column("type", _LONG_TEXT, nullable=False, comment="def: mobile, abc: city"),
        sa.Column("purpose", _LONG_TEXT, comment="Назначение: company or employee; anything else is new to us"),
        sa.Column("scenario_id", sa.BigInteger, comment="Inbound scenario bound to the number"),
        sa.Column("group_scenario_id", sa.BigInteger, comment="Inbound scenario of the number's group"),
        sa.Column("group_id", sa.BigInteger, comment="Group of numbers for inbound scenarios"),
        sa.Column("is_scenario_active", sa.Boolean, comment="Is the inbound scenario active"),
        sa.Column("is_group_scenario_active", sa.Boolean, comment="Is the group's inbound scenario active"),
        sa.Column("state", _LONG_TEXT, nullable=False, comment="Состояние: always active, for the request asks for it"),
        sa.Column("reason", _LONG_TEXT, comment="Why the state changed"),
        sa.Column("employee_id", sa.BigInteger, comment="Employee the number is assigned to"),
        sa.Column("dgn_number", _LONG_TEXT, comment="Additional city number (ДГН)"),
        sa.Column("redirect_number", _LONG_TEXT, comment="Number to redirect to"),
        sa.Column("region_name", _LONG_TEXT, comment="Region of the number"),
        sa.Column("sip_uri", _LONG_TEXT, comment="SIP URI, for SIP redirection"),
        sa.Column("nc_type", _LONG_TEXT, comment="Kind of number capacity"),
        sa.Column("app_id", sa.BigInteger, comment="The account (личный кабинет)"),
        sa.Column("extra", _JSON, comment="JSON object of fields this version does not know, NULL if none"),
    ]


def _redirect_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("source", sa.String(64), nullable=False, comment="Name of the account in the configuration"),
        sa.Column(
            "virtual_number_id",
            sa.BigInteger,
            nullable=False,
            autoincrement=False,
            comment="The number redirected to",
        ),
        sa.Column(
            "id", sa.BigInteger, nullable=False, autoincrement=False, comment="Identity of the redirected number"
        ),
        sa.Column("number", _LONG_TEXT, nullable=False, comment="The redirected phone number as received"),
        sa.Column("extra", _JSON, comment="JSON object of fields this version does not know, NULL if none"),
    ]


def _opened() -> list[sa.Column[Any]]:
    return [
        sa.Column(
            "valid_from_run",
            sa.BigInteger,
            nullable=False,
            autoincrement=False,
            comment="The run that made this version live",
        ),
        sa.Column("valid_from", _MOMENT, nullable=False, comment="started_at of that run"),
    ]


def _closed() -> list[sa.Column[Any]]:
    return [
        sa.Column(
            "valid_to_run", sa.BigInteger, nullable=False, comment="The run that changed or removed this version"
        ),
        sa.Column("valid_to", _MOMENT, nullable=False, comment="started_at of that run"),
    ]


def _create_views() -> None:
    number = (
        "source, id, number, comment, type, purpose, scenario_id, group_scenario_id, group_id, is_scenario_active, "
        "is_group_scenario_active, state, reason, employee_id, dgn_number, redirect_number, region_name, sip_uri, "
        "nc_type, app_id, extra, valid_from_run, valid_from"
    )
    redirect = "source, virtual_number_id, id, number, extra, valid_from_run, valid_from"
    _create_timeline("virtual_numbers", number)
    _create_timeline("redirect_numbers", redirect)
    moment = _null_moment()
    _create_view(
        "virtual_numbers_ever",
        f"SELECT {number}, {moment} AS removed_at FROM virtual_numbers "
        f"UNION ALL SELECT {number}, valid_to AS removed_at FROM virtual_numbers_history AS closed "
        "WHERE NOT EXISTS (SELECT 1 FROM virtual_numbers AS live "
        "WHERE live.source = closed.source AND live.id = closed.id) "
        "AND NOT EXISTS (SELECT 1 FROM virtual_numbers_history AS later WHERE later.source = closed.source "
        "AND later.id = closed.id AND later.valid_from_run > closed.valid_from_run)",
    )
    _create_view(
        "number_redirects",
        "SELECT numbers.source, numbers.id, numbers.number, numbers.comment, redirects.id AS redirect_id, "
        "redirects.number AS redirected_number FROM virtual_numbers AS numbers LEFT JOIN redirect_numbers AS redirects "
        "ON redirects.source = numbers.source AND redirects.virtual_number_id = numbers.id",
    )


def _create_timeline(table: str, columns: str) -> None:
    run = "CAST(NULL AS bigint)" if op.get_bind().dialect.name == "postgresql" else "NULL"
    _create_view(
        f"{table}_timeline",
        f"SELECT {columns}, {run} AS valid_to_run, {_null_moment()} AS valid_to FROM {table} "
        f"UNION ALL SELECT {columns}, valid_to_run, valid_to FROM {table}_history",
    )


def _null_moment() -> str:
    # PostgreSQL would take a bare NULL in the first part of a union for text.
    return "CAST(NULL AS timestamptz)" if op.get_bind().dialect.name == "postgresql" else "NULL"


def _create_view(name: str, query: str) -> None:
    how = "VIEW IF NOT EXISTS" if op.get_bind().dialect.name == "sqlite" else "OR REPLACE VIEW"
    op.execute(f"CREATE {how} {name} AS {query}")
