"""FMN, DDN and DeepFool: hyperplanes have a formula, networks an independent implementation."""

import math
import sys
import types

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from robustray.attacks import AttackSpec, ThreatModel, ddn, evaluate, find_nearest, fmn
from robustray.attacks.catalogue.ddn import Ddn
from robustray.attacks.catalogue.deepfool import DeepFool
from robustray.attacks.catalogue.fmn import Fmn
from robustray.attacks.losses import margin
from robustray.attacks.steps.projections import norm_per_example, project_l0, project_l1_ball
from tests.attacks.test_fab import Linear32, boundary_distances
from tests.helpers.evaluation_tasks import digits, trained_net
from tests.helpers.linear_networks import interior
from tests.helpers.slot_engine import assert_independent, conv_images, convnet

NORMS = {"linf": math.inf, "l2": 2, "l1": 1, "l0": 0}
PAIRS = [("fmn", norm) for norm in NORMS] + [
    ("ddn", "l2"), ("deepfool", "l2"), ("deepfool", "linf"),
]  # fmt: skip


def spec_of(name, n_iter, **options):
    return AttackSpec(name, options={"n_iter": n_iter, **options})


@pytest.mark.parametrize(("name", "norm"), [pair for pair in PAIRS if pair[1] != "l0"])
@pytest.mark.parametrize("classes", [2, 5])
def test_distances_on_linear_models_are_the_formula(name, norm, classes):
    model, x = Linear32((1, 4, 6), classes), interior((1, 4, 6), 33).float()
    y = model(x).argmax(1)
    formula_B = boundary_distances(model, x.double(), y, norm)
    options = {} if name == "deepfool" else {"gamma": 0.1}
    found = find_nearest(model, x, y, norm, spec_of(name, 120, **options))
    ratio_B = found.distance_B.double() / formula_B
    assert ratio_B.min() >= 1 - 1e-6
    if name == "deepfool":  # its overshoot
        torch.testing.assert_close(
            found.distance_B.double(), 1.02 * (formula_B + 1e-4), rtol=1e-3, atol=0
        )
    elif classes == 2:
        assert ratio_B.max() <= 1.02
    else:  # these aim at the strongest class, or at all of them, and not at the nearest
        assert ratio_B.median() <= (1.25 if name == "ddn" else 1.05)
    assert (model(found.nearest).argmax(1) != y).all()
    assert torch.equal(norm_per_example(found.nearest - x, norm), found.distance_B)


def test_sparse_perturbations_change_as_few_values_as_it_takes():
    """Two classes and a lead of 2: values move by at most 1, each with its own weight."""
    weight_D = torch.tensor([1.5, 1.0, 0.75, 0.5, 0.25, 0.1])

    def model(x):
        lead_B = (x - 0.5) @ weight_D + 0.6
        return torch.stack([lead_B, -lead_B], dim=1)

    x = torch.full((4, 6), 0.5)
    x[1, 0] = 0.0  # the largest weight can't help
    x[2, :2] = 0.0
    y = torch.zeros(4, dtype=torch.int64)
    y[3] = 1
    found = find_nearest(model, x, y, "l0", spec_of("fmn", 100))
    room_BD = torch.where(y[:, None] == 0, x, 1 - x) * weight_D
    gap_B = (model(x)[:, 0]).abs()
    expected = [
        0 if int(model(x)[b].argmax()) != int(y[b])
        else int((room_BD[b].sort(descending=True).values.cumsum(0) <= gap_B[b]).sum()) + 1
        for b in range(4)
    ]  # fmt: skip
    assert found.distance_B.tolist() == expected


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_pixel_box_is_kept_and_any_box_will_do(norm):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(24, 16), nn.Tanh(), nn.Linear(16, 3))
    x = torch.rand(40, 24).round(decimals=1)
    y = model(x).argmax(1)

    def shifted(z):
        return model((z + 1) / 2)

    for name in ("fmn", "deepfool", *(("ddn",) if norm == "l2" else ())):
        found = find_nearest(model, x, y, norm, spec_of(name, 30))
        assert found.nearest.min() >= 0
        assert found.nearest.max() <= 1
        options = {"radius": 2.0} if name == "ddn" else {}
        wide = find_nearest(shifted, 2 * x - 1, y, norm, spec_of(name, 30, **options), box=(-1, 1))
        assert wide.nearest.min() >= -1
        assert wide.nearest.max() <= 1
        both_B = found.distance_B.isfinite() & wide.distance_B.isfinite()
        assert both_B.double().mean() > 0.9
        ratio_B = wide.distance_B[both_B] / found.distance_B[both_B] / 2
        assert 0.95 < ratio_B.median() < 1.05


