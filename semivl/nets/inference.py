"""The language-guided decoder as a finished model runs it: the same function of the same weights, in fewer steps.

Nothing is learned here, so that steps without a nonlinearity between them become one (each exact but for rounding):

- The convolution that reads the cosines, 1 to C channels, is followed by convolutions of its C channels. Where its
  kernel has fewer places than C, these read the cosines' neighbourhoods themselves.
- Doubling the resolution and the convolution after it are one transposed convolution of twice the kernel.
- The part of the merging convolution that reads the pooled branch is the same at every pixel: a bias of each image.

Channels lie last in memory, which the CPU's convolutions and group norms of few channels want, and images are decoded
one after the other: the classes of one are batch enough.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semivl.nets.decoder import LanguageDecoder, Spatial, Up, cosine_maps
from semivl.nets.encoder import Features

ACTIVATION_BYTES = 2**22
"""of the largest activation of the classes that are decoded at once: what a core's caches hold"""


def for_inference(model: nn.Module) -> nn.Module:
    """A model of the same encoder with its language-guided decoder as above; the model itself where it has none."""
    decoder = dict(model.named_children()).get("decoder")
    if not isinstance(decoder, LanguageDecoder):
        return model
    found = copy.copy(model)
    found._modules = {**model._modules, "decoder": InferenceDecoder(decoder)}
    return found


