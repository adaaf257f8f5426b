"""StyleGAN2, e4e and ArcFace beyond the published numbers: small models, precision, gradients, crops, refusals."""

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.synthesis import (
    build_case,
    build_generator,
    grouped_conv,
    grouped_synthesis,
    median_seconds,
    peak_gibibytes,
)
from models.arcface import REFERENCE_POINTS, ArcFace, align_points, face_crop
from models.e4e import E4EEncoder
from models.freezable import Freezable
from models.stylegan2 import Generator, ModulatedConv, ModulatedToRGB, mix, truncate

HALF = [torch.bfloat16, torch.float16]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny_generator(size: int = 32, visible_noise: bool = True) -> Generator:
    torch.manual_seed(0)
    model = Generator(size, style_dim=16, num_mapping=2, max_channels=16)
    if visible_noise:
        for layer in (model.conv1, *model.convs):
            nn.init.constant_(layer.noise.weight, 0.5)
    return model


def tiny_encoder(stage: int = 10) -> E4EEncoder:
    torch.manual_seed(0)
    model = E4EEncoder(num_rows=10, input_size=64, style_dim=16, width=16, depths=(1, 1, 1, 1)).freeze()
    model.stage = stage
    return model


def tiny_arcface() -> ArcFace:
    torch.manual_seed(0)
    return ArcFace(width=8, depths=(1, 1, 1, 1), input_size=48, embedding_size=16)


def w_codes(model: Generator, batch: int = 2) -> Tensor:
    return torch.randn(batch, model.num_rows, model.style_dim, generator=seeded(1))


def spread(x: Tensor, wanted: Tensor) -> float:
    """Largest difference in units of the standard deviation."""
    return ((x - wanted).abs().max() / wanted.std()).item()


@pytest.mark.parametrize("upsample", [False, True])
def test_modulated_convolution_equals_one_weight_a_sample(upsample: bool) -> None:
    torch.manual_seed(0)
    layer, bias = ModulatedConv(5, 7, 3, 16, upsample).double(), torch.randn(7).double()
    x, w = torch.randn(3, 5, 8, 8).double(), torch.randn(3, 16).double() * 3
    wanted = 1.5 * grouped_conv(layer, x, w) + bias.view(1, -1, 1, 1)
    torch.testing.assert_close(layer(x, w, bias, 1.5), wanted, rtol=1e-11, atol=1e-11)
    with torch.no_grad():
        torch.testing.assert_close(layer(x[:1], w[:1], bias, 1.5), wanted[:1], rtol=1e-11, atol=1e-11)


def test_modulated_rgb_equals_one_weight_a_sample() -> None:
    torch.manual_seed(0)
    layer = ModulatedToRGB(5, 3, 1, 16).double()
    x, w = torch.randn(3, 5, 8, 8).double(), torch.randn(3, 16).double() * 3
    torch.testing.assert_close(layer(x, w), grouped_conv(layer, x, w), rtol=1e-11, atol=1e-11)


def test_a_style_or_weight_of_zero_draws_its_bias_alone() -> None:
    layer, bias = ModulatedConv(5, 7, 3, 16), torch.arange(7.0)
    nn.init.zeros_(layer.modulation.bias)
    image = layer(torch.randn(2, 5, 8, 8), torch.zeros(2, 16), bias, 1.0)
    assert torch.equal(image, bias.view(1, -1, 1, 1).expand(2, -1, 8, 8))


