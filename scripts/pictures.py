"""Makes the pictures in the documentation from real runs: the terminal (SVG) and TensorBoard (PNG).

    python scripts/pictures.py

TensorBoard's page is drawn by Chromium, if it is on the PATH; otherwise only the terminal is made.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.ours import composed

from bigmodel.build.new_run import build_run
from bigmodel.config import parse
from bigmodel.reporting.base import Sinks
from bigmodel.reporting.console import Console
from bigmodel.reporting.jsonl import JsonLines
from bigmodel.reporting.tensorboard import TensorBoard
from bigmodel.training.loop import fit

IMAGES = Path(__file__).resolve().parents[1] / ".github" / "images"


def train(folder: Path, *overrides: str) -> Console:
    """One run with a console that records what it prints."""
    folder.mkdir(parents=True)
    run = build_run(parse(composed("device=cpu", *overrides)), folder)
    console = Console(folder, True, width=100, recording=True)
    run = replace(run, sinks=Sinks([console, JsonLines(folder), TensorBoard(folder)]))
    fit(run)
    return console


def without_addresses(svg: Path) -> None:
    """Removes the web fonts that rich asks for: viewing the picture should not contact other servers."""
    text = svg.read_text()
    while "@font-face" in text:
        start = text.index("@font-face")
        text = text[:start] + text[text.index("}", start) + 1 :]
    svg.write_text(text)


def screenshot(logdir: Path, page: str, target: Path) -> None:
    """A page of TensorBoard as a browser shows it."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("There is no chromium on the PATH: the TensorBoard page was not drawn.")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("tensorboard")
    server = subprocess.Popen(
        [program, "--logdir", logdir, "--port", str(port), "--reload_interval", "1"],
        stderr=subprocess.DEVNULL,
    )
    try:
        time.sleep(12)
        subprocess.run(
            [
                chromium,
                "--headless",
                "--no-sandbox",
                "--hide-scrollbars",
                "--enable-unsafe-swiftshader",
                "--window-size=1400,900",
                "--virtual-time-budget=25000",
                f"--screenshot={target}",
                f"http://localhost:{port}/{page}",
            ],
            check=True,
            stderr=subprocess.DEVNULL,
        )
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)  # so that the paths shown are short
        outputs = Path("outputs")
        console = train(outputs / "2026-11-23" / "10-15-02")
        console.save_svg(IMAGES / "terminal.svg", "bigmodel-train")
        without_addresses(IMAGES / "terminal.svg")
        train(outputs / "2026-11-23" / "10-16-40", "model=cnn", "trainer.epochs=15")
        train(outputs / "2026-11-23" / "10-18-05", "model=rnn", "optimizer.lr=0.005")
        page = "?_smoothingWeight=0&runFilter=.#scalars&tagFilter=^(train|val)/(loss|accuracy)"
        screenshot(outputs, page, IMAGES / "tensorboard.png")
