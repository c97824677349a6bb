"""The dense encoder against the paper's figures, its definition, and open_clip's own forward pass."""

import open_clip
import pytest
import torch
from torch.nn import functional as F

from semivl.nets.decoder import DecoderShape, LanguageDecoder
from semivl.nets.encoder import Architecture, DenseEncoder, from_open_clip, resized_positions
from tests.tiny import PATCH, SIDE, tiny_vlm


def paper_sized() -> DenseEncoder:
    architecture = Architecture(
        width=768, layers=12, heads=12, mlp=3072, patch=16, embedding=512, grid=(32, 32), gelu="exact",
        mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), skip_blocks=(0, 4),
    )  # fmt: skip
    with torch.device("meta"):
        return DenseEncoder(architecture)


def test_parameter_counts_are_the_papers():
    encoder = paper_sized()
    encoder.train_spatial_parts_only()
    trained = {n: p.numel() for n, p in encoder.named_parameters() if p.requires_grad}
    assert round(sum(p.numel() for p in encoder.parameters()) / 1e6, 3) == 86.829
    assert round(sum(trained.values()) / 1e6, 3) == 29.136
    assert {n.split(".")[-2] if "." in n else n for n in trained} == {"in_proj", "out_proj", "position"}
    decoder = LanguageDecoder(DecoderShape(), 512, 768)
    assert round(sum(p.numel() for p in decoder.parameters()) / 1e6, 3) == 2.217


@pytest.mark.parametrize("name", ["ViT-B-32-quickgelu", "ViT-S-16-alt"])
def test_converted_blocks_compute_what_open_clip_computes(name):
    torch.manual_seed(0)
    visual = open_clip.create_model(name).visual.eval()
    side = visual.image_size[0]
    grid = visual.grid_size
    encoder = from_open_clip(visual, "own", (0, 4), grid).eval()
    image = torch.rand(1, 3, side, side)
    with torch.no_grad():
        expected = visual._embeds((image - encoder.mean) / encoder.std)
        tokens = encoder.patch((image - encoder.mean) / encoder.std).flatten(2).transpose(1, 2)
        tokens = torch.cat([encoder.class_token.expand(1, 1, -1), tokens], dim=1)
        tokens = encoder.ln_pre(tokens + encoder.position)
        for theirs, ours in zip(visual.transformer.resblocks, encoder.blocks, strict=True):
            expected, tokens = theirs(expected), ours(tokens)
        theirs = visual.ln_post(expected) @ visual.proj
    torch.testing.assert_close(encoder.projection(encoder.ln_post(tokens)), theirs, atol=1e-4, rtol=1e-4)


def test_value_path_is_the_block_with_attention_forced_to_the_identity():
    block = tiny_vlm().encoder.blocks[0]
    x = torch.randn(2, 5, 16)
    value = F.linear(block.ln_1(x), *(p.chunk(3)[2] for p in (block.in_proj.weight, block.in_proj.bias)))
    identity = torch.eye(5).expand(2, 5, 5)
    through = x + block.out_proj(identity @ value)
    through = through + block.proj(F.gelu(block.fc(block.ln_2(through))))
    torch.testing.assert_close(block.value(x), through)


def test_query_and_key_of_the_last_block_get_no_gradient():
    vlm = tiny_vlm()
    vlm.encoder(torch.rand(1, 3, SIDE, SIDE)).dense.square().sum().backward()
    gradient = vlm.encoder.blocks[-1].in_proj.weight.grad
    assert gradient is not None
    query_and_key, value = gradient[:32], gradient[32:]
    assert query_and_key.abs().max() == 0 and value.abs().max() > 0


def test_positions_keep_their_values_on_the_same_grid_and_the_class_token_on_any():
    table = torch.randn(1 + 16, 8)
    assert resized_positions(table, (4, 4), (4, 4)) is table
    resized = resized_positions(table, (4, 4), (6, 5))
    assert resized.shape == (31, 8) and torch.equal(resized[0], table[0])


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (17, 64)])
def test_any_image_size_is_padded_to_whole_patches(size):
    features = tiny_vlm().encoder(torch.rand(1, 3, *size))
    expected = tuple(-(-s // PATCH) for s in size)
    assert features.dense.shape[-2:] == expected
    assert all(skip.shape[-2:] == expected for skip in features.skips)
    torch.testing.assert_close(features.dense.norm(dim=1), torch.ones(1, *expected))