@pytest.mark.parametrize(("size", "rows"), [(32, 8), (64, 10)])
def test_small_sizes(size: int, rows: int) -> None:
    model = tiny_generator(size).double()
    w_plus = w_codes(model).double()
    assert model.num_rows == rows
    assert model.synthesis(w_plus).shape == (2, 3, size, size)
    torch.testing.assert_close(model.synthesis(w_plus), grouped_synthesis(model, w_plus), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_a_fresh_network_starts_at_a_moderate_size() -> None:
    torch.manual_seed(0)
    model = Generator(32, style_dim=64, max_channels=64)
    w = model.mapping(model.draw_z(256, seeded()))
    assert 0.5 < w.square().mean().sqrt() < 2
    assert 0.3 < model.synthesis(model.rows(w[:16])).std() < 3


def test_each_noise_mode() -> None:
    model = tiny_generator().freeze()
    w_plus = w_codes(model, 1).expand(2, -1, -1)
    stored = list(model.noises.buffers())
    assert torch.equal(model.synthesis(w_plus), model.synthesis(w_plus, stored))
    assert spread(model.synthesis(w_plus, "none"), model.synthesis(w_plus, [map * 0 for map in stored])) < 1e-5
    drawn = model.synthesis(w_plus, "random", seeded(3))
    assert torch.equal(drawn, model.synthesis(w_plus, "random", seeded(3)))
    assert spread(drawn[:1], drawn[1:]) > 0.1, "each sample has noise of its own"
    assert spread(drawn, model.synthesis(w_plus, "random", seeded(4))) > 0.1


def test_noise_maps_may_differ_between_the_samples() -> None:
    model = tiny_generator().freeze()
    w_plus = w_codes(model)
    maps = [torch.randn(2, *map.shape[1:], generator=seeded()) for map in model.noises.buffers()]
    both = model.synthesis(w_plus, maps)
    for i in range(2):
        assert spread(both[i : i + 1], model.synthesis(w_plus[i : i + 1], [map[i : i + 1] for map in maps])) < 1e-4


@pytest.mark.parametrize("noise", ["stroed", [torch.zeros(1, 1, 4, 4)], [torch.zeros(3, 1, 4, 4)] * 7])
def test_other_noise_is_refused(noise: object) -> None:
    with pytest.raises(ValueError, match=r"expected 'stored', 'random', 'none' or 7 maps of \[\(1, 1, 4, 4\)"):
        tiny_generator().synthesis(torch.zeros(2, 8, 16), noise)


def test_truncation() -> None:
    model = tiny_generator().freeze()
    z, mean = model.draw_z(2, seeded()), model.mean_w(64, seeded(7))
    assert torch.equal(mean, model.mapping(model.draw_z(64, seeded(7))).mean(dim=0))
    at_mean = model(z, psi=0.0, mean=mean, noise="none")
    assert spread(at_mean[:1], at_mean[1:]) < 1e-5
    w = model.mapping(z)
    torch.testing.assert_close(truncate(w, 0.25, mean), 0.25 * w + 0.75 * mean)
    assert torch.equal(truncate(w), w)
    with pytest.raises(ValueError, match="psi = 0.5 needs the mean w"):
        truncate(w, 0.5)


def test_style_mixing_takes_the_rows_from_the_index_on_from_the_second() -> None:
    model = tiny_generator().freeze()
    z = model.draw_z(2, seeded())
    w = model.rows(model.mapping(z))
    mixed = mix(w[:1], w[1:], 3)
    assert torch.equal(mixed[0, :3], w[0, :3]) and torch.equal(mixed[0, 3:], w[1, 3:])
    image = model(z[:1], mixed=z[1:], inject_index=3, noise="none")
    assert spread(image, model.synthesis(mixed, "none")) < 1e-5
    assert spread(model(z[:1], mixed=z[1:], noise="none"), model(z[1:], noise="none")) < 1e-5


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="size is 48; expected a power of two from 32 to 1024"):
        Generator(48)
    with pytest.raises(ValueError, match=r"w_plus is \(2, 18, 16\); expected \(B, 8, 16\)"):
        tiny_generator().synthesis(torch.zeros(2, 18, 16))
    with pytest.raises(ValueError, match=r"\(1, 3, 128, 128\); expected \(B, 3, 64, 64\)"):
        tiny_encoder()(torch.zeros(1, 3, 128, 128))
    with pytest.raises(ValueError, match="input_size is 96; expected a power of two"):
        E4EEncoder(input_size=96)
    with pytest.raises(ValueError, match="stage is 11; expected 0 to 10"):
        tiny_encoder()(torch.zeros(1, 3, 64, 64), stage=11)
    with pytest.raises(ValueError, match=r"\(1, 3, 112, 112\); expected \(B, 3, 48, 48\)"):
        tiny_arcface()(torch.zeros(1, 3, 112, 112))
    with pytest.raises(ValueError, match="input_size is 100; expected a multiple of 16"):
        ArcFace(input_size=100)


def generator_of_large_weights(scale: float) -> Generator:
    """Styles, products and sums of squares are beyond float16, and so is the image."""
    model = tiny_generator().freeze()
    for layer in (model.conv1, *model.convs, model.to_rgb1, *model.to_rgbs):
        layer.conv.weight *= scale
        layer.conv.modulation.weight *= scale
    return model


