"""Models that change what they are given, or themselves, and what they may answer."""

import threading
import warnings
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from robustray.attacks import (
    AttackSpec,
    Bpda,
    ThreatModel,
    WithSurrogate,
    apgd_ce,
    carlini_wagner,
    cw_l2,
    evaluate,
    fab,
    fgsm,
    input_gradient,
    minimum_norms,
    pgd,
    square,
    stadv,
)
from robustray.attacks.engine.network import Network, predict_logits
from robustray.attacks.engine.watch import Watched
from robustray.attacks.surrogates.catalogue import FiniteDifferences
from robustray.evaluation.units.composed import BatchLayout, composed_logits, in_composition

LINF = ThreatModel("linf", 0.03)
L2 = ThreatModel("l2", 0.3)


def plain_net() -> nn.Module:
    """A smooth network for images (3, 6, 6) in five classes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(108, 12), nn.Tanh(), nn.Linear(12, 5))
    return net.eval()


NET = plain_net()
X = torch.rand(9, 3, 6, 6, generator=torch.Generator().manual_seed(1))
Y = NET((X - 0.5) / 0.25).argmax(1)


def seen_in_place(x):
    return NET(x.sub_(0.5).div_(0.25))


def unseen_in_place(x):
    with torch.no_grad():
        x.sub_(0.5).div_(0.25)
    return NET(x)


def through_data(x):
    x.data.sub_(0.5).div_(0.25)
    return NET(x)


def through_numpy(x):
    x.detach().numpy()[:] = (x.detach().numpy() - 0.5) / 0.25
    return NET(x)


def of_one_pixel(x):
    x.data[-1, -1, -1, -1] = 0.5
    return NET((x - 0.5) / 0.25)


RUDE = [seen_in_place, unseen_in_place, through_data, through_numpy, of_one_pixel]
ENTRANCES = {
    "evaluate": lambda f, x: evaluate(f, x, Y, LINF, ["apgd-ce"], compute_shape=16),
    "square only": lambda f, x: evaluate(
        f, x, Y, LINF, [AttackSpec("square", options={"n_queries": 5})], compute_shape=16
    ),
    "upstream": lambda f, x: evaluate(f, x, Y, LINF, ["fab-t"], mode="upstream"),
    "fgsm": lambda f, x: fgsm(f, x, Y, LINF),
    "pgd": lambda f, x: pgd(f, x, Y, LINF, steps=1, loss="kl"),
    "apgd": lambda f, x: apgd_ce(f, x, Y, LINF, n_iter=1),
    "fab": lambda f, x: fab(f, x, Y, L2, n_iter=1),
    "square": lambda f, x: square(f, x, Y, LINF, n_queries=2),
    "cw": lambda f, x: cw_l2(f, x, Y, L2, n_iter=1, search_steps=1),
    "nearest by cw": lambda f, x: carlini_wagner(f, x, Y, n_iter=1, search_steps=1),
    "nearest by fab": lambda f, x: minimum_norms(f, x, Y, "l2", n_iter=1),
    "stadv": lambda f, x: stadv(f, x, Y, LINF, n_iter=1),
    "a gradient": lambda f, x: input_gradient(f, x, lambda z: z[:, 0]),
    "logits": lambda f, x: predict_logits(f, x),
}


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("model", RUDE, ids=lambda f: f.__name__)
def test_models_that_write_into_images_are_refused_and_harm_nothing(model, entrance):
    x = X.clone()
    with pytest.raises(ValueError, match="the model changes its input in place"):
        ENTRANCES[entrance](model, x)
    assert torch.equal(x, X), "the caller's images are as they were"


@pytest.mark.parametrize("model", RUDE[1:], ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda f: Bpda(f, lambda x: (x * 15).round() / 15),
        lambda f: WithSurrogate(NET, f),
        lambda f: FiniteDifferences(f, samples=1),
        lambda f: in_composition(_Module(f), X[:4], 2),
    ],
)
def test_wrappers_hide_nothing(model, wrap):
    with pytest.raises(ValueError, match="the model changes its input in place"):
        fgsm(wrap(model), X, Y, LINF)


class _Module(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def test_whole_batches_are_watched_too():
    with pytest.raises(ValueError, match="changes its input in place"):
        composed_logits(_Module(through_data), X, BatchLayout(3))


class Stateful(nn.Module):
    """Changes something of its own in each pass."""

    def __init__(self, change) -> None:
        super().__init__()
        self.net, self.change = plain_net(), change
        self.norm = nn.BatchNorm2d(3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.change(self)
        return self.net(self.norm(x))


def count(model):
    model.calls += 1


def adapt(model):
    model.net[1].bias.data.add_(1e-3)


def train_statistics(model):
    model.norm.train()


def reset(model):
    model.calls = model.calls + 1


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (count, "calls"),
        (reset, "calls"),
        (adapt, "net.1.bias"),
        (train_statistics, "norm.running_mean"),
    ],
)
def test_models_that_change_themselves_are_refused_by_name(change, name):
    with pytest.raises(ValueError, match=rf"changes its own state in a forward pass \({name}\)"):
        evaluate(Stateful(change), X, Y, LINF, ["apgd-ce"], compute_shape=16)


class Holder:
    """A callable object that is no module."""

    def __init__(self, net) -> None:
        self.net = net

    def __call__(self, x):
        return self.net(x)


class Slots:
    """The same without a ``__dict__``."""

    __slots__ = ("net",)

    def __init__(self, net) -> None:
        self.net = net

    def __call__(self, x):
        return self.net(x)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda net: lambda x: net(x),
        lambda net: lambda x: sum(one(x) for one in [net]),
        lambda net: lambda x, inner=net: inner(x),
        lambda net: lambda x, *, inner=net: inner(x),
        lambda net: (lambda table: lambda x: table["net"](x))({"net": net}),
        lambda net: (lambda judge: lambda x: judge.logits(x))(SimpleNamespace(logits=net)),
        lambda net: Slots(net),
        lambda net: net.forward,
        lambda net: lambda x: net.forward(x),
        lambda net: partial(lambda model, x: model(x), net),
        Holder,
        lambda net: (lambda inner: lambda x: inner(x))(Holder(net)),
    ],
)
def test_modules_within_functions_are_looked_at(wrap):
    net = Stateful(train_statistics)
    with pytest.raises(ValueError, match="changes its own state in a forward pass"):
        evaluate(wrap(net), X, Y, LINF, ["apgd-ce"], compute_shape=16)
    fgsm(wrap(Stateful(train_statistics).train()), X, Y, LINF)  # may be part of a training


def test_a_model_in_training_mode_may_update_its_statistics():
    model = Stateful(lambda _: None).train()
    fgsm(model, X, Y, LINF)
    assert model.norm.num_batches_tracked == 2, "fgsm by itself leaves the mode to its caller"
    evaluate(model, X, Y, LINF, ["apgd-ce"], compute_shape=16)
    assert model.norm.num_batches_tracked == 2
    assert model.training


def test_caches_that_are_filled_once_are_no_change_of_state():
    class Lazy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = plain_net()
            self.register_buffer("offset", None)

        def forward(self, x):
            if self.offset is None:
                self.offset = torch.full((1,), 0.5)
            return self.net(x - self.offset)

    found = evaluate(Lazy(), X, Y, LINF, ["apgd-ce"], compute_shape=16)
    clean = evaluate(lambda x: NET(x - 0.5), X, Y, LINF, ["apgd-ce"], compute_shape=16)
    assert torch.equal(found.robust, clean.robust)


def test_caches_that_are_filled_in_the_first_pass_are_no_change_of_state():
    class Filled(Stateful):
        def __init__(self) -> None:
            super().__init__(lambda model: model.calls.fill_(1))

    model = Filled()
    found = evaluate(model, X, Y, LINF, ["apgd-ce"], compute_shape=16)
    again = evaluate(model, X, Y, LINF, ["apgd-ce"], compute_shape=16)
    assert torch.equal(found.robust, again.robust)


@pytest.mark.parametrize("options", [{"search_dtype": "bfloat16"}, {"channels_last": True}])
def test_a_search_in_another_type_begins_with_a_model_in_training_mode(options):
    model = Stateful(lambda _: None).train()
    evaluate(model, X, Y, LINF, ["apgd-ce"], compute_shape=16, **options)
    assert model.training
    assert model.norm.num_batches_tracked == 0


def test_parts_of_a_wrapper_are_asked_as_they_are_now():
    model = Bpda(NET, lambda x: x)
    other: Any = plain_net().requires_grad_(False)
    other[3].bias += 1
    model.network = other
    assert torch.equal(model(X), other(X))


def test_a_compiled_model_is_compiled_once_and_watched():
    graphs = []

    def compiled(net):
        return torch.compile(net, backend=lambda graph, _: graphs.append(1) or graph)

    ask(Watched(compiled(plain_net())), 9)
    assert len(graphs) == 1
    with pytest.raises(ValueError, match="changes its own state in a forward pass"):
        evaluate(compiled(Stateful(count)), X, Y, LINF, ["apgd-ce"], compute_shape=16)


def test_modules_of_other_threads_are_left_alone():
    training = nn.BatchNorm1d(108).train()

    def model(x):
        other = threading.Thread(target=training, args=(x.detach().flatten(1),))
        other.start()
        other.join()
        return NET(x)

    evaluate(model_without_names(model), X, Y, LINF, ["apgd-ce"], compute_shape=16)


def model_without_names(model):
    return lambda x: [model][0](x)


def test_early_passes_are_compared_more_often():
    passes = [0]

    def late(x):
        passes[0] += 1
        if passes[0] > 6:
            x.data.mul_(0.5)
        return NET(x)

    with pytest.raises(ValueError, match="changes its input in place"):
        pgd(late, X, Y, LINF, steps=20)


def test_a_draw_in_the_mixed_classifier_is_seen():
    class Mixed(nn.Module):
        def forward(self, x):
            return NET(x)

        def forward_with_gamma(self, x):
            return NET(x), torch.rand(len(x))

    network = Network(Mixed(), X.device)
    assert network.forward_with_gamma is not None
    with torch.random.fork_rng():
        network.forward_with_gamma(X)
    assert network.draws_random


def ask(model, times):
    for _ in range(times):
        model(X)


def test_later_passes_are_compared_now_and_then():
    passes = [0]

    def late(x):
        passes[0] += 1
        if passes[0] > 70:
            x.data.mul_(0.5)
        return NET(x)

    watched = Watched(late)
    with pytest.raises(ValueError, match="changes its input in place"):
        ask(watched, 200)
    assert passes[0] < 140


def test_writes_that_autograd_counts_are_seen_in_every_pass():
    passes = [0]

    def late(x):
        passes[0] += 1
        return NET(x.mul_(0.5) if passes[0] == 6 else x)

    watched = Watched(late)
    with pytest.raises(ValueError, match="changes its input in place"):
        ask(watched, 200)
    assert passes[0] == 6


def test_a_polite_model_gives_the_bits_that_it_gives_alone():
    point = X.clone().requires_grad_()
    logits = NET(point)
    (grad,) = torch.autograd.grad(logits[:, 1].sum(), point)
    found = input_gradient(NET, X, lambda z: z[:, 1])
    assert torch.equal(found.grad, grad)
    assert torch.equal(found.logits_BK, logits)


def drawing(x):
    torch.rand(3)
    return NET((x - 0.5) / 0.25)


def seeding(x):
    torch.manual_seed(0)
    return NET((x - 0.5) / 0.25)


@pytest.mark.parametrize("model", [drawing, seeding])
def test_models_that_draw_random_numbers_are_judged_and_told(model):
    suite = [AttackSpec("square", options={"n_queries": 50})]
    clean = evaluate(lambda x: NET((x - 0.5) / 0.25), X, Y, LINF, suite, compute_shape=16)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        with pytest.warns(UserWarning, match="uses random numbers"):
            found = evaluate(model, X, Y, LINF, suite, compute_shape=16)
    assert torch.equal(found.robust, clean.robust), "what an attack draws is its own"


def test_suites_for_random_models_and_models_that_draw_nothing_are_no_cause_to_warn():
    rand = [AttackSpec("apgd-ce", options={"n_iter": 2, "eot": 2})]
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(drawing, X, Y, LINF, rand, compute_shape=16)
        evaluate(NET, X, Y, LINF, [AttackSpec("pgd", options={"steps": 1})], compute_shape=16)


NO_GRADIENT = {
    "no_grad": torch.no_grad()(NET),
    "detached": lambda x: NET(x.detach()),
    "numpy": lambda x: torch.from_numpy(NET(x).detach().numpy()),
    "undetached numpy": lambda x: torch.from_numpy(NET(x).numpy()),
    "numbers": lambda x: NET(torch.tensor(x.tolist())),
    "inference": torch.inference_mode()(NET),
}


@pytest.mark.parametrize("name", NO_GRADIENT)
def test_networks_without_a_gradient_are_for_attacks_that_ask_none(name):
    frozen = NET if name != "undetached numpy" else plain_net().requires_grad_(False)
    model = NO_GRADIENT[name]
    if name == "undetached numpy":
        model = lambda x: torch.from_numpy(frozen(x).numpy())  # noqa: E731
    y = predict_logits(model, X).argmax(1)
    wide = ThreatModel("linf", 0.2)
    queries = [AttackSpec("square", options={"n_queries": 30})]
    found = evaluate(model, X, y, wide, queries, compute_shape=16)
    expected = evaluate(NET, X, y, wide, queries, compute_shape=16)
    assert torch.equal(found.robust, expected.robust)
    assert not bool(found.robust.all())
    for attack in ("apgd-ce", "fab-t", "pgd", "fgsm", "stadv"):
        with pytest.raises(ValueError, match=r"no gradient .*square.*surrogate"):
            evaluate(model, X, y, wide, [attack], compute_shape=16)
    with pytest.raises(ValueError, match=r"no gradient .*square.*surrogate"):
        cw_l2(model, X, y, L2, n_iter=1, search_steps=1)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda z: (z, z), r"a tuple of \(a float32 tensor \(9, 5\), a float32 tensor"),
        (lambda z: {"logits": z}, "a dict with the keys 'logits'"),
        (lambda z: None, "returns None"),
        (lambda z: z.detach().numpy(), r"a float32 numpy array \(9, 5\)"),
        (lambda z: z[:, 0], r"float32 tensor \(9,\) .*one logit z for two classes"),
        (lambda z: z[:, :1], r"float32 tensor \(9, 1\) .*one logit z for two classes"),
        (lambda z: z.T, r"\(5, (9|64)\)"),
        (lambda z: z[:-1], r"\((8|63), 5\)"),
        (lambda z: z.argmax(1), r"an int64 tensor \(9,\)"),
        (lambda z: z[:, :, None, None], r"\(9, 5, 1, 1\)"),
        (lambda z: z.to(torch.complex64), "complex64"),
        (lambda z: "cat", "an object str"),
    ],
)
def test_what_is_no_logits_is_named_at_every_entrance(answer, words):
    def model(x):
        return answer(NET(x))

    for attack in (fgsm, pgd, apgd_ce, square):
        padded = words.replace(r"\(9", r"\(64") if attack in (apgd_ce, square) else words
        with pytest.raises(ValueError, match=padded):
            attack(model, X, Y, LINF)
