"""Judgements of garbage: what is warned of, what is not, and what few images can't tell."""

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from torch import nn

from robustray.attacks import JudgementWarning, ThreatModel, evaluate
from robustray.attacks.checks.plausibility import check_accuracy, check_predictions
from robustray.attacks.checks.units import at_least, at_most
from robustray.evaluation.images import load_images
from robustray.manifest import JudgedData
from tests.helpers.evaluation_tasks import small_net, trained_net

THREAT = ThreatModel("linf", 0.1)


@pytest.fixture(scope="module")
def digits():
    images = load_images(JudgedData(name="digits", split="test"), None)
    return images.x_NCHW.float() / 255, images.y_N


class Before(nn.Module):
    """A network behind a change of its input."""

    def __init__(self, net, change) -> None:
        super().__init__()
        self.net, self._change = net, change

    def forward(self, x):
        return self.net(self._change(x))


class Standardise(nn.Module):
    """The network behind (x - mean) / std, as people write it."""

    def __init__(self, net, mean, std) -> None:
        super().__init__()
        self.net, self.mean, self.std = net, [mean], [std]

    def forward(self, x):
        return self.net((x - self.mean[0]) / self.std[0])


def standardised(digits, net=None):
    """A network that takes standardised images, with the constants."""
    mean, std = float(digits[0].mean()), float(digits[0].std())
    return Before(net or trained_net(), lambda x: x * std + mean), mean, std


