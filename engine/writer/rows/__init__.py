"""Rows on their way out: slices, screening, exactness, COPY, JSON, what is withheld or refused.

Imports nothing of the writer.
Never knows sinks; does no I/O but the quarantine file.
"""
