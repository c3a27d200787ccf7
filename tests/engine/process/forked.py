"""A supervisor with a fork server, and its child, for `test_forks`: prints what it found as JSON.

Run as a program, because only a process without threads may be copied.
"""

import asyncio
import fcntl
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import psutil

from engine.messages.pipes import Drain, Ready, ToChild
from engine.messages.settings import ControlSettings, LogSettings
from engine.process.child import Child
from engine.process.forks.server import ForkServer
from engine.process.pipe import Pipe
from engine.process.release import release

HERE = "tests.engine.process.forked"
EXIT_CODE = 7


async def run(settings: ControlSettings, pipe: Pipe[ToChild]) -> int:
    """A child: says as its port what it was passed as a file, and its release where it was born
    with that; leaves when it is drained.
    """
    known = release() if release.cache_info().currsize else ""
    pipe.send(Ready(int(os.pread(settings.listen_fd, 8, 0)), known))
    assert isinstance(await pipe.receive(), Drain)
    return EXIT_CODE


def input_of(pid: int) -> str:
    """What its standard input is."""
    return str(Path(f"/proc/{pid}/fd/0").readlink())


async def born(forks: ForkServer, directory: Path) -> Child:
    """A child that was passed a file with a number."""
    passed = os.open(directory / "passed", os.O_RDWR | os.O_CREAT)
    os.pwrite(passed, b"42", 0)
    log = LogSettings(str(directory / "log"), to_stderr=False)
    settings = ControlSettings("127.0.0.1", 0, log, listen_fd=passed)
    return await Child.spawn("odd", f"{HERE}:run", settings, pass_fds=[passed], forks=forks)


async def life(forks: ForkServer, directory: Path) -> dict[str, Any]:
    """Of one child, from its birth to its end."""
    child = await born(forks, directory)
    ready = await child.pipe.receive()
    assert isinstance(ready, Ready)
    process = psutil.Process(child.pid)
    found = {
        "passed": ready.port,
        "release": ready.release,
        "is_ours": process.ppid() == os.getpid(),
        "leads": os.getpgid(child.pid) == child.pid,
        "cmdline": " ".join(process.cmdline()).split()[1:-1],
        "reads": input_of(child.pid),
        "lock_is_open": any(each.path.endswith("lock") for each in process.open_files()),
    }
    child.pipe.send(Drain(1.0))
    found["exit_code"] = await child.end(30.0)
    return found


def main(directory: Path) -> None:
    """Children of a fork server, one of whom outlives it, and one that comes after it."""
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    forks = ForkServer.begin([HERE])
    copied = asyncio.run(life(forks, directory))
    copied["by"] = forks.pid
    os.kill(forks.pid, signal.SIGKILL)
    alone = asyncio.run(life(forks, directory))
    forks.close()
    try:
        os.waitpid(-1, os.WNOHANG)
        left = True
    except ChildProcessError:
        left = False
    sys.stdout.write(json.dumps({"copied": copied, "alone": alone, "is_anybody_left": left}))


async def stay(forks: ForkServer, directory: Path) -> None:
    """Have a child, say who the processes are, and go on until somebody ends this."""
    child = await born(forks, directory)
    sys.stdout.write(f"{forks.pid} {child.pid}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    if sys.argv[2:] == ["stay"]:
        asyncio.run(stay(ForkServer.begin([HERE]), Path(sys.argv[1])))
    else:
        main(Path(sys.argv[1]))