def judged(model, digits, count=None, **settings):
    """Return the severities of what is found, and the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        x, y = (part[:count] for part in digits)
        result = evaluate(model.eval(), x, y, THREAT, "fgsm", **settings)
    said = [str(w.message) for w in caught if issubclass(w.category, JudgementWarning)]
    assert all(w.filename == __file__ for w in caught)
    return {f.check: f.severity for f in result.findings}, said


def untrained(seed):
    torch.manual_seed(seed)
    return small_net()


def test_a_trained_network_is_not_suspected(digits):
    for count in (None, 64, 16):
        found, said = judged(trained_net(), digits, count)
        assert set(found.values()) == {"ok"}
        assert said == []


def test_untrained_networks_are_told(digits):
    x, y = digits
    for seed in range(100):
        with torch.no_grad():
            found, _ = check_predictions(y, untrained(seed)(x).argmax(1), 10)
        assert found.severity == "warning", seed
    found, said = judged(untrained(0), digits)
    assert found["clean_accuracy"] == "warning"
    assert any("seems untrained" in words for words in said)


def test_one_answer_for_all_images_is_told(digits):
    found, said = judged(Before(trained_net(), lambda x: 0 * x), digits)
    assert found["one_class"] == "warning"
    assert any("images are taken for class" in words for words in said)


def test_a_forgotten_normalisation_is_told_though_most_images_are_right(digits):
    net, mean, std = standardised(digits)
    found, said = judged(net, digits)
    assert found["normalisation"] == "warning"
    assert any("(x - mean) / std: the network seems to expect" in words for words in said)
    whole, _ = judged(Standardise(net, mean, std), digits)
    assert set(whole.values()) == {"ok"}


def test_a_doubled_normalisation_is_told(digits):
    net, mean, std = standardised(digits)
    found, said = judged(Standardise(Standardise(net, mean, std), mean, std), digits)
    assert found["constants"] == "warning"
    assert any("standardised twice" in words for words in said)


def test_noise_before_the_normalisation_is_no_second_one(digits):
    net, mean, std = standardised(digits)
    inner = Standardise(net, mean, std)
    found, said = judged(Before(inner, lambda x: x + 0.05 * torch.randn_like(x)), digits)
    assert found["constants"] == "ok"
    assert not any("twice" in words for words in said)


def test_constants_of_other_images_are_told(digits):
    net, mean, std = standardised(digits)
    found, _ = judged(Standardise(net, 255 * mean, 255 * std), digits)
    assert found["constants"] == "warning"
    found, _ = judged(Standardise(net, mean + 0.02, std - 0.02), digits)
    assert found["constants"] == "ok"


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1 / 255), (0.45, 1 / 255), (0.5, 0.5), (0, 0.5)])
def test_a_network_that_wants_a_larger_spread_is_not_suspected(digits, mean, std):
    inner = Before(trained_net(), lambda x: x * std + mean)
    assert judged(Standardise(inner, mean, std), digits)[1] == []


def test_pixels_of_0_to_255_are_told(digits):
    x, y = digits
    with pytest.raises(ValueError, match=r"ranges over \[0, 255\].*give uint8, or divide by 255"):
        evaluate(trained_net(), 255 * x, y, THREAT, "fgsm")
    found, said = judged(trained_net(), (x / 255, y))
    assert found["pixels"] == "warning"
    assert any("divided by 255 twice" in words for words in said)
    found, said = judged(Before(trained_net(), lambda x: x / 255), digits)
    assert found["normalisation"] == "warning"
    assert any("pixels of 0..255" in words for words in said)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_images_give_no_alarm_and_say_so(digits, count):
    for model in (trained_net(), untrained(0), untrained(1)):
        found, said = judged(model, digits, count)
        assert said == []
        assert found["clean_accuracy"] == "info"


def test_nothing_is_looked_for_where_that_is_asked(digits):
    found, said = judged(untrained(0), digits, check=False)
    assert (found, said) == ({}, [])


def test_the_checks_change_no_verdict_and_no_random_number(digits):
    x, y = (part[:40] for part in digits)
    noisy = Before(trained_net(), lambda x: x + 0.2 * torch.randn_like(x)).eval()
    found = []
    for check in (True, False):
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = evaluate(noisy, x, y, THREAT, "pgd-10", check=check)
        found.append((result.robust.tolist(), result.forwards.tolist(), torch.rand(3).tolist()))
    assert found[0] == found[1]


def test_a_network_that_refuses_other_units_is_not_an_error(digits):
    def strict(x):
        assert x.min() >= 0
        assert x.max() <= 1
        return 1 - x

    found, _ = judged(Before(trained_net(), strict), digits)
    assert found["normalisation"] == "info"
    assert found["clean_accuracy"] == "warning"


def test_labels_of_one_class_are_no_reason_for_an_alarm():
    labels = torch.full((50,), 3)
    found = {f.check: f.severity for f in check_predictions(labels, labels, 10)}
    assert found == {"clean_accuracy": "info", "one_class": "info"}
    rare = torch.tensor([0] * 95 + [1] * 5)
    always = torch.zeros_like(rare)
    few, many = (check_predictions(rare.repeat(n), always.repeat(n)) for n in (1, 20))
    assert [f.severity for f in few] == ["info", "info"]
    assert [f.severity for f in many] == ["warning", "warning"]
    right = check_predictions(rare.repeat(3), rare.repeat(3))
    assert [f.severity for f in right] == ["ok", "ok"]


@given(st.integers(2, 1000), st.integers(1, 20000))
@settings(deadline=None, max_examples=60)
def test_perfect_networks_are_never_suspected_and_guessing_ones_never_believed(classes, total):
    perfect = check_accuracy(total, total, classes, 1 / classes)
    assert perfect.severity in ("ok", "info")
    guessing = check_accuracy(total // classes, total, classes, 1 / classes)
    assert guessing.severity in ("warning", "info")
    if total >= 100:
        assert (perfect.severity, guessing.severity) == ("ok", "warning")


@given(st.integers(0, 300), st.integers(0, 300), st.floats(0.001, 0.999))
@settings(deadline=None)
def test_tails_are_those_of_the_binomial_distribution(one, other, share):
    count, total = sorted((one, other))
    assert at_least(count, total, share) == pytest.approx(
        binom.sf(count - 1, total, share), abs=1e-9
    )
    assert at_most(count, total, share) == pytest.approx(binom.cdf(count, total, share), abs=1e-9)
