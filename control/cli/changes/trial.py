"""A trial of the code on disk, for an engine that runs and is to be upgraded: `python -m
control.cli.changes.trial`, with a `TrialWish` on standard input.

It imports all that an engine's processes need, reads the configuration that the command line names,
and asks each database for its schema. It changes nothing. On standard output it says an `OnDisk`;
what is in the way is said on standard error, with exit code 2.
"""

import sys
from typing import Final

import msgspec

from control.cli.changes.legacy import Legacy
from control.cli.changes.renewal import OnDisk, TrialWish
from control.cli.main import parser
from control.cli.options import load
from engine.base.errors import EngineError
from engine.process.birth import load_target, settings_type
from engine.process.protocol import language
from engine.process.release import OURS, version
from engine.start import migrations
from engine.supervisor.spawning import Targets

_TARGETS: Final = Targets()


def main() -> int:
    """Try; return the exit code."""
    wish = msgspec.json.decode(sys.stdin.buffer.read(), type=TrialWish)
    try:
        _try(wish)
    except (EngineError, OSError) as error:
        sys.stderr.write(f"{' '.join(str(error).split())}\n")
        return 2
    said = msgspec.json.encode(OnDisk(version(), language(Legacy), OURS))
    sys.stdout.buffer.write(said + b"\n")
    return 0


def _try(wish: TrialWish) -> None:
    for target in (_TARGETS.shard, _TARGETS.writer, _TARGETS.control, _TARGETS.upkeep):
        settings_type(load_target(target))
    load(parser().parse_args(wish.arguments))
    for name, url in wish.urls.items():
        if missing := migrations.pending(url):
            raise EngineError(
                f"{name} lacks {', '.join(missing)} of the schema: `fts migrate` brings it up to"
                " date while the engine runs; then upgrade"
            )


if __name__ == "__main__":
    sys.exit(main())
