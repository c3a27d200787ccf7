"""Writes `dashboards/` anew: `python -m deploy.grafana`, in the root of the repository."""

from pathlib import Path
from typing import Final

from deploy.grafana import healthy, keeping_up, missing
from deploy.grafana.panels import as_json

BOARDS: Final = (healthy.BOARD, keeping_up.BOARD, missing.BOARD)
FOLDER: Final = Path(__file__).parent / "dashboards"


def files() -> dict[str, str]:
    """Name and content of each."""
    return {f"{board.uid.removeprefix('fintickstreams-')}.json": as_json(board) for board in BOARDS}


if __name__ == "__main__":
    for name, text in files().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
