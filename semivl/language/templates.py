"""Sentences that a text encoder reads a name in, with {} where it goes."""

import open_clip

IMAGENET: tuple[str, ...] = tuple(template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES)
"""the 80 that CLIP was evaluated on ImageNet with"""
ENSEMBLE: tuple[str, ...] = (
    "a photo of a {}.",
    "This is a photo of a {}.",
    *(template("{}") for template in open_clip.SIMPLE_IMAGENET_TEMPLATES),
)
"""nine: two plain ones and the seven that CLIP's authors found to do as well as the 80"""
