"""The database: its tables, engines, revisions, and the only place that asks which database it is."""
