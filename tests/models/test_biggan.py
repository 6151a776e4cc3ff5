"""BigGAN-deep: sizes and names as released, its arithmetic, and that it can be projected on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robustray.alignment import project
from robustray.alignment.delta_x import Projected
from robustray.alignment.stages import Projection
from robustray.models import ModelError, create_model, find_model, load_weights
from robustray.models.architectures.biggan import BLOCKS, BigGanDeep, SelfAttention, TruncatedNorm


def small(seed: int = 0, **options: Any) -> BigGanDeep:
    """Return a thin generator with statistics, gains and shifts that matter."""
    torch.manual_seed(seed)
    model = BigGanDeep(7, **{"size": 128, "width": 4, "latent": 6, **options})
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("running_means"):
                buffer.normal_(0, 0.3)
            elif name.endswith("running_vars"):
                buffer.uniform_(0.5, 2)
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.normal_(0, 0.3)
    return model.eval()


def test_the_published_network():
    with torch.device("meta"):
        model: Any = create_model("biggan_deep_256")
    assert find_model("biggan_deep_256").purpose == "generator"
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == 55.9  # as released
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes["embeddings.weight"] == (128, 1000)
    assert shapes["generator.gen_z.weight_orig"] == (4 * 4 * 16 * 128, 256)
    assert shapes["generator.layers.0.bn_0.running_means"] == (51, 2048)
    assert shapes["generator.layers.0.bn_1.scale.weight_orig"] == (512, 256)
    assert shapes["generator.layers.1.conv_2.weight_orig"] == (512, 512, 3, 3)
    assert shapes["generator.layers.8.snconv1x1_theta.weight_orig"] == (64, 512, 1, 1)
    assert shapes["generator.layers.8.gamma"] == (1,)
    assert shapes["generator.layers.12.conv_3.bias"] == (128,)
    assert shapes["generator.conv_to_rgb.weight_orig"] == (128, 128, 3, 3)
    assert len(shapes) == 602
    assert 2 ** sum(doubles for doubles, _, _ in BLOCKS[256]) * 4 == 256
    assert 2 ** sum(doubles for doubles, _, _ in BLOCKS[128]) * 4 == 128


@pytest.mark.parametrize("size", [128, 256])
@pytest.mark.parametrize("truncation", [1.0, 0.4, 0.02])
def test_it_computes_what_the_released_package_does(size, truncation):
    """The package is only a reference here: it is neither needed nor installed with robustray."""
    released = pytest.importorskip("pytorch_pretrained_biggan.model")
    config = pytest.importorskip("pytorch_pretrained_biggan.config")
    settings = config.BigGANConfig(
        output_dim=size, layers=[list(block) for block in BLOCKS[size]], channel_width=4, z_dim=6,
        num_classes=7,
    )  # fmt: skip
    ours, theirs = small(size=size), released.BigGAN(settings).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    z, y = torch.randn(2, 6), torch.tensor([1, 5])
    with torch.no_grad():
        wanted = theirs(z, F.one_hot(y, 7).float(), truncation)
        torch.testing.assert_close(ours(z, y, truncation), wanted, rtol=1e-4, atol=1e-5)


def test_it_draws_images_of_classes():
    model, z = small(), torch.randn(3, 6)
    with torch.no_grad():
        drawn = model(z, torch.tensor([0, 1, 1]))
        other = model(z, torch.tensor([2, 1, 1]))
        each = torch.cat([model(z[k : k + 1], torch.tensor([c])) for k, c in enumerate((0, 1, 1))])
    assert drawn.shape == (3, 3, 128, 128)
    assert drawn.isfinite().all()
    assert drawn.abs().max() <= 1
    assert (drawn[0] - other[0]).abs().max() > 1e-3
    torch.testing.assert_close(drawn[1:], other[1:])
    torch.testing.assert_close(drawn, each, rtol=1e-4, atol=1e-5)


def test_images_are_brought_to_a_classifiers_size():
    whole, resized = small(), small(image_size=112)
    z, y = torch.randn(1, 6), torch.tensor([3])
    with torch.no_grad():
        expected = F.interpolate(whole(z, y), size=(112, 112), mode="bilinear")
        assert torch.equal(resized(z, y), expected)


def test_statistics_are_those_of_the_truncation():
    norm = TruncatedNorm(1)
    with torch.no_grad():
        norm.running_means[:, 0] = torch.arange(51.0)
    x, none = torch.zeros(1, 1, 1, 1), torch.zeros(1, 1)
    for truncation, mean in ((0.02, 1.0), (0.5, 25.0), (0.51, 25.5), (0.4, 20.0), (1.0, 50.0)):
        assert -norm(x, truncation, none).item() == pytest.approx(mean, rel=1e-4)


def test_attention_is_that_of_every_fourth_pixel_times_gamma():
    layer: Any = SelfAttention(8).eval()
    x = torch.randn(2, 8, 4, 4)
    with torch.no_grad():
        assert torch.equal(layer(x), x)
        layer.gamma.fill_(0.5)
        query, key, value = (
            getattr(layer, f"snconv1x1_{name}")(x) for name in ("theta", "phi", "g")
        )
        key, value = (F.max_pool2d(part, 2).flatten(2) for part in (key, value))
        weights = torch.einsum("bcn,bcm->bnm", query.flatten(2), key).softmax(2)
        taken = torch.einsum("bnm,bvm->bvn", weights, value).view(2, 4, 4, 4)
        expected = x + 0.5 * layer.snconv1x1_o_conv(taken)
        torch.testing.assert_close(layer(x), expected)


def test_spectral_norms_of_initial_weights_are_about_one():
    model = small()
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and hasattr(module, "weight_orig"):
            weight, u, v = (getattr(module, f"weight_{n}") for n in ("orig", "u", "v"))
            matrix = weight.flatten(1)
            sigma = (u @ matrix @ v).item()
            assert sigma == pytest.approx(torch.linalg.matrix_norm(matrix, 2).item(), rel=0.1)


def test_a_released_file_is_read(tmp_path):
    source, target = small(0), small(1)
    torch.save(source.state_dict(), tmp_path / "pytorch_model.bin")
    report = load_weights(target, tmp_path / "pytorch_model.bin")
    assert len(report.matched) == len(source.state_dict())
    z, y = torch.randn(1, 6), torch.tensor([2])
    with torch.no_grad():
        assert torch.equal(source(z, y), target(z, y))


def test_images_are_projected_on_a_class():
    model = small(image_size=16)
    with torch.no_grad():
        x = model(torch.full((2, 6), 0.4), torch.tensor([3, 3]))
    settings = Projection(initial_steps=10, initial_lr=0.2, steps=0)
    found, z = project(model, x, torch.tensor([3, 3]), settings, compute_shape=2)
    with torch.no_grad():
        before = (model(torch.zeros(2, 6), torch.tensor([3, 3])) - x).square().mean()
    assert (found - x).square().mean() < before / 2
    assert z.shape == (2, 6)
    shapes = []
    model.register_forward_hook(lambda *call: shapes.append(len(call[2])))
    source = Projected(model, Projection(initial_steps=1, steps=0), compute_shape=2)
    rows = torch.arange(3)
    delta = source(x[[0, 1, 0]], rows, torch.tensor([1, 2, 1]), rows)
    assert delta.shape == (3, 3, 16, 16)
    assert set(shapes) == {2}


@pytest.mark.parametrize(
    ("options", "words"),
    [({"width": 6}, "a multiple of 4"), ({"in_channels": 1}, "draws 3 channels")],
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(ModelError, match=words):
        create_model("biggan_deep_256", **options)
    with pytest.raises(ModelError, match="draws 128, 256"):
        BigGanDeep(size=512)
