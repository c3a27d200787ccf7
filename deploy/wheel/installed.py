"""fintickstreams as it is installed: one package that holds `engine`, `shards`, `control`, `sql`.

Those import each other by their own names. Only what is started here gets to see them: this
directory goes on the path of our own processes (`engine.process.child` hands it on), and nobody
else's `control` is hidden from anybody.
"""

import sys
from pathlib import Path


def main() -> int:
    """The command line."""
    sys.path.insert(0, str(Path(__file__).parent))
    from control.cli.main import main as run  # noqa: PLC0415 - not to be found before

    return run()
