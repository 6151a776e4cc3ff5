import math

import pytest
import torch

from robustray.attacks import ThreatModel, evaluate
from robustray.attacks.catalogue.apgd_adaptive import adaptive_ascent, apgd_mixture, mixture_loss
from robustray.manifest import Augmentation
from robustray.random import ExampleRandom
from robustray.smoothing import (
    MixingSettings,
    MixingTraining,
    TrainingAttack,
    attack_for_training,
    composite_loss,
    learning_rate,
)
from robustray.smoothing.train import attack_here
from robustray.smoothing.training_data import iterations
from robustray.training.loop import run_epochs
from tests.helpers.small_mixture import SmallMixture, images

QUICK = TrainingAttack(eps=0.06, iterations_df=6, n_targets=1)


def test_learning_rates_are_those_of_the_formula():
    assert learning_rate(0, 3750, 5e-5) == pytest.approx(5e-5 * (1 - math.exp(-1 / 150)))
    half = 5e-5 * 0.5 * (1 - math.exp(-1876 / 150))
    assert learning_rate(1875, 3750, 5e-5) == pytest.approx(half)
    assert learning_rate(0, 3, 1.0) == pytest.approx(1 - math.exp(-1))


def test_composite_loss_of_a_known_example():
    logits = torch.tensor([[0.25, 0.75], [0.5, 0.5]], dtype=torch.float64).log()
    gamma = torch.tensor([0.0, 1.0], dtype=torch.float64)
    loss = composite_loss(
        logits, gamma, torch.tensor([0, 1]), torch.tensor([0, 1]), bce=1.5, ce=0.5, product=0.3
    )
    b, c = [math.log(2), math.log(1 + math.exp(-1))], [math.log(4), math.log(2)]
    expected = [1.5 * u + 0.5 * v + 0.3 * u * v for u, v in zip(b, c, strict=True)]
    assert loss.tolist() == pytest.approx(expected, rel=1e-12)


def test_iterations_follow_chi_squared():
    drawn = torch.tensor(
        [round(iterations(TrainingAttack(), 0, 0, b, 0)) for b in range(1000)]
    ).double()
    assert drawn.mean().item() == pytest.approx(75, abs=1.5)
    assert drawn.std().item() == pytest.approx(math.sqrt(150), abs=1)
    fixed = TrainingAttack(iterations_df=0, iterations_extra=0)
    assert iterations(fixed, 0, 0, 0, 0) == 0


def test_training_attacks_stay_in_their_balls_and_belong_to_the_image():
    (x, y), model = images(24), SmallMixture().eval()
    index = torch.arange(24) + 100
    key = {"seed": 3, "epoch": 1, "batch": 2}
    found = attack_for_training(model.forward_with_gamma, x, y, index, QUICK, **key)
    assert found.x.shape == (48, 3, 6, 6)
    distance = (found.x - x.repeat(2, 1, 1, 1)).flatten(1).abs().amax(1)
    assert distance.max() <= 1.1 * 0.06 + 1e-6
    assert distance.min() > 0
    assert found.x.min() >= 0
    assert found.x.max() <= 1
    wrong = model(found.x).argmax(1) != y.repeat(2)
    assert torch.equal(wrong, found.fooled)
    order = torch.arange(24).flip(0)
    again = attack_for_training(
        model.forward_with_gamma, x[order], y[order], index[order], QUICK, **key
    )
    assert torch.allclose(again.x[:24], found.x[:24][order], atol=1e-6)


def test_images_that_nothing_fools_are_attacked_all_the_same():
    def answer(x):
        margin = 2 + x.flatten(1).mean(1)
        return torch.stack([margin, -margin], 1).log_softmax(1), margin * 0

    x, y = torch.full((5, 3, 4, 4), 0.5), torch.zeros(5, dtype=torch.int64)
    key = {"seed": 0, "epoch": 0, "batch": 0}
    made = {
        kind: attack_for_training(
            answer, x, y, torch.arange(5), TrainingAttack(never_fooled=kind), **key
        )
        for kind in ("best", "start")
    }
    assert not made["best"].fooled.any()
    # The optimum is known: all pixels down by eps. The published code returns noise.
    down = (x.repeat(2, 1, 1, 1) - made["best"].x).flatten(1)
    assert torch.allclose(down, down[:, :1].expand_as(down), atol=1e-5)
    assert (down > 0).all()
    noise = (x.repeat(2, 1, 1, 1) - made["start"].x).flatten(1)
    assert (noise.std(1) > 0.2 * noise.abs().amax(1)).all()


@pytest.mark.parametrize("change", [{"eps": 0.0}, {"weight_max": 2.0}, {"n_targets": -1}])
def test_budgets_out_of_range_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        TrainingAttack(**change)


def test_the_second_part_of_the_loss_lowers_gamma():
    (x, y), model = images(32), SmallMixture().eval()
    lowest = {}
    for weight in (0.0, 0.99):
        best = adaptive_ascent(
            model.forward_with_gamma, x, y, x, torch.full((32,), 0.05),
            n_iter=20, weight_B=torch.full((32,), weight),
        ).x_best  # fmt: skip
        with torch.no_grad():
            lowest[weight] = model.forward_with_gamma(best)[1].mean().item()
    assert lowest[0.99] < lowest[0.0]


