"""Exit codes of the command line."""

import enum


class Exit(enum.IntEnum):
    """What `fts` tells the shell."""

    OK = 0
    FAILED = 1
    """It ran, and something is wrong: rows missing, a check red, stopped by force."""
    USAGE = 2
    """It cannot run like this: configuration, port, symbols. Nothing was left running."""
    BUSY = 3
    """Another engine runs on the same state directory."""
    UNREACHABLE = 3
    """No engine answers (commands that ask a running one)."""
    UNFINISHED = 4
    """It ended in order, and something is left to do: rows wait for the next start or are in
    quarantine, streams failed, or none ever delivered."""
