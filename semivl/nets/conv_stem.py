"""The convolutional stem that adds fine detail to the transformer's features on Cityscapes (spec 2.2)."""

from typing import Any

import timm
import torch
from torch import Tensor, nn

from semivl.errors import ConfigError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STEM_CHANNELS = 256
STEM_MODEL = "resnet101c.gluon_in1k"
"""timm's name of the ResNet-101 with a stem of three 3 x 3 convolutions"""


class ConvStem(nn.Module):
    """The stem and the first stage of a ResNet-101-v1c, images (B, 3, H, W) in [0, 1] to (B, 256, H / 4, W / 4)."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        net: Any = timm.create_model(
            STEM_MODEL.partition(".")[0], pretrained=False, features_only=True, out_indices=(1,)
        )
        self.net = net
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.net((images - self.mean) / self.std)[0]

    def load_pretrained(self) -> None:
        """Puts ImageNet's weights in place; timm fetches them once.

        Raises:
            ConfigError: CONF016, they could not be downloaded.
        """
        try:
            net: Any = timm.create_model(STEM_MODEL, pretrained=True, features_only=True, out_indices=(1,))
        except Exception as error:  # timm raises whatever its hub client raises
            said = " ".join(str(error).split())[:300]
            what = f"the weights of {STEM_MODEL} for vlm.conv_stem could not be had: {said}."
            raise ConfigError("CONF016", what, "Check the network, or set vlm.conv_stem to false.") from error
        self.net.load_state_dict(net.state_dict())