@torch.no_grad()
@pytest.mark.parametrize("batch", [1, 2])  # one sample alone goes another way
@pytest.mark.parametrize("dtype", HALF)
def test_autocast_neither_overflows_nor_strays(dtype: torch.dtype, batch: int) -> None:
    model = generator_of_large_weights(1e6)
    w_plus = w_codes(model, batch)
    with torch.autocast("cpu", dtype):
        image = model.synthesis(w_plus)
    assert image.dtype == torch.float32
    assert spread(image, model.synthesis(w_plus)) < 40 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", HALF)
def test_weights_in_half_precision_neither_overflow_nor_stray(dtype: torch.dtype) -> None:
    model = generator_of_large_weights(1e4).to(dtype).float()
    w_plus = w_codes(model).requires_grad_()
    wanted = model.synthesis(w_plus).detach()
    image = model.to(dtype).synthesis(w_plus)
    assert image.dtype == torch.float32 and spread(image, wanted) < 40 * torch.finfo(dtype).eps
    (gradient,) = torch.autograd.grad((image / wanted.std()).square().mean(), w_plus)
    assert gradient.isfinite().all() and gradient.abs().amax(dim=2).min() > 0


def test_a_sum_of_aligned_products_does_not_overflow_before_it_is_demodulated() -> None:
    layer = ModulatedConv(512, 2, 3, 16)
    for parameter, value in ((layer.weight, 1.0), (layer.modulation.weight, 0.0)):
        nn.init.constant_(parameter, value)
    x = torch.full((2, 512, 4, 4), 100.0, dtype=torch.float16)
    inside = layer(x, torch.zeros(2, 16), torch.zeros(2), 1.0)[:, :, 1:-1, 1:-1]
    assert inside.dtype == torch.float16  # 100 * 4608 would be beyond it
    torch.testing.assert_close(inside.float(), torch.full((2, 2, 2, 2), 100 * 4608**0.5), rtol=2e-3, atol=0)


def test_gradient_to_w_plus_is_the_numerical_one() -> None:
    model = tiny_generator().double().freeze()
    w_plus = w_codes(model, 1).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda w: model.synthesis(w).square().mean(), w_plus, fast_mode=True)
    (gradient,) = torch.autograd.grad(model.synthesis(w_plus).square().mean(), w_plus)
    assert gradient.abs().amax(dim=2).min() > 1e-6, "every row steers the image"
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_fresh_generator_trains_every_weight() -> None:
    model = tiny_generator(visible_noise=False)
    model(model.draw_z(2, seeded()), noise="random", generator=seeded()).square().mean().backward()
    assert {name for name, parameter in model.named_parameters() if not parameter.grad.abs().sum() > 0} == set()


def test_checkpointing_computes_again_and_changes_no_gradient() -> None:
    model, calls, gradients = tiny_generator(), [], {}
    w_plus, maps = w_codes(model).requires_grad_(), [torch.randn(2, 1, *b.shape[2:]) for b in model.noises.buffers()]
    for layer in (model.conv1, *model.convs):
        layer.conv.register_forward_hook(lambda *_: calls.append(model.checkpointing))
    for model.checkpointing in (False, True):
        loss = model.synthesis(w_plus, maps).square().mean()
        gradients[model.checkpointing] = torch.autograd.grad(loss, [w_plus, *model.convs.parameters()])
    assert calls == [False] * 7 + [True] * (7 + 6)  # the first, of 4 px, is not worth it
    for again, kept in zip(gradients[True], gradients[False], strict=True):
        torch.testing.assert_close(again, kept)


def test_e4e_heads_fit_the_maps_of_a_small_image() -> None:
    model = tiny_encoder()
    depths = [sum(isinstance(layer, nn.Conv2d) for layer in head.convs) for head in model.styles]
    assert depths == [2, 2, 2, 3, 3, 3, 3, 4, 4, 4]
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 10, 16)


def test_e4e_stages_add_one_head_after_the_other() -> None:
    model, image = tiny_encoder(), torch.rand(2, 3, 64, 64, generator=seeded()) * 2 - 1
    full = model(image)
    for stage in range(11):
        w = model(image, stage)
        added = min(stage, 9) + 1
        assert torch.equal(w[:, :added], full[:, :added])
        assert torch.equal(w[:, added:], full[:, :1].expand(-1, 10 - added, -1))
    assert torch.equal(tiny_encoder(stage=4)(image), model(image, 4))
    assert not torch.isclose(full[:, 1:], full[:, :1]).all(dim=2).any()


