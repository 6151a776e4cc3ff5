"""What every test may ask for: real data beside the checkout, real servers on loopback."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import torch
from hypothesis import settings

# In CI the same examples each time: a landing does not hang on luck. Elsewhere new ones.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

pytest_plugins = ["tests.fixtures_servers"]


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say which tests stay together when several processes share the work (pytest-xdist).

    A file's tests do. So do all that concern a Ray of this process: those that start one of their
    own or expect none come first, then those that share one. That group is the longest, so it
    is begun first.
    """
    items.sort(key=_rank)
    for item in items:
        together = "ray" if _rank(item) < 2 else str(item.path)
        item.add_marker(pytest.mark.xdist_group(together))


def _rank(item: pytest.Item) -> int:
    if item.get_closest_marker("without_ray"):
        return 0
    return 1 if "local_ray" in getattr(item, "fixturenames", ()) else 2


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tests share two cores; more intra-op threads than that make everything slower."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One local Ray with two CPUs for all tests that run on it; ``connect`` uses what is there."""
    if ray.is_initialized():
        yield
        return
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
        runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}},
    )  # fmt: skip
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real data sets and checkpoints; tests that need it skip without it."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("ROBUSTRAY_SHARED", beside))
    if not folder.is_dir():
        pytest.skip("real data sets are not at hand (../shared/data or $ROBUSTRAY_SHARED)")
    return folder
