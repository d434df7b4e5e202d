"""How long the image sets take to load: the first time, and every time after that.

    python benchmarks/loading.py [--repeats 5] [--json FILE]

Each measurement runs in a process of its own and leaves out the import of PyTorch. "First time" starts from an empty
cache: CIFAR-10 is verified and unpacked, digits in scenes are made. CIFAR-10 is measured where this machine has it;
nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

LOADS = {
    "cifar10, 30,000 images (10,000 + 10,000 + 10,000)": "load_cifar10()",
    "cifar10, 60,000 images (45,000 + 5,000 + 10,000)": "load_cifar10(45_000, 5_000, 10_000)",
    "digits in scenes, 14,000 images (10,000 + 2,000 + 2,000)": "load_digits_in_scenes()",
    "digits in scenes, 60,000 images (45,000 + 5,000 + 10,000)": "load_digits_in_scenes(45_000, 5_000, 10_000)",
}

PROGRAM = """
import sys, time
from pathlib import Path
import torch, tqdm, platformdirs
torch.set_num_threads(1)
from course_utils.data import load_cifar10, load_digits_in_scenes, roots
roots.user_root = lambda: Path({cache!r})
start = time.perf_counter()
data = {load}
print(time.perf_counter() - start)
"""


def seconds(load: str, cache: Path, root: Path) -> float:
    """The time one load takes in a process of its own, in seconds."""
    environment = {**os.environ, "COURSE_DATA": str(root), "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    program = PROGRAM.format(cache=str(cache), load=load)
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return float(done.stdout)


def source_of_cifar10(folder: Path) -> Path | None:
    """A data root with links to this machine's CIFAR-10, and no cache; None if this machine has no CIFAR-10."""
    from course_utils.data import store
    from course_utils.data.registry import registered

    dataset = registered("cifar10")
    found = store.find(dataset)
    if found is None:
        return None
    for file in dataset.files:
        link = folder / file.path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(found / file.path)
    folder.chmod(0o555)  # so that the cache goes to the folder that is emptied between measurements
    return folder


def measure(repeats: int) -> list[dict[str, object]]:
    """One row for each load, first time and after."""
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "root").mkdir()
        root = source_of_cifar10(folder / "root")
        for what, load in LOADS.items():
            if root is None and "cifar10" in what:
                print(f"{what}: not measured, because CIFAR-10 is not on this machine; run `course data`.")
                continue
            first, after = [], []
            for _ in range(repeats):
                shutil.rmtree(folder / "cache", ignore_errors=True)
                first.append(seconds(load, folder / "cache", root or folder / "root"))
                after.append(seconds(load, folder / "cache", root or folder / "root"))
            for when, times in (("first time", first), ("after that", after)):
                mean, deviation = statistics.mean(times), statistics.stdev(times) if repeats > 1 else 0.0
                rows.append({"load": what, "when": when, "mean_s": mean, "sd_s": deviation, "repeats": repeats})
                print(f"{what:60s} {when:10s} {mean:6.2f} ± {deviation:.2f} s", flush=True)
        (folder / "root").chmod(0o755)
    return rows


def main() -> None:
    """Measure, print, and write the numbers if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each kind (default 5)")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    arguments = parser.parse_args()
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, one thread"
    print(f"{machine}; mean ± standard deviation of {arguments.repeats} runs")
    rows = measure(arguments.repeats)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
