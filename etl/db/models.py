"""The tables as SQLAlchemy ORM classes, for those who query with Python.

    from sqlalchemy import select
    from sqlalchemy.orm import Session
    from etl.db.models import VirtualNumber

    with Session(engine) as session:
        for number in session.scalars(select(VirtualNumber).where(VirtualNumber.source == "main")):
            print(number.number, [redirect.number for redirect in number.redirects])

They share the table objects of `etl.db.tables`, so there is one description of the schema.
"""

from datetime import datetime

from sqlalchemy.orm import DeclarativeBase, Mapped, relationship

from etl.db import tables

for _table in tables.NUMBERED_ONCE:
    _table.dialect_kwargs["sqlite_autoincrement"] = True


class Base(DeclarativeBase):
    """Base of the mapped classes."""

    metadata = tables.metadata


class _Number:
    source: Mapped[str]
    id: Mapped[int]
    number: Mapped[str]
    comment: Mapped[str | None]
    type: Mapped[str]
    purpose: Mapped[str | None]
    scenario_id: Mapped[int | None]
    group_scenario_id: Mapped[int | None]
    group_id: Mapped[int | None]
    is_scenario_active: Mapped[bool | None]
    is_group_scenario_active: Mapped[bool | None]
    state: Mapped[str]
    reason: Mapped[str | None]
    employee_id: Mapped[int | None]
    dgn_number: Mapped[str | None]
    redirect_number: Mapped[str | None]
    region_name: Mapped[str | None]
    sip_uri: Mapped[str | None]
    nc_type: Mapped[str | None]
    app_id: Mapped[int | None]
    extra: Mapped[str | None]
    valid_from_run: Mapped[int]
    valid_from: Mapped[datetime]


class _Redirect:
    source: Mapped[str]
    virtual_number_id: Mapped[int]
    id: Mapped[int]
    number: Mapped[str]
    extra: Mapped[str | None]
    valid_from_run: Mapped[int]
    valid_from: Mapped[datetime]


class _Closed:
    valid_to_run: Mapped[int]
    valid_to: Mapped[datetime]


class VirtualNumber(_Number, Base):
    """A number of its source's last accepted snapshot."""

    __table__ = tables.virtual_numbers

    redirects: Mapped[list["RedirectNumber"]] = relationship(
        back_populates="virtual_number", order_by=tables.redirect_numbers.c.id, viewonly=True
    )


class RedirectNumber(_Redirect, Base):
    """A number redirected to a live virtual number."""

    __table__ = tables.redirect_numbers

    virtual_number: Mapped[VirtualNumber] = relationship(back_populates="redirects", viewonly=True)


class VirtualNumberHistory(_Number, _Closed, Base):
    """A version of a number that is no longer live."""

    __table__ = tables.virtual_numbers_history


class RedirectNumberHistory(_Redirect, _Closed, Base):
    """A version of a redirect that is no longer live."""

    __table__ = tables.redirect_numbers_history


class SyncRun(Base):
    """One attempt to bring a source's tables to a snapshot."""

    __table__ = tables.sync_runs

    id: Mapped[int]
    source: Mapped[str]
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    outcome: Mapped[str]
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    http_status: Mapped[int | None]
    attempts: Mapped[int | None]
    body_bytes: Mapped[int | None]
    body_sha256: Mapped[str | None]
    records_received: Mapped[int | None]
    records_quarantined: Mapped[int | None]
    records_outside_filter: Mapped[int | None]
    numbers_added: Mapped[int | None]
    numbers_changed: Mapped[int | None]
    numbers_removed: Mapped[int | None]
    numbers_unchanged: Mapped[int | None]
    redirects_added: Mapped[int | None]
    redirects_changed: Mapped[int | None]
    redirects_removed: Mapped[int | None]
    etl_version: Mapped[str]


class QuarantinedRecord(Base):
    """A record that was not loaded, and why."""

    __table__ = tables.quarantined_records

    source: Mapped[str]
    valid_from_run: Mapped[int]
    valid_to_run: Mapped[int | None]
    position: Mapped[int]
    number_id: Mapped[int | None]
    reason_code: Mapped[str]
    reason: Mapped[str]
    record: Mapped[str]
