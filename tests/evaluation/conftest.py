"""One local Ray for all tests of this folder that run on it."""

import pytest
import ray


@pytest.fixture(scope="session")
def local_ray():
    """Two CPUs; ``connect`` uses what is there."""
    if ray.is_initialized():
        yield
        return
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
        runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}},
    )  # fmt: skip
    yield
    ray.shutdown()
