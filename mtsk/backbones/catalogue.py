"""Networks with short names: what each is, whose licence its weights have, where."""

from __future__ import annotations

from dataclasses import dataclass

from mtsk.backbones.named import cached_weights, network_size, weights_config

__all__ = ["CATALOGUE", "CatalogueEntry"]


@dataclass(frozen=True)
class CatalogueEntry:
    """A network that has a short name.

    Attributes
    ----------
    name : str
        The short name, such as ``"dinov2-small"``.
    model : str
        timm's name, with the tag of its weights.
    strides : tuple of int
        Of its taps.
    """

    name: str
    model: str
    strides: tuple[int, ...]

    @property
    def licence(self) -> str:
        """The licence of the weights, as timm states it."""
        return str(weights_config(self.model).license)

    @property
    def repository(self) -> str:
        """The repository of the weights on the Hugging Face Hub."""
        return str(weights_config(self.model).hf_hub_id)

    @property
    def n_parameters(self) -> int:
        """Numbers in the network, buffers among them."""
        return network_size(f"timm:{self.model}")

    @property
    def is_here(self) -> bool:
        """Whether the weights lie in this machine's cache."""
        return cached_weights(self.model) is not None


_STAGES = (4, 8, 16, 32)

CATALOGUE = {
    entry.name: entry
    for entry in (
        CatalogueEntry("clip-b16", "vit_base_patch16_clip_224.openai", (16,)),
        CatalogueEntry("convnext-small", "convnext_small.fb_in22k", _STAGES),
        CatalogueEntry("convnext-tiny", "convnext_tiny.fb_in22k", _STAGES),
        CatalogueEntry("dinov2-base", "vit_base_patch14_reg4_dinov2.lvd142m", (14,)),
        CatalogueEntry("dinov2-small", "vit_small_patch14_reg4_dinov2.lvd142m", (14,)),
        CatalogueEntry("dinov3-base", "vit_base_patch16_dinov3.lvd1689m", (16,)),
        CatalogueEntry(
            "dinov3-convnext-tiny", "convnext_tiny.dinov3_lvd1689m", (4, 8, 16, 32)
        ),
        CatalogueEntry("dinov3-small", "vit_small_patch16_dinov3.lvd1689m", (16,)),
        CatalogueEntry("resnet50", "resnet50.a1_in1k", (2, 4, 8, 16, 32)),
        CatalogueEntry("sam-b16", "samvit_base_patch16.sa1b", (16,)),
        CatalogueEntry("sam2-small", "sam2_hiera_small.fb_r896", _STAGES),
        CatalogueEntry("sam2-tiny", "sam2_hiera_tiny.fb_r896", _STAGES),
        CatalogueEntry("siglip-b16", "vit_base_patch16_siglip_256.webli", (16,)),
    )
}
"""Networks by their short names."""
