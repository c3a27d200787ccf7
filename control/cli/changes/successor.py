"""The program that the first process of an engine becomes when it is upgraded: `python -m
control.cli.changes.successor FD`, with a `Legacy` in that file. `check` in its place reads one from
standard input, and says with its exit code whether this code understands it.
"""

import sys

import msgspec

from control.cli.changes.legacy import Back, Legacy
from control.cli.commands import up
from control.cli.main import parser, run_command
from engine.base.errors import EngineError


def main() -> int:
    """Go on as the engine; return the exit code."""
    if sys.argv[1:] == ["check"]:
        return _check()
    back = Back(Legacy.read(int(sys.argv[1])))
    with back.open():
        options = parser("up").parse_args(back.legacy.arguments[1:])
    return run_command(options, lambda: up.run(options, back))


def _check() -> int:
    try:
        legacy = msgspec.json.decode(sys.stdin.buffer.read(), type=Legacy)
        parser("up").parse_args(legacy.arguments[1:])
        legacy.loaded()
    except (EngineError, OSError, msgspec.MsgspecError) as error:
        sys.stderr.write(f"{' '.join(str(error).split())}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
