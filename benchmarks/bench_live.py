"""The page with the network in a headless Chromium: seconds from the click to the first answer, and milliseconds from a stroke to its answer.

    python benchmarks/bench_live.py [--runs 5] [--strokes 40]

Served from this machine, so the network's transfer costs next to nothing: what is measured is unpacking, starting and computing. Every
start is a page of its own, and nothing is kept by the browser. Needs chromium and chromedriver on the PATH, and npm for the runtime (`make live`).
"""
import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent/'tools'))

import make_live
from live_browser import CHROMIUM, Page, serve, start_chromium

from cifar_cam.core import run_card


def measure_start(page):
    "Seconds from the click on *Start the network* to the first ten probabilities."
    page.open(start=False)
    start = time.perf_counter()
    page.start()
    return time.perf_counter() - start


def measure_strokes(page, number):
    "Milliseconds from each stroke to its answer, and those in which the network computed."
    waits, alone = [], []
    for i in range(number):
        page.stroke((4 + i % 24, 4 + i//24*4))
        page.settle()
        waits.append(page.run('return cifarCam.timing.wait'))
        alone.append(page.run('return cifarCam.view.now.ms'))
    return waits, alone


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--runs', type=int, default=5)
    parser.add_argument('--strokes', type=int, default=40)
    options = parser.parse_args()
    if not CHROMIUM or not shutil.which('chromedriver'): raise SystemExit('there is no chromium with chromedriver on the PATH')
    with tempfile.TemporaryDirectory() as work:
        download = make_live.build(Path(work)/'site'/'live')
        server = serve(Path(work)/'site')
        driver = start_chromium(server, Path(work)/'profile')
        try:
            page, version = Page(driver, server), driver.capabilities['browserVersion'].split('.')[0]
            starts = [measure_start(page) for _ in range(options.runs)]
            waits, alone = measure_strokes(page, options.strokes)
        finally:
            driver.quit()
            server.shutdown()
    name, version_of_runtime, _ = make_live.read_lock()
    print(f'{run_card()["hardware"]}, one thread of {os.cpu_count()} cores, headless Chromium {version}, {name} {version_of_runtime}, '
          f'{download/1e6:.1f} MB served from the same machine\n')
    print('| what | median | longest | number |\n|---|---|---|---|')
    print(f'| from the click to the first answer, s | {statistics.median(starts):.2f} | {max(starts):.2f} | {len(starts)} |')
    for what, values in (('from a stroke to its answer', waits), ('the network alone', alone)):
        print(f'| {what}, ms | {statistics.median(values):.0f} | {max(values):.0f} | {len(values)} |')


if __name__ == '__main__': main()
