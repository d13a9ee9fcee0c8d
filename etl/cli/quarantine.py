"""`etl quarantine`: the records that were not loaded."""

import argparse

from sqlalchemy import select

from etl.cli.output import print_json, print_lines, print_table
from etl.cli.reading import connected
from etl.config import load_config
from etl.db.tables import quarantined_records

_HEADINGS = ("Source", "Since run", "Until run", "Position", "Id", "Reason", "What is wrong")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    config = load_config(options.config)
    columns = quarantined_records.c
    query = select(*(column for column in columns if not column.name.startswith("_"))).order_by(
        columns.source, columns.position, columns["_id"]
    )
    if options.source:
        query = query.where(columns.source == config.source(options.source).name)
    if not options.all:
        query = query.where(columns.valid_to_run.is_(None))
    with connected(config) as connection:
        rows = connection.execute(query).mappings().all()
    if options.json:
        print_json({"quarantined": [dict(row) for row in rows]})
    elif not rows:
        print_lines(["no quarantined records"])
    else:
        cells = ("source", "valid_from_run", "valid_to_run", "position", "number_id", "reason_code", "reason")
        print_table(
            _HEADINGS, [["" if row[name] is None else row[name] for name in cells] for row in rows], right=(1, 2, 3, 4)
        )
    return 0
