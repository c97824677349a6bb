"""The decoder of a finished model gives what the one that learned gives."""

import pytest
import torch
from torch.nn import functional as F

from semivl.nets import inference
from semivl.nets.decoder import DecoderShape, LanguageDecoder
from semivl.nets.encoder import Features
from semivl.nets.inference import InferenceDecoder, for_inference
from semivl.nets.segmenter import Segmenter
from tests.tiny import SHAPE, tiny_vlm

WIDE = DecoderShape(scale=10.0, channels=64, up=(32, 16), skip=(16, 8), dilations=(1, 3), layers=2)
"""more channels than the cosines' kernel has places, and cosines of another scale"""


def drawn(shape: DecoderShape) -> LanguageDecoder:
    """Every weight drawn anew, so that no norm is the identity and no bias nothing."""
    torch.manual_seed(0)
    decoder = LanguageDecoder(shape, 8, (12, 20))
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.normal_(std=0.3)
    return decoder.eval()


@pytest.mark.parametrize("shape", [SHAPE, WIDE], ids=["narrow", "wide"])
@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (7, 5)])
@pytest.mark.parametrize("at_once", [1, 2**22])
@torch.no_grad()
def test_logits_are_the_decoders(
    shape: DecoderShape, grid: tuple[int, int], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "ACTIVATION_BYTES", at_once)
    decoder, images, classes = drawn(shape), 2, 5
    dense = F.normalize(torch.randn(images, 8, *grid), dim=1)
    seen = Features(dense, (torch.randn(images, 12, *grid), torch.randn(images, 20, *grid)))
    text = F.normalize(torch.randn(classes, 8), dim=1)
    expected = decoder(seen, text)
    found = InferenceDecoder(decoder)(seen, text)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


@torch.no_grad()
def test_a_models_copy_answers_the_same_and_leaves_the_model_as_it_was() -> None:
    vlm = tiny_vlm()
    assert vlm.text is not None
    model = Segmenter(vlm, vlm.text.names, SHAPE).eval()
    before = {k: (v.clone(), v.stride()) for k, v in model.state_dict().items()}
    images = torch.rand(2, 3, 40, 56)
    quick = for_inference(model)
    torch.testing.assert_close(quick(images), model(images), rtol=1e-4, atol=1e-5)
    assert isinstance(model.decoder, LanguageDecoder) and quick.encoder is model.encoder
    after = model.state_dict()
    assert all(torch.equal(v, after[k]) and s == after[k].stride() for k, (v, s) in before.items())
    assert all(p.requires_grad for p in model.decoder.parameters())


def test_a_model_without_the_decoder_is_left_alone() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1))
    assert for_inference(model) is model