class InferenceDecoder(nn.Module):
    """Dense features and class text to logits at four times the patch grid, as `LanguageDecoder` gives them."""

    def __init__(self, decoder: LanguageDecoder) -> None:
        """Takes a copy of the decoder's weights as they are now."""
        super().__init__()
        decoder = copy.deepcopy(decoder)
        self.scale, self.text, self.semantic = decoder.scale, decoder.text, decoder.semantic
        self.lower = _Lower(decoder.similarity, decoder.spatial)
        self.deep, self.shallow = _Double(decoder.up_deep), _Double(decoder.up_shallow)
        self.head = decoder.head
        self.requires_grad_(False).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, features: Features, text: Tensor) -> Tensor:
        """Logits (B, N, 4h, 4w) of features and normalised class text (N, D)."""
        cosine = cosine_maps(features, text, self.scale)
        projected = self.text(text)
        shallow, deep = features.skips
        return torch.stack(
            [self._image(c, deep[i : i + 1], shallow[i : i + 1], projected) for i, c in enumerate(cosine)]
        )

    def _image(self, cosine: Tensor, deep: Tensor, shallow: Tensor, text: Tensor) -> Tensor:
        """(N, 4h, 4w) of an image's cosines (N, h, w), skip features (1, C, ...) and projected text (N, C)."""
        h, w = cosine.shape[1:]
        at_once = max(1, ACTIVATION_BYTES // (4 * 16 * h * w * self.head.in_channels))
        x = torch.cat([self.lower(chunk[:, None]) for chunk in cosine.split(at_once)])
        for layer in self.semantic:
            x = layer(x[None], text)[0]
        deep, shallow = self.deep.shared(deep, (2 * h, 2 * w)), self.shallow.shared(shallow, (4 * h, 4 * w))
        logits = [self.head(self.shallow(self.deep(chunk, deep), shallow)) for chunk in x.split(at_once)]
        return torch.cat(logits)[:, 0]


class _Lower(nn.Module):
    """`similarity` and `spatial`: cosines (n, 1, h, w) to (n, C, h, w)."""

    def __init__(self, similarity: nn.Conv2d, spatial: Spatial) -> None:
        super().__init__()
        self.similarity, self.pooled = similarity, spatial.pooled
        self.branches = nn.ModuleList([spatial.point, *spatial.atrous])
        _, self.norm, self.relu = spatial.merge  # pyright: ignore[reportGeneralTypeIssues]
        merge = _conv_of(spatial.merge).weight.detach()
        read = len(self.branches) * similarity.out_channels
        self.merge, self.merge_pooled = _Weights(merge[:, :read]), _Weights(merge[:, read:])
        self.reads_cosines = similarity.kernel_size[0] * similarity.kernel_size[1] < similarity.out_channels
        weights = [_conv_of(branch).weight.detach() for branch in self.branches]
        if self.reads_cosines:
            # (C, places + 1): what each channel makes of a neighbourhood, and the bias as one more place that is 1
            seen = torch.cat([similarity.weight.flatten(1), similarity.bias[:, None]], 1).detach()  # pyright: ignore
            weights = [torch.einsum("ocyx,cp->opyx", weight, seen) for weight in weights]
        self.weights = nn.ModuleList(map(_Weights, weights))

    def forward(self, cosine: Tensor) -> Tensor:
        x = self.similarity(cosine)
        seen = self._neighbourhoods(cosine) if self.reads_cosines else x
        found = [
            _rest(branch)(weights(seen, *_reach(branch)))
            for branch, weights in zip(self.branches, self.weights, strict=True)
        ]
        pooled = self.merge_pooled(self.pooled(x.mean((2, 3), keepdim=True)))
        return x.add_(self.relu(self.norm(self.merge(torch.cat(found, 1)).add_(pooled))))

    def _neighbourhoods(self, cosine: Tensor) -> Tensor:
        """(n, places + 1, h, w): the cosines around each patch, 0 beyond the border, and 1."""
        kernel, padding = self.similarity.kernel_size, self.similarity.padding
        n, _, h, w = cosine.shape
        around = F.unfold(cosine, kernel, padding=padding).unflatten(2, (h, w))  # pyright: ignore[reportArgumentType]
        return torch.cat([around, around.new_ones(n, 1, h, w)], 1).contiguous(memory_format=torch.channels_last)


class _Double(nn.Module):
    """`Up`: (n, C, h, w) and what the skip feature adds to (n, outputs, 2h, 2w)."""

    edges: Tensor

    def __init__(self, up: Up) -> None:
        super().__init__()
        self.source = up
        kernel, first = up.up.weight.detach(), _conv_of(up.mix[0]).weight.detach()  # pyright: ignore
        first = first[:, : kernel.shape[1]]
        weights = kernel.new_zeros(kernel.shape[0], first.shape[0], 4, 4)
        for p in range(2):
            for q in range(2):
                for r in range(3):
                    for s in range(3):
                        weights[:, :, p - r + 2, q - s + 2] += kernel[:, :, p, q] @ first[:, :, r, s].T
        self.weights = _Weights(weights)
        bias = up.up.bias.detach()  # pyright: ignore[reportOptionalMemberAccess]
        # what the bias of the doubling adds: at corners, edges and inside of a map of any size
        self.register_buffer("edges", F.conv2d(bias[None, :, None, None].expand(1, -1, 3, 3), first, padding=1), False)

    def shared(self, skip: Tensor, size: tuple[int, int]) -> Tensor:
        """(1, outputs, *size): what is added for all classes, by the skip feature (1, any, any, any) and the bias."""
        rows, columns = (torch.ones(n, dtype=torch.long) for n in size)
        rows[0], columns[0], rows[-1], columns[-1] = 0, 0, 2, 2
        return self.source.shared(skip, size).add_(self.edges[:, :, rows][..., columns])

    def forward(self, x: Tensor, shared: Tensor) -> Tensor:
        first, second = self.source.mix  # pyright: ignore[reportGeneralTypeIssues]
        x = F.conv_transpose2d(x, self.weights.weight, stride=2, padding=1).add_(shared)
        return second(_rest(first)(x))


class _Weights(nn.Module):
    """A convolution's weights, which follow the module to a device or memory format."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight.contiguous(), persistent=False)

    def forward(self, x: Tensor, padding: int = 0, dilation: int = 1) -> Tensor:
        return F.conv2d(x, self.weight, padding=padding, dilation=dilation)


def _conv_of(sequence: nn.Module) -> nn.Conv2d:
    return sequence[0]  # pyright: ignore[reportIndexIssue]


def _rest(sequence: nn.Module) -> nn.Module:
    """What follows the convolution."""
    return sequence[1:]  # pyright: ignore[reportIndexIssue]


def _reach(sequence: nn.Module) -> tuple[int, int]:
    conv = _conv_of(sequence)
    return conv.padding[0], conv.dilation[0]  # pyright: ignore[reportReturnType]