def test_targets_count_in_the_randomised_loss():
    logits = torch.tensor([[2.0, 1.0, 0.5, 0.0]]).log_softmax(1)
    gamma, y = torch.tensor([1.0]), torch.tensor([0])
    losses = [
        mixture_loss(logits, gamma, y, torch.tensor([0.5]), torch.tensor([t])).item()
        for t in (1, 2)
    ]
    pull = 0.5 * math.log(1 + math.exp(-1))
    assert losses == pytest.approx([0.5 * -1 / 1.75 + pull, 0.5 * -1.5 / 1.75 + pull], rel=1e-5)


def test_the_adaptive_suite_runs_and_the_worst_case_is_the_union():
    (x, y), model = images(16), SmallMixture().eval()
    threat = ThreatModel("linf", 0.02)
    adaptive = evaluate(model, x, y, threat, "smoothing-adaptive", compute_shape=16)
    both = evaluate(model, x, y, threat, "smoothing-worst-case", compute_shape=16)
    assert 0 < adaptive.robust_accuracy < 1
    assert threat.contains(adaptive.x_adv, x).all()
    assert not (both.robust & ~adaptive.robust).any()
    assert torch.equal(model(both.x_adv).argmax(1) == y, both.robust)


def test_other_models_are_refused():
    x, y = images(2)
    with pytest.raises(ValueError, match="no gamma"):
        apgd_mixture(lambda x: x.flatten(1)[:, :4], x, y, ThreatModel("linf", 0.1))
    with pytest.raises(ValueError, match="for linf"):
        apgd_mixture(SmallMixture(), x, y, ThreatModel("l2", 0.1), rng=ExampleRandom(0))


def training(epochs=3, attack=QUICK):
    x, y = images(128)
    settings = MixingSettings(
        epochs=epochs, batch_size=32, accumulation=1, lr=0.03, attack=attack,
        augmentation=Augmentation(crop_padding=0),
    )  # fmt: skip
    return MixingTraining(SmallMixture(), x, y, settings, seed=5)


def test_training_learns_to_tell_attacked_images():
    attack = TrainingAttack(eps=0.15, iterations_df=6, n_targets=1)
    run = training(12, attack)
    metrics = run_epochs(run, 12)
    assert metrics[-1]["gamma_accuracy"] > metrics[0]["gamma_accuracy"] + 0.08
    assert metrics[-1]["gamma_attacked"] > metrics[-1]["gamma_clean"] + 0.8
    assert metrics[-1]["lr"] < 0.001


def test_training_continues_with_the_same_bytes():
    whole = training()
    metrics = run_epochs(whole, 3)
    first, second = training(), training()
    run_epochs(first, 1)
    assert run_epochs(second, 3, resumed=(1, first.state())) == metrics[1:]
    for part, tensors in whole.state().files.items():
        for name, tensor in tensors.items():
            assert torch.equal(second.state().files[part][name], tensor), name


def test_minibatches_must_fit_the_groups():
    x, y = images(32)
    settings = MixingSettings(batch_size=8, accumulation=3, attack=QUICK)
    with pytest.raises(ValueError, match="accumulation divides 4"):
        MixingTraining(SmallMixture(), x, y, settings, seed=0)


def test_pgd_finds_the_known_optimum_of_a_linear_mixture():
    def answer(x):
        margin = (x - 0.5).flatten(1).sum(1)
        return torch.stack([margin, -margin], 1).log_softmax(1), margin * 0

    x, y = torch.full((5, 1, 4, 4), 0.5), torch.zeros(5, dtype=torch.int64)
    attack = TrainingAttack(
        method="pgd", eps=0.1, eps_low=1.0, eps_span=0.0, iterations_df=0, iterations_extra=10,
        n_targets=0,
    )  # fmt: skip
    key = {"seed": 0, "epoch": 0, "batch": 0}
    made = attack_for_training(answer, x, y, torch.arange(5), attack, **key)
    assert torch.allclose(made.x, x - 0.1, atol=1e-6)
    assert made.fooled.all()


@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_images_are_attacked_against_the_mixture_of_some_rounds_ago(ahead):
    x, y = images(128)
    settings = MixingSettings(
        epochs=1, batch_size=16, accumulation=4, lr=0.03, attack=QUICK, ahead=ahead, segment=4,
        augmentation=Augmentation(crop_padding=0),
    )  # fmt: skip
    seen = []

    def spy(training, task):
        steps = training.optimizer.state.get(training.parameters[0][1], {}).get("step", 0)
        seen.append((task.batch, int(steps)))
        return attack_here(training, task)

    run_epochs(MixingTraining(SmallMixture(), x, y, settings, seed=5, attacker=spy), 2)
    # Each round is one step; a segment of four rounds begins with what is known then.
    assert seen == [(n, max(4 * (n // 4), n - ahead)) for n in range(8)]


def test_chunks_of_a_round_come_back_in_the_order_of_its_images():
    x, y = images(64)
    made = []
    for chunk in (32, 8):
        attack = QUICK.model_copy(update={"chunk": chunk})
        settings = MixingSettings(
            epochs=1, batch_size=32, accumulation=1, attack=attack,
            augmentation=Augmentation(crop_padding=0),
        )  # fmt: skip
        run = MixingTraining(SmallMixture(), x, y, settings, seed=5)
        made.append(run.train(1))
    assert made[0] == pytest.approx(made[1], abs=1e-4)
