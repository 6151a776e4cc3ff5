"""The prepared check for a GPU: time limits, going on, and what it writes; on CPUs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, items, short
from benchmarks.items import CUT_OFF, FAILED, FINISHED, TOO_LONG, Item, compare, run_all

ROOT = Path(__file__).resolve().parents[1]
MACHINE = {"device": "none", "torch": "0"}
KEEPS = "import json, sys; json.dump({'rows': %s}, open(sys.argv[1], 'w'))"
ROWS = {"slow": {"wall": [4.0, 6.0, 5.0]}, "fast": {"wall": [2.0, 2.0, 1.0]}}
COUNTS = "import sys; open(sys.argv[1] + '/n', 'a').write('x')"
SLEEPS = (
    "import subprocess, sys; "
    "subprocess.run([sys.executable, '-c', 'import time; time.sleep(600) # %s'])"
)


def code(text: str, *words: str, name: str = "one", limit_s: float = 60.0) -> Item:
    return Item(name, ("-S", "-c", text, *words), limit_s)


def run(folder: Path, *items: Item, minutes: float = 1.0, again: tuple[str, ...] = ()):
    return run_all(items, folder, MACHINE, minutes, list(again))


def test_figures_become_ratios_of_the_same_round(tmp_path) -> None:
    found = run(tmp_path, code(KEEPS % ROWS, "FIGURES"))
    assert (found["one"].state, found["one"].figures) == (FINISHED, ROWS)
    assert list(compare(ROWS)) == [
        ("slow", "5", "1.00 (1.00 to 1.00), 3 runs"),
        ("fast", "2", "3.00 (2.00 to 5.00), 3 runs"),
    ]
    table = (tmp_path / "gpu.md").read_text()
    assert "|  |  |  | fast | 2 | 3.00 (2.00 to 5.00), 3 runs |" in table
    state = json.loads((tmp_path / "gpu.json").read_text())
    assert state["machine"] == MACHINE
    assert state["items"]["one"]["command"].startswith("python -S -c")


def test_what_fails_is_told_and_the_next_item_runs(tmp_path) -> None:
    found = run(tmp_path, code("raise OSError('no such thing')"), code("print('fine')", name="two"))
    assert [one.state for one in found.values()] == [FAILED, FINISHED]
    assert "OSError: no such thing" in (tmp_path / "gpu.md").read_text()


def test_an_item_that_takes_too_long_is_ended_with_its_children_and_keeps_its_figures(tmp_path):
    mark = f"mark-{time.monotonic_ns()}"
    text = KEEPS % ROWS + "; " + SLEEPS % mark
    found = run(tmp_path, code(text, "FIGURES", limit_s=4.0))
    assert (found["one"].state, found["one"].figures) == (TOO_LONG, ROWS)
    _wait_until(lambda: not _marked(mark))


ONE_ITEM = """
import sys
from benchmarks import gpu
gpu.find_machine = lambda device: {"device": "none"}
gpu.list_items = lambda device, tiny: [gpu.Item("one", ("-S", "-c", %r), 60)]
sys.exit(gpu.main())
"""


def test_whoever_ends_the_check_ends_its_item(tmp_path) -> None:
    mark = f"mark-{time.monotonic_ns()}"
    (tmp_path / "check.py").write_text(ONE_ITEM % (SLEEPS % mark))
    command = [sys.executable, str(tmp_path / "check.py"), "--out", str(tmp_path / "out")]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        _wait_until(lambda: len(_marked(mark)) == 2)
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
        _wait_until(lambda: not _marked(mark))
    finally:
        process.kill()
        process.wait()


def _marked(mark: str) -> list[Path]:
    return [p for p in Path("/proc").glob("[0-9]*/cmdline") if mark.encode() in _read(p)]


def _wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_call_goes_on_where_the_last_one_stopped(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(items, "_LEAST_S", 0.0)
    wanted = [code(COUNTS, str(tmp_path), name="a"), code(SLEEPS % "", name="b")]
    found = run(tmp_path, *wanted, minutes=0.05)
    assert {name: one.state for name, one in found.items()} == {"a": FINISHED, "b": CUT_OFF}
    wanted[1] = code("raise ValueError", name="b")
    assert run(tmp_path, *wanted)["b"].state == FAILED
    assert run(tmp_path, *wanted, code("pass", name="c"))["c"].state == FINISHED
    assert (tmp_path / "n").read_text() == "x", "what was finished ran again"
    run(tmp_path, *wanted, again=("a",))
    assert (tmp_path / "n").read_text() == "xx"


def test_nothing_is_begun_without_time_and_other_machines_are_not_mixed(tmp_path) -> None:
    assert run(tmp_path, code("pass"), minutes=0.0) == {}
    run(tmp_path, code("pass"))
    with pytest.raises(SystemExit, match="another --out"):
        run_all([], tmp_path, {**MACHINE, "torch": "1"}, 1.0, [])
    (tmp_path / "gpu.json").write_text('{"machine":')
    with pytest.raises(SystemExit, match="not of this program"):
        run(tmp_path)


def test_the_list_begins_with_the_tests_that_cpus_skip() -> None:
    assert "tests/attacks/test_graphs.py" in gpu.find_gpu_tests()
    assert "tests/test_gpu_benchmark.py" not in gpu.find_gpu_tests()
    lists = [gpu.list_items("cuda", False), gpu.list_items("cpu", True), short.list_items()]
    assert [one[0].name for one in lists] == ["GPU tests", "GPU tests", "AutoAttack, tiny"]
    for wanted in lists:
        assert len({item.name for item in wanted}) == len(wanted)
        for item in wanted:
            script = item.words[0]
            assert script == "-m" or (ROOT / script).is_file()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_without_a_gpu_there_is_one_line_and_code_3(tmp_path) -> None:
    command = [sys.executable, "benchmarks/gpu.py", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, len(done.stdout.splitlines()), done.stderr) == (3, 1, "")
    assert "no GPU" in done.stdout
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_rehearsal_runs_every_kind_of_item(tmp_path) -> None:
    command = [sys.executable, "benchmarks/gpu.py", "--out", str(tmp_path), "--minutes", "25",
               "--device", "cpu", "--tiny"]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1700)
    assert done.returncode == 0, (tmp_path / "gpu.md").read_text()
    found = json.loads((tmp_path / "gpu.json").read_text())["items"]
    assert set(found["TRADES step"]["figures"]) >= {"plain, as published", "ours, bf16"}
    assert list(found["AutoAttack"]["figures"]) == ["ours, float32"]
    assert "MAC/s" in found["plan --measure"]["told"]
