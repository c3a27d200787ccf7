"""Runs the scripts of `deploy/systemd` on a tree of the test's own, with a pretended Python."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
SYSTEMD = ROOT / "deploy" / "systemd"

_PYTHON = """#!/bin/sh
# Pretends to be Python: makes an environment that holds a copy of itself, and an fts.
case "$*" in
    *ensurepip*) exit 0 ;;
    -V) echo "Python 3.13.0" ;;
    "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
    *" install "*) here=$(dirname "$0"); cp "$here/python" "$here/fts" ;;
    *"pip "*) ;;
    "doctor "*) exit "$(cat {doctor})" ;;
    *) echo "ran: $*" ;;
esac
"""


class Host:
    """A copy of what is shipped, and the tree that it is installed into."""

    def __init__(self, folder: Path) -> None:
        self.checkout = folder / "checkout"
        self.tree = folder / "tree"
        self.doctor = folder / "doctor"
        self.python = folder / "python"
        self.tree.mkdir()
        self.doctor.write_text("0")
        self.python.write_text(_PYTHON.format(doctor=self.doctor))
        self.python.chmod(0o755)
        for name in ("control", "engine", "shards", "sql"):
            (self.checkout / name).mkdir(parents=True)
            (self.checkout / name / "a.py").write_text(name)
        for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "requirements.lock"):
            shutil.copy(ROOT / name, self.checkout / name)
        for name in ("systemd", "wheel"):
            shutil.copytree(ROOT / "deploy" / name, self.checkout / "deploy" / name)

    @property
    def opt(self) -> Path:
        return self.tree / "opt" / "fintickstreams"

    @property
    def current(self) -> str:
        """The release that `current` leads to."""
        return str((self.opt / "current").readlink())

    def change(self) -> None:
        """Make the checkout another release."""
        with (self.checkout / "engine" / "a.py").open("a") as file:
            file.write("# changed\n")

    def run(self, script: str, *options: str, code: int = 0) -> str:
        """What it says; its exit code must be `code`."""
        named = () if script == "uninstall" else ("--python", str(self.python))
        done = subprocess.run(
            [str(self.checkout / "deploy" / "systemd" / f"{script}.sh"), "--prefix",
             str(self.tree), *named, *options],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def files(self) -> dict[str, str]:
        """Every file and link of the tree, and what is in it."""
        return {
            str(path.relative_to(self.tree)): str(path.readlink()) if path.is_symlink()
            else path.read_text()
            for path in self.tree.rglob("*")
            if path.is_symlink() or path.is_file()
        }  # fmt: skip
