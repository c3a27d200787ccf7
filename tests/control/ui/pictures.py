"""Makes the pictures of docs/pictures anew, of a demo of every venue:

    .venv/bin/python -m tests.control.ui.pictures

Needs what the tests in a browser need (requirements-browser.lock, a Chromium on the PATH), some
minutes, and a machine that has nothing else to do: pictures of a busy one are of a busy one.
"""

import base64
import re
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.control.ui.chromium import ARGUMENTS, CHROMIUM, expect, open_page, sync_api

RgbArray = npt.NDArray[np.uint8]

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "docs" / "pictures"
BYTES_MAX = 200_000
LASTS_S = 1200
PATIENCE_MS = 240_000
CHARTED_MS = 720_000
"""So long the engine runs before the first picture: charts of a minute are none."""
STREAM = "binance_linear/BTCUSDT/Trades/Ws"
DEMO = ("--venues", "all", "--symbols", "2", "--rate", "600", "--for", str(LASTS_S))


@contextmanager
def demo() -> Iterator[str]:
    """A running demo; yields the address of its dashboard."""
    with tempfile.TemporaryDirectory(prefix="fts-pictures-") as folder:
        process = subprocess.Popen(
            [str(ROOT / "fts"), "demo", *DEMO, "--state-dir", folder],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            said = []
            for line in process.stdout:
                said.append(line)
                if found := re.search(r"(http://127\.0\.0\.1:\d+)/ui", line):
                    yield found[1]
                    return
            raise SystemExit("the demo did not start:\n" + "".join(said))
        finally:
            process.terminate()
            process.communicate()


def pixels(page: Any, png: bytes) -> RgbArray:
    """What the browser reads in a picture: rows, columns, (red, green, blue)."""
    blank = page.context.new_page()  # which has no policy of ours
    width, height, text = blank.evaluate(READ, base64.b64encode(png).decode())
    blank.close()
    flat = np.frombuffer(base64.b64decode(text), np.uint8)
    return flat.reshape(height, width, 4)[:, :, :3]


READ = """async (png) => {
  const file = await (await fetch("data:image/png;base64," + png)).blob();
  const picture = await createImageBitmap(file);
  const context = new OffscreenCanvas(picture.width, picture.height).getContext("2d");
  context.drawImage(picture, 0, 0);
  const { data } = context.getImageData(0, 0, picture.width, picture.height);
  let text = "";
  for (let at = 0; at < data.length; at += 32768) {
    text += String.fromCharCode(...data.subarray(at, at + 32768));
  }
  return [picture.width, picture.height, btoa(text)];
}"""


def small_png(rgb: RgbArray) -> bytes:
    """The same with 256 colours at most, which is a third of the size: the usual ones stay, and the
    others, of edges of letters, become the nearest of them.
    """
    packed = (rgb.astype(np.uint32) << [16, 8, 0]).sum(axis=2)
    colours, where, counts = np.unique(packed, return_inverse=True, return_counts=True)
    kept = colours[np.argsort(-counts)[:256]]
    every, palette = (
        np.stack([(each >> shift) & 255 for shift in (16, 8, 0)], 1).astype(np.int32)
        for each in (colours, kept)
    )
    parts = [((part[:, None] - palette) ** 2).sum(2) for part in np.array_split(every, 64)]
    nearest = np.concatenate([part.argmin(1) for part in parts]).astype(np.uint8)
    indices = nearest[where.reshape(packed.shape)]
    height, width = indices.shape
    lines = np.zeros((height, width + 1), np.uint8)  # each begins with its filter: none
    lines[:, 1:] = indices
    head = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = [
        (b"IHDR", head), (b"PLTE", palette.astype(np.uint8).tobytes()),
        (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""),
    ]  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def take(page: Any, name: str, **options: Any) -> None:
    """One picture, small enough for a page that is read over the network."""
    path = FOLDER / f"{name}.png"
    path.write_bytes(small_png(pixels(page, page.screenshot(**options))))
    size = path.stat().st_size
    print(f"{path.relative_to(ROOT)}: {size:,} bytes")  # noqa: T201 - a command, for a person
    if size > BYTES_MAX:
        raise SystemExit(f"more than {BYTES_MAX:,}")


def main() -> None:
    """Both pictures, when all is well."""
    FOLDER.mkdir(exist_ok=True)
    with demo() as address, sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page, complaints = open_page(
            chromium, address, f"ui?stream={STREAM}",
            viewport={"width": 1440, "height": 900}, color_scheme="light",
        )  # fmt: skip
        page.wait_for_timeout(CHARTED_MS)
        expect(page.locator("#book-state")).to_have_text("live", timeout=PATIENCE_MS)
        expect(page.locator("#alerts")).to_have_text("All healthy", timeout=PATIENCE_MS)
        take(page, "dashboard")
        page.locator("#filter").fill("btcusdt")
        page.evaluate("document.activeElement.blur()")
        page.wait_for_timeout(1500)
        take(page, "stream", clip=_clip(page), full_page=True)
        chromium.close()
    if complaints.lines:
        raise SystemExit("\n".join(complaints.lines))


def _clip(page: Any) -> dict[str, float]:
    """From the chart on the left to the end of the book on the right."""
    boxes = [page.locator(name).bounding_box() for name in ("#chart-panel", "#market")]
    left = min(box["x"] for box in boxes) - 8
    top = min(box["y"] for box in boxes) - 8
    right = max(box["x"] + box["width"] for box in boxes) + 8
    bottom = max(box["y"] + box["height"] for box in boxes) + 8
    return {"x": left, "y": top, "width": right - left, "height": bottom - top}


if __name__ == "__main__":
    main()