@pytest.mark.parametrize(("name", "norm"), PAIRS)
def test_an_image_is_robust_where_its_distance_exceeds_eps(name, norm):
    model, x, y = convnet(), *conv_images()
    spec = spec_of(name, 20)
    distance_B = find_nearest(model, x, y, norm, spec).distance_B
    eps = 1.001 * float(distance_B.median()) if norm != "l0" else 1.0
    threat = ThreatModel(norm, eps)
    found = evaluate(model, x, y, threat, [spec], check=False)
    assert torch.equal(found.robust, distance_B > eps)
    broken = ~found.robust
    assert torch.equal(threat.distance(found.x_adv, x)[broken], distance_B[broken])
    assert torch.equal(found.x_adv[found.robust], x[found.robust])
    assert bool(threat.contains(found.x_adv, x).all())


@settings(max_examples=6, deadline=None)
@given(st.permutations(range(72)), st.integers(1, 71), st.sampled_from(PAIRS))
def test_distances_depend_on_no_other_image(order, count, pair):
    model, x, y = convnet(), *conv_images()
    name, norm = pair
    whole = find_nearest(model, x, y, norm, spec_of(name, 6))
    rows = torch.tensor(order[:count])
    part = find_nearest(model, x[rows], y[rows], norm, spec_of(name, 6), index=rows)
    assert torch.equal(part.nearest, whole.nearest[rows])
    assert torch.equal(part.distance_B, whole.distance_B[rows])


@pytest.mark.parametrize(
    ("attack", "norm"),
    [(Fmn(n_iter=5), "l1"), (Fmn(n_iter=5), "l0"), (Ddn(n_iter=5), "l2"),
     (DeepFool(n_iter=5), "linf")],
)  # fmt: skip
def test_slots_order_and_companions_change_nothing(attack, norm):
    model, x, y = convnet(), *conv_images()
    result = assert_independent(attack, model, x, y, ThreatModel(norm, 1.0))
    assert result.success_B.any()


def test_without_a_gradient_ddn_goes_somewhere_that_belongs_to_the_image():
    x = torch.full((6, 8), 0.5)
    y = torch.zeros(6, dtype=torch.int64)

    def flat(x):
        far_B = (x[:, 0] > 0.55) * 1.0
        return torch.stack([1 - far_B, far_B], dim=1) + 0 * x.sum(1)[:, None]

    index = torch.tensor([3, 1, 4, 15, 9, 2])
    found = find_nearest(flat, x, y, "l2", spec_of("ddn", 40), index=index)
    again = find_nearest(flat, x[2:], y[2:], "l2", spec_of("ddn", 40), index=index[2:])
    other = find_nearest(flat, x, y, "l2", spec_of("ddn", 40), index=index, seed=1)
    assert found.distance_B.isfinite().all()
    assert torch.equal(found.nearest[2:], again.nearest)
    assert not torch.equal(found.nearest, other.nearest)
    still = find_nearest(flat, x, y, "l2", spec_of("fmn", 40))
    assert still.distance_B.isinf().all()
    assert torch.equal(still.nearest, x)


def test_a_search_in_bfloat16_is_judged_in_float32():
    model, x, y = convnet(), *conv_images()
    threat, spec = ThreatModel("l2", 5.0), spec_of("fmn", 40)
    exact, fast = (
        evaluate(model, x, y, threat, [spec], search_dtype=dtype, check=False)
        for dtype in ("float32", "bfloat16")
    )
    assert not exact.robust.any()
    assert fast.robust.double().mean() < 0.03
    ratio_B = threat.distance(fast.x_adv, x) / threat.distance(exact.x_adv, x)
    assert 0.99 < ratio_B[~fast.robust].median() < 1.05
    assert (fast.forwards == 1 + 40 * 2 + 1).all()  # a verdict with each step
    assert (fast.backwards == 40).all()


