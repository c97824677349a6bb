"""Dropout of whole channels, drawn for the images of all ranks."""

from torch import Tensor

from semivl.data import ranks


def dropped_channels(maps: Tensor, probability: float) -> Tensor:
    """Maps (B, C, h, w) with channels set to 0, drawn anew for each image; the others are made up for them.

    In one process the same as torch's dropout2d in training, bit for bit.
    """
    count, channels = maps.shape[:2]
    kept = maps.new_empty(count * ranks.world(), channels, 1, 1).bernoulli_(1 - probability).div_(1 - probability)
    return maps * kept[ranks.part(count)]
