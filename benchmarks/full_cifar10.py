"""All 10,000 CIFAR-10 test images against AutoAttack, killed twice on the way.

    ROBUSTRAY_SHARED=../shared/data python benchmarks/full_cifar10.py
    python benchmarks/full_cifar10.py --first 200 --shard-size 50          (a rehearsal)

Runs ``jobs/evaluate.py`` on CNN-A-Adv4 at linf 8/255 with autoattack-standard. At a third and at
two thirds of the committed units, the driver and all its Ray processes are killed (SIGKILL);
the same command is then started again. At the end it is started once more, which has to compute
nothing. Prints what was committed at each kill, and checks that no committed unit was touched.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("ROBUSTRAY_SHARED", ROOT.parent / "shared" / "data")).resolve()
ATTACKS = 4  # of autoattack-standard
CHECKED_EVERY = 2.0  # seconds


def main() -> None:
    """Start, kill twice, finish, and start once more."""
    options = _options()
    store = options.store.resolve()
    units = -(-options.first // options.shard_size) * (1 + ATTACKS)
    command = _command(options)
    print("$ " + " ".join(command), flush=True)
    started, before = time.time(), _commits(store)
    there = len(before)
    for share in (1 / 3, 2 / 3):
        wanted = there + int(share * units)
        now = _run_until(command, store, wanted, options)
        _check_untouched(before, now)
        print(f"killed after {time.time() - started:.0f} s: {len(now)} units committed", flush=True)
        before = now
    done = _run_to_the_end(command, store, options)
    _check_untouched(before, done)
    print(f"finished after {time.time() - started:.0f} s: {len(done)} units committed", flush=True)
    again = time.time()
    _check(_run_to_the_end(command, store, options) == done, "the last start computed something")
    print(f"started once more: {time.time() - again:.0f} s, nothing computed, nothing changed")


def _run_until(
    command: list[str], store: Path, wanted: int, options: argparse.Namespace
) -> dict[str, str]:
    """Start the command, kill it with all that it started at so many units, and count them."""
    with _start(command, store, options) as process:
        while len(list(_records(store))) < wanted:
            _check(process.poll() is None, f"ended before {wanted} units were committed")
            time.sleep(CHECKED_EVERY)
        _kill_tree(process.pid)
    return _commits(store)


def _run_to_the_end(command: list[str], store: Path, options: argparse.Namespace) -> dict[str, str]:
    with _start(command, store, options) as process:
        _check(process.wait() == 0, f"exit code {process.returncode}")
    return _commits(store)


def _start(command: list[str], store: Path, options: argparse.Namespace) -> subprocess.Popen[bytes]:
    settings = {
        "ROBUSTRAY_STORE": str(store),
        "ROBUSTRAY_DATA": str(SHARED),
        "ROBUSTRAY_SHARED": str(SHARED),
        "OMP_NUM_THREADS": str(options.threads),
    }
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | settings)  # noqa: S603


def _kill_tree(number: int) -> None:
    """Kill a process and everything that it has started, wherever that has gone."""
    parent = psutil.Process(number)
    family = [parent, *parent.children(recursive=True)]
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=30)


def _records(store: Path) -> list[Path]:
    return sorted((store / "units").glob("*/*/record.json"))


def _commits(store: Path) -> dict[str, str]:
    """Return the digest of each committed unit's record."""
    found = {}
    for path in _records(store):
        found[str(path.relative_to(store))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _check_untouched(before: dict[str, str], now: dict[str, str]) -> None:
    changed = [key for key, digest in before.items() if now.get(key) != digest]
    _check(not changed, f"committed units have changed: {changed[:3]}")


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise SystemExit(message)


def _command(options: argparse.Namespace) -> list[str]:
    settings = {
        "name": "full-cifar10",
        "data.name": "cifar10",
        "data.first": options.first,
        "threat.norm": "linf",
        "threat.eps": "8/255",
        "suite": "autoattack-standard",
        "shard_size": options.shard_size,
        "search_dtype": options.search,
    }
    command = [sys.executable, "jobs/evaluate.py", "--model", "benchmarks.networks:cnn_a_adv4"]
    for name, value in settings.items():
        command += ["--set", f"{name}={value}"]
    return command + options.more


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A whole test set, killed twice on the way.")
    parser.add_argument("--first", type=int, default=10_000, help="images")
    parser.add_argument("--shard-size", type=int, default=200)
    parser.add_argument("--store", type=Path, default=ROOT / "runs" / "full_cifar10")
    parser.add_argument("--search", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, default=1, help="of each actor")
    parser.add_argument("more", nargs="*", help="passed on to jobs/evaluate.py, after --")
    return parser.parse_args()


if __name__ == "__main__":
    main()
