"""Sentences that a text encoder reads a name in, with {} where it goes."""

from typing import Annotated

import open_clip
from pydantic import AfterValidator


def takes_a_name(template: str) -> str:
    """The template; ValueError where it has no place for a name, or another brace."""
    if template.count("{}") != 1 or template.replace("{}", "").count("{") + template.replace("{}", "").count("}"):
        raise ValueError("write it with one {} where the name goes, and no other braces")
    return template


Template = Annotated[str, AfterValidator(takes_a_name)]
"""a sentence with one {}"""
IMAGENET: tuple[str, ...] = tuple(template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES)
"""the 80 that CLIP was evaluated on ImageNet with"""
ENSEMBLE: tuple[str, ...] = (
    "a photo of a {}.",
    "This is a photo of a {}.",
    *(template("{}") for template in open_clip.SIMPLE_IMAGENET_TEMPLATES),
)
"""nine: two plain ones and the seven that CLIP's authors found to do as well as the 80"""
