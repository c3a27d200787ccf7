"""The dashboard at `/ui`."""

from control.ui.pages import PUBLIC_PATHS, routes

__all__ = ["PUBLIC_PATHS", "routes"]
