"""What an administrator sees: pictures of the node's page with made-up work in it.

    python benchmarks/page_seen.py [--output docs/node] [--width 1280] [--dark] [--chromium PATH]

Photographs are phantoms. Needs Chromium (Debian: chromium).
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "node"))
from page_house import ROOT, PageHouse, page_house, served

from medlocker_dicom.node import ledger as queue

if TYPE_CHECKING:
    from collections.abc import Sequence

MINUTE = 60_000
COLOURS = 256  # of a palette: half of the bytes


def furnish(house: PageHouse) -> dict[str, str]:
    """Fill a node with a morning's work; give the addresses of its pages by name."""
    end = house.clocks.ms
    for study in range(1, 9):
        house.clocks.ms = end - (9 - study) * 23 * MINUTE
        for eye in range(2):
            house.clocks.ms += 20_000
            _through(house, house.photograph(10 * study + eye, study, 320), study)
    house.clocks.ms = end - MINUTE // 2
    still = house.photograph(91, 9, 320)
    house.lock(still)
    queue.again(house.ledger, still, "archive", 0, "A700: out of resources", 40)
    house.clocks.ms += 5_000
    dark = house.photograph(92, 9, 320)
    reason = "no position that the policy allows, down to the smallest logo"
    house.hold(dark, reason, "choose mode anywhere for this route, or release it", "photographs")
    house.clocks.ms += 5_000
    report = house.enter(93, 9, b"not DICOM at all", "OCT-2")
    house.hold(report, "is not DICOM: no prefix, no data set", "look at what OCT-2 sends", None)
    house.clocks.ms += 5_000
    refused = house.photograph(94, 9, 320)
    house.lock(refused)
    queue.park(house.ledger, refused, "research", "409 Conflict: 0xA900 data set does not match")
    house.clocks.ms = end
    for worker in ("node-1 worker 1", "node-1 worker 2"):
        queue.alive(house.ledger, worker)
    return {
        "overview": "/",
        "studies": "/studies",
        "study": f"/studies/{ROOT}.1.9",
        "held": "/held",
        "release": f"/held/{dark}/release",
        "destinations": "/destinations",
        "recipients": "/recipients",
        "audit": "/audit",
    }


def _through(house: PageHouse, object_id: str, study: int) -> None:
    """Lock and deliver a photograph."""
    house.clocks.ms += 8_000
    house.lock(object_id)
    for name, said in (("archive", "0000: stored"), ("research", "200 OK")):
        house.clocks.ms += 2_000
        if (study, name) == (3, "research"):
            queue.sent(house.ledger, object_id, name, "200 OK", f"{ROOT}.6.{study}")
        else:
            queue.delivered(house.ledger, object_id, name, said)


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/node"))
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        page_house(Path(folder)) as house,
        sync_playwright() as playwright,
    ):
        pages = furnish(house)
        browser = playwright.chromium.launch(
            executable_path=options.chromium, args=["--no-sandbox"]
        )
        scheme = "dark" if options.dark else "light"
        size = {"width": options.width, "height": 720}
        tab = browser.new_page(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]  # a TypedDict of the same shape
        with served(house.app()) as port:
            for name, path in pages.items():
                tab.goto(f"http://127.0.0.1:{port}{path}")
                for shown in tab.query_selector_all("img"):
                    shown.scroll_into_view_if_needed()
                tab.evaluate("Promise.all([...document.images].map(one => one.decode()))")
                target = options.output / f"{name}.png"
                picture = tab.screenshot(full_page=name != "audit")
                few = Image.open(BytesIO(picture)).convert("RGB").quantize(COLOURS)
                few.save(target, optimize=True)
                print(f"{target}: {target.stat().st_size >> 10} kB")
            tab.close()
        browser.close()


if __name__ == "__main__":
    main()
