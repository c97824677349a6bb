"""Whether an exported model says what PyTorch says: on made images of several sizes, and on photos."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semivl.config import Record
from semivl.data.decode import decode_image
from semivl.errors import ExportError

TOLERANCE = 1e-3
"""largest difference of a logit, by the largest logit where that is above 1"""
EQUAL = 0.999
"""share of the pixels whose class must be the same; where two classes are as good as equal, rounding decides"""
MOST_PHOTOS = 32
_ENDINGS = {".jpg", ".jpeg", ".png"}
Run = Callable[[Tensor], Tensor]
"""(B, 3, H, W) uint8 -> (B, N, H, W) float32"""


class Difference(Record):
    """How far an exported model is from PyTorch."""

    images: int
    left_out: int = 0
    """photos that are too small"""
    logits: float
    """largest absolute difference"""
    largest: float
    """largest absolute logit of PyTorch"""
    equal: float
    """share of the pixels of the same class"""

    @property
    def is_small(self) -> bool:
        return self.logits <= TOLERANCE * max(1.0, self.largest) and self.equal >= EQUAL


class Windows(Record):
    """Photos to compare on."""

    paths: tuple[Path, ...]
    side: int
    """of the window in a photo's middle, at the most"""
    left_out: int

    def images(self) -> Iterable[Tensor]:
        for path in self.paths:
            yield _middle(path, self.side)


def measured(model: nn.Module, run: Run, images: "Iterable[Tensor] | Windows") -> Difference:
    """The differences of `run` to the model, which gives logits first, over batches of images."""
    shown = images.images() if isinstance(images, Windows) else images
    count = pixels = same = 0
    apart = largest = 0.0
    for batch in shown:
        with torch.inference_mode():
            expected = model(batch)[0]
            found = run(batch)
        if found.shape != expected.shape:
            what = f"the export gives {tuple(found.shape)} for images {tuple(batch.shape)}"
            raise ExportError("EXP005", f"{what}, not {tuple(expected.shape)}.", "Report it; use --format torch.")
        apart = max(apart, float((found - expected).abs().nan_to_num(torch.inf).max()))
        largest = max(largest, float(expected.abs().max()))
        same += int((found.argmax(1) == expected.argmax(1)).sum())
        pixels += expected.shape[0] * expected.shape[-2] * expected.shape[-1]
        count += len(batch)
    left_out = images.left_out if isinstance(images, Windows) else 0
    return Difference(images=count, left_out=left_out, logits=apart, largest=largest, equal=same / pixels)


def require_equal(found: Difference, output: Path) -> Difference:
    """What was found; EXP005 where it is not small."""
    if found.is_small:
        return found
    what = (
        f"{output} would differ from PyTorch by {found.logits:.2g} in logits up to {found.largest:.2g}, and agree in "
        f"{found.equal:.2%} of the pixels; it was not written."
    )
    raise ExportError(
        "EXP005", what, f"At most {TOLERANCE:g} and at least {EQUAL:.1%} are allowed. Use --format torch."
    )


def made_images(side: int) -> Sequence[Tensor]:
    """Batches of images, smooth with some noise: the smallest, sides that are no multiple of a patch, a wide one."""
    random = torch.Generator().manual_seed(0)
    sizes = ((1, side, side), (2, side + side // 3 + 1, side + 3), (1, side + 5, 3 * side + 7))
    batches = []
    for count, height, width in sizes:
        coarse = torch.rand(count, 3, 5, 7, generator=random)
        smooth = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
        noisy = smooth + 0.05 * torch.randn(smooth.shape, generator=random)
        batches.append((255 * noisy.clamp(0, 1)).to(torch.uint8))
    return batches


def photo_windows(folder: Path, window: int, smallest: int) -> Windows:
    """The first photos of the folder, by name; those too small for the export are counted.

    Raises:
        ExportError: EXP004, the folder holds none that is large enough, or a file that cannot be decoded.
    """
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _ENDINGS) if folder.is_dir() else []
    side = max(window, smallest)
    chosen, left_out = [], 0
    for path in found:
        if len(chosen) == MOST_PHOTOS:
            break
        height, width = _middle(path, side).shape[-2:]
        if min(height, width) < smallest:
            left_out += 1
        else:
            chosen.append(path)
    if not chosen:
        what = f"{folder} holds no photo of at least {smallest} pixels a side ({left_out} smaller ones)."
        raise ExportError("EXP004", what, "Give a folder of JPEG or PNG photos, or leave --check out.")
    return Windows(paths=tuple(chosen), side=side, left_out=left_out)


def _middle(path: Path, side: int) -> Tensor:
    """(1, 3, h, w) uint8: the middle of a photo, `side` pixels at the most."""
    try:
        photo = decode_image(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ExportError("EXP004", f"{path} cannot be decoded: {error}.", "Remove it from the folder.") from None
    top, left = (max(0, (length - side) // 2) for length in photo.shape[:2])
    cut = photo[top : top + side, left : left + side]
    return torch.from_numpy(cut.copy()).permute(2, 0, 1)[None].contiguous()
