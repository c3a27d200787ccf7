"""Stored rows as Parquet files and back: `kind=…/venue=…/date=…`, exact, proven against a manifest.

Used by the command line and by the archive before a day is dropped. Needs pyarrow, so whoever is
not sure to have it imports this late. Imports `database` and below, never the writer.
"""