@pytest.mark.parametrize("make", [tiny_encoder, tiny_arcface])
def test_a_frozen_model_stays_as_it_is_when_its_parent_trains(make: type[Freezable]) -> None:
    model = make().freeze()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    side = model.input_size
    image = (torch.rand(2, 3, side, side, generator=seeded()) * 2 - 1).requires_grad_()
    nn.ModuleList([model]).train()
    model(image).square().sum().backward()
    assert image.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_alignment_undoes_a_known_similarity() -> None:
    reference = torch.tensor(REFERENCE_POINTS, dtype=torch.float64)
    angles, scales = torch.tensor([0.3, -1.0]), torch.tensor([2.5, 0.4])
    real, imaginary = scales * angles.cos(), scales * angles.sin()
    matrix = torch.stack((real, -imaginary, imaginary, real), dim=1).view(2, 2, 2).double()
    offset = torch.tensor([[100.0, 50.0], [-3.0, 7.0]]).double()
    transforms = align_points(reference @ matrix.transpose(1, 2) + offset[:, None])
    torch.testing.assert_close(transforms[:, :, :2] @ matrix, torch.eye(2).double().expand(2, 2, 2))
    torch.testing.assert_close(
        transforms[:, :, :2] @ offset[..., None] + transforms[:, :, 2:], torch.zeros(2, 2, 1).double()
    )


def test_alignment_of_other_faces_is_the_least_squares_one() -> None:
    points = torch.rand(1, 5, 2, generator=seeded(), dtype=torch.float64) * 200
    rows = [row for x, y in points[0].tolist() for row in ((x, -y, 1, 0), (y, x, 0, 1))]
    a, b, u, v = np.linalg.lstsq(np.array(rows), np.array(REFERENCE_POINTS).ravel(), rcond=None)[0]
    wanted = torch.tensor([[[a, -b, u], [b, a, v]]])
    torch.testing.assert_close(align_points(points), wanted)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(align_points(points.float()), wanted.float(), rtol=1e-4, atol=1e-3)


def smooth_picture(size: int) -> np.ndarray:
    picture = np.random.default_rng(0).integers(60, 255, (8, 8, 3), dtype=np.uint8)
    return cv2.resize(picture, (size, size), interpolation=cv2.INTER_CUBIC)


def to_image(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 127.5 - 1


def test_crop_is_opencvs_with_a_black_border() -> None:
    picture = smooth_picture(150)
    transform = np.array([[0.9, -0.2, 30.0], [0.2, 0.9, -40.0]])
    wanted = cv2.warpAffine(picture, transform, (112, 112), borderValue=0)
    crop = face_crop(to_image(picture), torch.from_numpy(transform)[None].float())
    assert (wanted.sum(axis=2) == 0).mean() > 0.05 and (crop == -1).all(dim=1).float().mean() > 0.05
    # OpenCV rounds places to 1/32 px and values to whole levels.
    assert ((crop - to_image(wanted)) * 127.5).abs().quantile(0.999) < 4
    assert ((crop - to_image(wanted)) * 127.5).abs().mean() < 0.4


def test_crop_of_another_size_shows_the_same() -> None:
    image, transform = to_image(smooth_picture(150)), torch.tensor([[[0.9, -0.2, 10.0], [0.2, 0.9, -5.0]]])
    halved = nn.functional.avg_pool2d(face_crop(image, transform), 2)
    assert (face_crop(image, transform, size=56) - halved).abs().mean() < 0.01


def test_crop_passes_gradients_to_image_and_transform() -> None:
    image = torch.rand(1, 3, 12, 12, generator=seeded(), dtype=torch.float64).requires_grad_()
    transform = torch.tensor([[[9.3, -2.1, 3.7], [1.9, 8.8, 4.1]]], dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, t: face_crop(x, t, size=6), (image, transform))


def test_arcface_of_a_small_crop() -> None:
    model = tiny_arcface().freeze()
    embedding = model(torch.rand(2, 3, 48, 48, generator=seeded()))
    assert embedding.shape == (2, 16)
    assert not torch.allclose(embedding.norm(dim=1), torch.ones(2), atol=0.05), "the caller normalises"


@pytest.mark.slow
def test_full_size_synthesis_is_no_slower_than_the_straightforward_one_and_light() -> None:
    assert peak_gibibytes(1024, 1, "ours", "inference") < 3
    generator = build_generator(1024)
    cases = {version: build_case(generator, 1, version, "inference") for version in ("grouped", "ours")}
    seconds = median_seconds(cases, rounds=3)
    assert seconds["ours"] <= seconds["grouped"]
