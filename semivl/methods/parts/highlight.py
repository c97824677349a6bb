"""Highlighting: what a mask leaves of an image or caption, the rest filled by a learned prompt (spec code.md, 3.5)."""

from torch import Tensor
from torch.nn import functional as F

from semivl.nets.encoder import DenseEncoder


def hard_masks(logits: Tensor, draw: Tensor) -> Tensor:
    """Masks of 0 and 1 of logits of any shape, with the gradient of the soft ones (Gumbel-sigmoid, tau 1), by a uniform
    draw from [0, 1) of the same shape."""
    logistic = draw.clamp(1e-6, 1 - 1e-6).logit()  # the difference of two draws of Gumbel's
    soft = (logits + logistic).sigmoid()
    hard = (soft > 0.5).to(soft.dtype)
    return hard - soft.detach() + soft


def highlighted_images(encoder: DenseEncoder, images: Tensor, masks: Tensor, prompt: Tensor) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] that keep what masks (B, h, w) are 1 on; elsewhere they show the prompt.

    The prompt (3, S, S) is in the encoder's normalised values, as is the mixing: at zero it shows the mean colour. The
    mask is scaled up by nearest neighbours, the prompt bilinearly.
    """
    size = images.shape[-2:]
    kept = F.interpolate(masks[:, None], size=size, mode="nearest")
    shown = F.interpolate(prompt[None], size=size, mode="bilinear", align_corners=False)
    filler = encoder.mean + encoder.std * shown
    return kept * images + (1 - kept) * filler


def highlighted_words(embedded: Tensor, shares: Tensor, spoken: Tensor, prompt: Tensor) -> Tensor:
    """Token embeddings (B, L, W) mixed with the prompt (longest, W): `shares` (B, L) of each token stay.

    Start, end and filling stay whole.
    """
    kept = shares.masked_fill(~spoken, 1.0).unsqueeze(-1).to(embedded.dtype)
    return kept * embedded + (1 - kept) * prompt[: embedded.shape[1]].to(embedded.dtype)
