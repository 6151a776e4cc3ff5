"""What every test may ask for: real data beside the checkout, real servers on loopback."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

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

pytest_plugins = ["tests.helpers.server_fixtures", "tests.helpers.study_fixtures"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put first what starts a Ray in this process or expects none, then what shares one."""
    items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    if item.get_closest_marker("without_ray"):
        return 0
    return 1 if "local_ray" in getattr(item, "fixturenames", ()) else 2


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Let processes share the tests by files; all files that concern a Ray of theirs are one.

    Marks can't say so: the `xdist_group` of pytest-xdist 3.8 has no effect under pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "ray" if _concerns_ray(config.rootpath / file) else file

    return ByFile(config, log)


@cache
def _concerns_ray(file: Path) -> bool:
    text = file.read_text()
    return "local_ray" in text or "without_ray" in text


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
