"""Published networks: robust accuracies near those that others measured on the same images.

``MEASURED`` holds, in percent of the first 1000 test images: clean accuracy, and robust accuracy
under an independent PGD-10 with steps of eps/4, about as strong as 20 steps of eps/10. The fast
tests take the first 256 or 512 of these images, whose accuracy strays from that of all by up to
1.5 points (one standard deviation); the slow one takes all.
"""

import pytest
import torch

from robustray.attacks import ThreatModel, evaluate
from tests.helpers.public_networks import CHECKPOINTS, load_images, load_network

MEASURED = {
    "trades_mnist": (99.4, 94.3),
    "resnet_4b": (77.1, 61.8),
    "cnn_a_adv4": (57.4, 24.5),
    "kw_small": (31.2, 24.5),
    "natural": (75.5, 0.4),
}


def run(shared, name, suite, count):
    checkpoint = CHECKPOINTS[name]
    x, y = load_images(shared, checkpoint.data)
    model, threat = load_network(shared, name), ThreatModel("linf", checkpoint.eps)
    result = evaluate(model, x[:count], y[:count], threat, suite=suite)
    assert (result.x_adv - x[:count].float() / 255).abs().max().item() <= checkpoint.eps
    assert result.x_adv.min() >= 0
    assert result.x_adv.max() <= 1
    return result


@pytest.mark.parametrize("name", MEASURED)
def test_pgd_20_is_as_strong_as_an_independent_pgd(shared_data, name):
    count = 256 if name == "trades_mnist" else 512
    result = run(shared_data, name, "pgd-20", count)
    assert 100 * result.robust_accuracy == pytest.approx(MEASURED[name][1], abs=3.5)


@pytest.mark.parametrize("name", MEASURED)
def test_clean_accuracy_is_the_recorded_one_and_fgsm_the_weakest(shared_data, name):
    result = run(shared_data, name, "fgsm", 1000)
    assert 100 * result.clean_accuracy == pytest.approx(MEASURED[name][0], abs=0.11)
    assert 100 * result.robust_accuracy > MEASURED[name][1]


def test_cw_breaks_at_least_what_pgd_breaks(shared_data):
    accuracy = {
        suite: run(shared_data, "cnn_a_adv4", suite, 256).robust_accuracy
        for suite in ("pgd-10", "pgd-20", "cw-40")
    }
    assert accuracy["cw-40"] <= accuracy["pgd-20"] <= accuracy["pgd-10"]


def test_verdicts_of_a_real_network_do_not_depend_on_the_batch(shared_data):
    x, y = load_images(shared_data, "cifar10")
    model, threat = load_network(shared_data, "resnet_4b"), ThreatModel("linf", 2 / 255)
    rows = torch.randperm(1000, generator=torch.Generator().manual_seed(0))[:100]
    whole = evaluate(model, x[rows], y[rows], threat, suite="pgd-10", index=rows)
    for part in rows.argsort().split(37):
        alone = evaluate(
            model, x[rows[part]], y[rows[part]], threat, "pgd-10", batch_size=5, index=rows[part]
        )
        assert torch.equal(alone.x_adv, whole.x_adv[part])
        assert torch.equal(alone.robust, whole.robust[part])


@pytest.mark.slow
@pytest.mark.parametrize("name", MEASURED)
def test_pgd_20_on_all_images(shared_data, name):
    result = run(shared_data, name, "pgd-20", 1000)
    assert 100 * result.robust_accuracy == pytest.approx(MEASURED[name][1], abs=1.0)
