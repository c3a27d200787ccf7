"""The rig of the flow tests, to be broken on purpose."""

from tests.flow.conftest import make_rig

__all__ = ["make_rig"]
