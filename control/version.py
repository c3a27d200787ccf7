"""Which version this is."""

from importlib import metadata


def version() -> str:
    """The installed version, or a note that this is a bare checkout."""
    try:
        return metadata.version("fintickstreams")
    except metadata.PackageNotFoundError:
        return "0 (not installed)"
