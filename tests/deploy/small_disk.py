"""A file system of a test's own, whose size is the test's to choose: memory, mounted by root."""

import os
import shutil
import subprocess
from pathlib import Path

_MOUNT, _UMOUNT = shutil.which("mount"), shutil.which("umount")


class SmallDisk:
    """A context in which `directory`, an empty one, is a disk, and `is_there` says so. Where nobody
    lets us mount it is an ordinary directory.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.is_there = False

    def __enter__(self) -> "SmallDisk":
        if os.geteuid() == 0 and _MOUNT and _UMOUNT:
            self.is_there = self._mount("size=16g", "tmpfs", str(self.directory)) == 0
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_there:
            assert _UMOUNT is not None
            subprocess.run([_UMOUNT, "-l", str(self.directory)], check=True)

    def leave(self, free_bytes: int) -> None:
        """Make it so large that this much is free now; an ordinary directory stays as it is."""
        if not self.is_there:
            return
        found = os.statvfs(self.directory)
        used = (found.f_blocks - found.f_bfree) * found.f_frsize
        assert self._mount(f"remount,size={used + free_bytes}", str(self.directory)) == 0

    @staticmethod
    def _mount(options: str, *what: str) -> int:
        assert _MOUNT is not None
        words = [_MOUNT, "-t", "tmpfs", "-o", options, *what]
        return subprocess.run(words, capture_output=True, check=False).returncode
