"""Plans and speeds of recipes that are more than the baseline."""

from pathlib import Path

import pytest

from robustray.manifest import load_manifest
from robustray.sweeps import Study, make_plan, profile_trials
from robustray.sweeps.throughput import measure

TRAINING = Path(__file__).resolve().parents[2] / "manifests/training"


def plan_of(name, *overrides):
    return make_plan(Study.from_manifest(load_manifest(TRAINING / f"{name}.yaml", overrides)))


@pytest.mark.parametrize(
    ("name", "passes", "images"),
    [
        ("natural", 3, 48_976 * 100),
        ("bat_sat", 23, 48_976 * 100),
        ("bat_mart", 26, 48_976 * 100),
        ("bat_trades", 27, 48_976 * 100),
        ("trades_awp", 27 + 6 * 191 / 200, 48_976 * 200),
        ("advanced_trades_500k", 27, 49 * 1024 * 400),
    ],
)
def test_plans_count_every_pass(name, passes, images):
    (cost,) = plan_of(name).costs.values()
    assert cost.train_macs == pytest.approx(passes * images * cost.profile.macs, rel=1e-12)


def test_speed_is_measured_without_the_extra_images():
    overrides = [
        "model={name: preact_resnet, depths: [1], channels: [4, 8]}",
        "data.name=digits",
        "data.validation=100",
        "recipe.batch_size=20",
        "resources={gpus: 0, cpus: 1}",
    ]
    manifest = load_manifest(TRAINING / "advanced_trades_500k.yaml", overrides)
    study = Study.from_manifest(manifest)
    record = measure(study, profile_trials(study))
    assert [rate > 0 for _, rate in record.points] == [True]
