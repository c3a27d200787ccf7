"""Settings and rows of the writer, for the packages beside it that need a sink."""

from tests.engine.writer.conftest import make_settings, slots, trades

__all__ = ["make_settings", "slots", "trades"]
