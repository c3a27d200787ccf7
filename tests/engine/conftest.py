"""Rows, catalogs and settings of the writer, for the packages beside it that need a sink."""

from tests.engine.writer.conftest import layout, make_settings, slots, trades

__all__ = ["layout", "make_settings", "slots", "trades"]
