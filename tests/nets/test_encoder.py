"""The dense encoder against the paper's figures, its definition, and open_clip's own forward pass."""

import open_clip
import pytest
import timm
import torch
from torch.nn import functional as F

from semivl.config import VlmConfig
from semivl.nets.conversion import from_open_clip, from_timm
from semivl.nets.decoder import DecoderShape, LanguageDecoder
from semivl.nets.encoder import Architecture, DenseEncoder, resized_positions
from tests.tiny import PATCH, SIDE, tiny_vlm


def paper_sized(**changes) -> DenseEncoder:
    architecture = Architecture(
        width=768, layers=12, heads=12, mlp=3072, patch=16, embedding=512, grid=(32, 32), gelu="exact",
        mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), skip_blocks=(0, 4),
    ).model_copy(update=changes)  # fmt: skip
    with torch.device("meta"):
        return DenseEncoder(architecture)


def millions(parameters) -> float:
    return round(sum(p.numel() for p in parameters) / 1e6, 3)


def test_parameter_counts_are_the_papers():
    encoder = paper_sized()
    encoder.train_parts("spatial")
    trained = {n: p for n, p in encoder.named_parameters() if p.requires_grad}
    assert (millions(encoder.parameters()), millions(trained.values())) == (86.829, 29.136)
    assert {n.split(".")[-2] if "." in n else n for n in trained} == {"in_proj", "out_proj", "position"}
    assert millions(p for n, p in trained.items() if n != "position") == 28.348
    assert millions(LanguageDecoder(DecoderShape(), 512, encoder.skip_channels).parameters()) == 2.217


def test_parameter_counts_on_cityscapes_are_the_papers():
    encoder = paper_sized(grid=(50, 50), skip_blocks=(4,), conv_stem=True)
    encoder.train_parts("spatial")
    assert encoder.stem is not None
    transformer = {n: p for n, p in encoder.named_parameters() if not n.startswith("stem.")}
    assert millions(transformer.values()) == 87.962
    assert millions(p for p in transformer.values() if p.requires_grad) == 30.269
    assert millions(encoder.stem.parameters()) == 0.245
    assert all(p.requires_grad for p in encoder.stem.parameters())
    decoder = LanguageDecoder(DecoderShape(skip=(32, 32)), 512, encoder.skip_channels)
    assert millions(decoder.parameters()) == 2.176


def test_the_stem_gives_a_quarter_of_the_images_side():
    architecture = tiny_vlm().encoder.architecture
    encoder = DenseEncoder(architecture.model_copy(update={"skip_blocks": (1,), "conv_stem": True}))
    features = encoder(torch.rand(2, 3, 40, 48))
    assert encoder.skip_channels == (256, 16)
    assert [tuple(s.shape[1:]) for s in features.skips] == [(256, 10, 12), (16, 5, 6)]


@pytest.mark.parametrize("name", ["vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2", "vit_tiny_patch16_224"])
def test_converted_timm_blocks_compute_what_timm_computes(name):
    torch.manual_seed(0)
    net = timm.create_model(name, num_classes=0, depth=2, img_size=112).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    grid = net.patch_embed.grid_size
    encoder = from_timm(net, VlmConfig(model=f"timm:{name}", skip_blocks=(0,)), grid).eval()
    image = torch.rand(1, 3, *net.patch_embed.img_size)
    with torch.no_grad():
        theirs = net.forward_features((image - encoder.mean) / encoder.std)[:, net.num_prefix_tokens :]
        [ours] = encoder.outputs(image, [1])
    torch.testing.assert_close(ours.flatten(2).transpose(1, 2), theirs, atol=1e-4, rtol=1e-4)
    assert torch.equal(encoder(image).dense, F.normalize(ours, dim=1))


def test_the_shared_projection_gives_both_paths_of_a_block():
    block = tiny_vlm().encoder.blocks[0]
    x = torch.randn(2, 5, 16)
    ordinary, value = block.both(x)
    torch.testing.assert_close((ordinary, value), (block(x), block.value(x)))


def test_switches_of_the_encoder_are_honoured():
    visual = open_clip.create_model("ViT-S-16-alt").visual
    config = VlmConfig(model="x", gelu="quick", layer_norm_eps=1e-6, normalisation="imagenet", skip_blocks=(3,))
    a = from_open_clip(visual, config, visual.grid_size).architecture
    assert (a.gelu, a.layer_norm_eps, a.mean, a.skip_blocks) == ("quick", 1e-6, (0.485, 0.456, 0.406), (3,))
    own = from_open_clip(visual, VlmConfig(model="x"), visual.grid_size).architecture
    assert (own.gelu, own.layer_norm_eps, own.mean) == ("exact", 1e-5, tuple(open_clip.OPENAI_DATASET_MEAN))


def test_stochastic_depth_drops_branches_in_training_only():
    encoder = tiny_vlm().encoder
    images = torch.rand(8, 3, SIDE, SIDE)
    expected = encoder.eval()(images).dense
    encoder.set_drop_path(0.5)
    assert [b.drop_path for b in encoder.blocks] == [0, 0.25, 0.5]
    assert torch.equal(encoder(images).dense, expected)
    assert not torch.equal(encoder.train()(images).dense, expected)


@pytest.mark.parametrize("name", ["ViT-B-32-quickgelu", "ViT-S-16-alt"])
def test_converted_blocks_compute_what_open_clip_computes(name):
    torch.manual_seed(0)
    visual = open_clip.create_model(name).visual.eval()
    side = visual.image_size[0]
    grid = visual.grid_size
    encoder = from_open_clip(visual, VlmConfig(model=name), grid).eval()
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