def test_a_ball_that_does_not_grow_stays_on_the_boundary_of_a_linear_network():
    model, x = Linear32((24,), 2), interior((24,), 64).float()
    y = model(x).argmax(1)
    stuck, grown = (
        find_nearest(model, x, y, "l2", spec_of("fmn", 50, growth=growth)) for growth in (0.0, 0.01)
    )
    assert stuck.distance_B.isinf().double().mean() > 0.2
    assert grown.distance_B.isfinite().all()


def test_no_images_and_another_norm_are_refused_by_name():
    model, x = Linear32((24,), 2), interior((24,), 2).float()
    y = model(x).argmax(1)
    with pytest.raises(ValueError, match=r"x is a tensor of images \(N, C, H, W\), N >= 1"):
        find_nearest(model, x[:0], y[:0], "l2")
    with pytest.raises(ValueError, match="attack ddn: it is made for l2, not linf"):
        find_nearest(model, x, y, "linf", "ddn")


def test_equal_logits_have_the_gradient_of_one_class():
    logits = torch.tensor([[3.0, 1.0, 2.0, 2.0]], requires_grad=True)
    (grad,) = torch.autograd.grad(margin(logits, torch.tensor([0])).sum(), logits)
    assert grad.tolist() == [[-1.0, 0.0, 1.0, 0.0]]


@given(st.integers(0, 10_000), st.floats(0.01, 20))
@settings(max_examples=40, deadline=None)
def test_projections_are_the_nearest_points_of_balls(seed, radius):
    generator = torch.Generator().manual_seed(seed)
    delta = torch.randn(3, 12, generator=generator)
    kept = project_l1_ball(delta, torch.full((3,), radius))
    cut_B = (delta - kept).abs().amax(1)
    inside_B = delta.abs().sum(1) <= radius
    assert torch.equal(kept[inside_B], delta[inside_B])
    soft = torch.sign(delta) * (delta.abs() - cut_B[:, None]).clamp(min=0)
    torch.testing.assert_close(kept, soft)
    lengths = kept.abs().sum(1)
    torch.testing.assert_close(
        lengths, torch.minimum(delta.abs().sum(1), torch.tensor(radius)), rtol=1e-5, atol=1e-6
    )
    count = 1 + int(radius) % 12
    sparse = project_l0(delta, torch.full((3,), count))
    assert ((sparse != 0).sum(1) == count).all()
    assert (sparse[sparse != 0] == delta[sparse != 0]).all()
    assert (sparse.abs() + (sparse == 0) * 9).amin() >= (delta - sparse).abs().amax() or count < 12


def test_threat_models_of_few_values():
    threat = ThreatModel("l0", 2)
    x = torch.full((2, 5), 0.5)
    x_adv = torch.tensor([[0.5, 1.4, 0.4, 0.8, 0.5], [0.5, 0.5, 0.6, 0.5, 0.9]])
    inside = threat.project(x_adv, x)
    expected = [[0.5, 1.0, 0.5, 0.8, 0.5], [0.5, 0.5, 0.6, 0.5, 0.9]]
    torch.testing.assert_close(inside, torch.tensor(expected))
    assert threat.contains(inside, x).all()
    assert threat.contains(x_adv, x).tolist() == [False, True]
    assert threat.distance(inside, x).tolist() == [2, 2]
    with pytest.raises(ValueError, match=r"counts values for l0, and is whole, not 0\.5"):
        ThreatModel("l0", 0.5)
    with pytest.raises(ValueError, match="9 values are more than an image has, 5"):
        ThreatModel("l0", 9).require_images(x)
    with pytest.raises(ValueError, match="random starts are for linf, l2 and l1, not l0"):
        threat.random_start(x, None, torch.arange(2))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("name", "norm", "options", "words"),
    [
        ("fmn", "l2", {"n_iter": 0}, "n_iter is at least 1, not 0"),
        ("fmn", "l2", {"alpha": -1.0}, "alpha is a positive number, not -1.0"),
        ("fmn", "l2", {"gamma": 1.0}, r"gamma is in \(0, 1\), not 1.0"),
        ("fmn", "l2", {"growth": -0.5}, "growth is at least 0, not -0.5"),
        ("ddn", "l2", {"levels": 1}, "levels is 0 or at least 2, not 1"),
        ("ddn", "l2", {"radius": 0.0}, "radius is a positive number"),
        ("ddn", "linf", {}, "it is made for l2, not linf"),
        ("deepfool", "l1", {}, "it is made for linf, l2, not l1"),
        ("deepfool", "l2", {"overshoot": 0.0}, "overshoot is a positive number"),
        ("pgd", "l0", {}, "it is made for linf, l2, l1, not l0"),
        ("apgd-ce", "l0", {}, "it is made for linf, l2, l1, not l0"),
    ],
)
def test_what_attacks_are_not_made_for_is_refused(name, norm, options, words):
    with pytest.raises(ValueError, match=f"attack {name}: {words}"):
        AttackSpec(name, options=options).check(ThreatModel(norm, 1.0))


