"""Entry point of the generator that images of ImageNet are projected on."""

from __future__ import annotations

from robustray.errors import ModelError
from robustray.manifest.fields import Channels, Pixels
from robustray.models.architectures.biggan import BigGanDeep
from robustray.models.registry import Paper, register

BIGGAN = Paper(
    "Andrew Brock, Jeff Donahue, Karen Simonyan",
    "Large Scale GAN Training for High Fidelity Natural Image Synthesis",
    "ICLR 2019",
    "1809.11096",
)


@register(paper=BIGGAN, purpose="generator")
def biggan_deep_256(
    *,
    num_classes: int = 1000,
    in_channels: int = 3,
    width: Channels = 128,
    latent: Channels = 128,
    image_size: Pixels | None = None,
) -> BigGanDeep:
    """BigGAN-deep: from z (B, 128) and a class to images of 256 x 256 pixels in [-1, 1].

    Parameters
    ----------
    num_classes, in_channels : int
        Classes; it draws colours, so that there are 3 channels.
    width, latent : int
        Published: 128 and 128.
    image_size : int, optional
        Height and width that images are brought to.

    Raises
    ------
    ModelError
        For other numbers of channels, and a width that is no multiple of 4.
    """
    if in_channels != 3:
        raise ModelError(f"in_channels: BigGAN-deep draws 3 channels, not {in_channels!r}")
    return BigGanDeep(num_classes, width=width, latent=latent, image_size=image_size)