def test_only_attacks_on_minimal_distances_have_some():
    model, x, y = convnet(), *conv_images()
    with pytest.raises(ValueError, match="attack fab does not look for the smallest"):
        find_nearest(model, x, y, "l2", "fab")
    threat = ThreatModel("l2", 1.0, None)
    with pytest.raises(ValueError, match="levels are for pixels in a box"):
        ddn(model, x, y, threat, levels=256)
    assert fmn(model, x, y, threat, n_iter=10).success_B.any()


# An independent implementation, on the same networks with the same steps.


@pytest.fixture(scope="module")
def library():
    """Return FMN, DDN and DeepFool of adv-lib, whose loggers need a server of plots."""
    before = sys.modules.get("visdom")
    if before is None:
        sys.modules["visdom"] = types.ModuleType("visdom")
        vars(sys.modules["visdom"])["Visdom"] = None
    try:
        found = [
            getattr(pytest.importorskip(f"adv_lib.attacks.{module}"), name)
            for module, name in (
                ("fast_minimum_norm", "fmn"), ("decoupled_direction_norm", "ddn"),
                ("deepfool", "df"),
            )
        ]  # fmt: skip
    finally:
        if before is None:
            sys.modules.pop("visdom", None)
    return dict(zip(("fmn", "ddn", "deepfool"), found, strict=True))


def networks():
    from robustray.evaluation.images import load_images

    images = load_images(digits(96), None)
    yield convnet(), *conv_images()
    yield trained_net(), images.x_NCHW.float() / 255, images.y_N


@pytest.mark.parametrize(("name", "norm"), PAIRS)
def test_distances_are_those_of_another_implementation(library, name, norm):
    ours = {"fmn": {"growth": 0.0, "alpha": 1.0}}.get(name, {})
    for model, x, y in networks():
        model.requires_grad_(False)
        keywords = {} if name == "ddn" else {"norm": NORMS[norm]}
        keywords |= {"levels": None} if name == "ddn" else {}
        theirs = library[name](model, x, y, steps=40, **keywords)
        fooled_B, right_B = model(theirs).argmax(1) != y, model(x).argmax(1) == y
        distance_B = norm_per_example(theirs - x, norm).masked_fill(~fooled_B, torch.inf)
        found = find_nearest(model, x, y, norm, spec_of(name, 40, **ours)).distance_B
        assert (found[~right_B] == 0).all()
        known_B = right_B & distance_B.isfinite() & found.isfinite()
        # Where the published FMN rests on the boundary, the last bit says whether it is crossed.
        agree_B = found.isfinite() == distance_B.isfinite()
        assert agree_B[right_B].double().mean() >= (0.95 if name == "fmn" else 1)
        ratio_B = found[known_B] / distance_B[known_B]
        close_B = (ratio_B - 1).abs() < 1e-4
        assert close_B.double().mean() >= (0.95 if name == "fmn" else 1)
        assert ((ratio_B - 1).abs() < 0.05).all()


def test_rounded_pixels_are_those_of_another_implementation(library):
    for model, x, y in networks():
        model.requires_grad_(False)
        theirs = library["ddn"](model, x, y, steps=40, levels=256)
        found = find_nearest(model, x, y, "l2", spec_of("ddn", 40, levels=256))
        right_B = model(x).argmax(1) == y
        torch.testing.assert_close(found.nearest[right_B], theirs[right_B])
        assert torch.equal((255 * found.nearest[right_B]).round() / 255, found.nearest[right_B])
