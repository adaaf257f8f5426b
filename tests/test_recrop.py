"""The estimator's view of an aligned face: the warp's geometry, the equalisation to the bit, and both gradients."""

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from dataset import prepare_image
from models.geometry import angular_error_deg
from models.recrop import equalize, estimator_view, warp
from preprocess.synthetic.drawn.head import build_person
from preprocess.synthetic.drawn.person import draw_identity
from preprocess.synthetic.drawn.render import render
from preprocess.synthetic.scene import Scene
from tests.tiny import PoolEstimator
from utils import image_to_float, image_to_uint8


def to_batch(pixels: np.ndarray) -> Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) in [-1, 1]."""
    return image_to_float(torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))))


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    scenes = [
        Scene(gaze=(0.1, 0.2), head=(-0.2, 0.3), exposure=e, contrast=c, noise=n, seed=4)
        for e, c, n in ((1.0, 1.0, 0.0), (0.5, 0.8, 2.0), (1.5, 1.1, 3.0))
    ]
    persons = [build_person(draw_identity(np.random.default_rng(seed))) for seed in range(3)]
    return np.stack([render(person, scene, 64) for person in persons for scene in scenes])


RANDOM = np.random.default_rng(0)
PICTURES = {
    "noise": RANDOM.integers(0, 256, (6, 32, 32, 3)),
    "saturated colours": RANDOM.integers(0, 2, (6, 32, 32, 3)) * 255,
    "few pixels": RANDOM.integers(0, 256, (60, 3, 3, 3)),
    "one colour": np.full((2, 8, 8, 3), 77),
    # Luma 100 becomes 246.5 in float32, if divided as OpenCV does.
    "a tie": np.repeat([0, 100, 200], [4, 15834, 546]).reshape(1, 128, 128, 1).repeat(3, axis=3),
    "not square": RANDOM.integers(90, 110, (2, 8, 20, 3)),
}


def opencv(pixels: np.ndarray) -> np.ndarray:
    """(B, 3, H, W): luma equalised by OpenCV, as the data set does it."""
    equalized = []
    for picture in pixels:
        ycrcb = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2YCrCb)
        ycrcb[..., 0] = cv2.equalizeHist(np.ascontiguousarray(ycrcb[..., 0]))
        equalized.append(cv2.cvtColor(ycrcb, cv2.COLOR_YCrCb2RGB).transpose(2, 0, 1))
    return np.stack(equalized)


@pytest.mark.parametrize("name", PICTURES)
def test_equalised_pixels_are_opencvs_to_the_bit(name: str):
    pixels = PICTURES[name].astype(np.uint8)
    np.testing.assert_array_equal(image_to_uint8(equalize(to_batch(pixels))).numpy(), opencv(pixels))


def test_equalised_faces_are_the_data_sets_to_the_bit(faces: np.ndarray):
    expected = np.stack([prepare_image(face, 64) for face in faces])
    np.testing.assert_array_equal(image_to_uint8(equalize(to_batch(faces))).numpy(), expected)


def test_an_image_between_levels_and_outside_of_the_range_is_taken_as_8_bits():
    image = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    as_8_bits = equalize(image_to_float(image_to_uint8(image)))
    torch.testing.assert_close(equalize(image), as_8_bits, rtol=0, atol=1e-6)


def test_gradient_is_the_tables_slope():
    # Lumas 10, 20, 30, 40 become 0, 85, 170, 255: the table rises by 85 from 19 to 21, but not from 9 to 11.
    levels = torch.tensor([[10.0, 20.0], [30.0, 40.0]]).expand(1, 3, 2, 2)
    image = (levels / 127.5 - 1).requires_grad_()
    equalized = equalize(image)
    assert image_to_uint8(equalized)[0, 1].tolist() == [[0, 85], [170, 255]]
    equalized[0, 0, 0, 1].backward()  # red of luma 20
    red, green, blue = 4899 / 2**14, 9617 / 2**14, 1868 / 2**14
    assert image.grad[0, :, 0, 1].tolist() == pytest.approx([1 + 41.5 * red, 41.5 * green, 41.5 * blue])
    assert image.grad.count_nonzero() == 3
    image.grad = None
    equalize(image)[0, 0, 0, 0].backward()  # red of luma 10
    assert image.grad[0, :, 0, 0].tolist() == pytest.approx([1 - red, -green, -blue])


def test_a_clipped_channel_has_no_gradient():
    pixels = np.full((1, 4, 4, 3), 30, np.uint8)
    pixels[0, :2] = (200, 10, 10)  # brightened to luma 255: red is clipped
    image = to_batch(pixels).requires_grad_()
    equalized = equalize(image)
    assert image_to_uint8(equalized)[0, :, 0, 0].tolist()[0] == 255
    assert image_to_uint8(equalized)[0, :, 0, 0].tolist()[1] < 255
    equalized[0, 0, 0, 0].backward()
    assert image.grad.count_nonzero() == 0
    equalize(image)[0, 1, 0, 0].backward()
    assert image.grad[0, 1, 0, 0] > 1


def test_what_is_not_a_number_stays_so():
    image = torch.zeros(1, 3, 4, 4)
    image[0, 1, 2, 3] = float("nan")
    assert equalize(image).isnan().any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_precision_is_at_least_float32_also_under_autocast(dtype: torch.dtype):
    image, crop = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.eye(3)[None]
    with torch.autocast("cpu", torch.bfloat16):
        seen = estimator_view(image.to(dtype), crop, 8)
    assert seen.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(seen, equalize(image.to(dtype)))


# The warp


def moved(x: float, y: float, scale: float = 1.0) -> Tensor:
    return torch.tensor([[[scale, 0.0, x], [0.0, scale, y], [0.0, 0.0, 1.0]]])


def test_identity_of_the_same_size_gives_the_image_back():
    image = torch.rand(2, 3, 12, 12)
    torch.testing.assert_close(warp(image, torch.eye(3).expand(2, 3, 3), 12), image)


@pytest.mark.parametrize("size", [8, 16, 32])
def test_identity_to_a_smaller_patch_averages_blocks(size: int):
    image = torch.rand(1, 3, 64, 64)
    expected = torch.nn.functional.avg_pool2d(image, 64 // size)
    torch.testing.assert_close(warp(image, torch.eye(3)[None], size), expected)


def test_a_step_of_one_pixel_repeats_the_rim():
    image = torch.rand(1, 3, 8, 8)
    patch = warp(image, moved(2 / 8, 0), 8)  # the patch's pixel 0 lies at the image's pixel 1
    torch.testing.assert_close(patch, torch.cat([image[..., 1:], image[..., -1:]], dim=-1))


@pytest.mark.parametrize("source", [24, 32, 64, 100, 200, 256])
def test_no_size_moves_the_picture(source: int):
    at = (torch.arange(source) * 2 + 1) / source - 1
    ramps = torch.stack(torch.broadcast_tensors(at, at[:, None], at + at[:, None]))[None]
    patch = warp(ramps, moved(0.1, -0.2, 0.6), 32)
    fine = ((torch.arange(32) * 2 + 1) / 32 - 1) * 0.6
    expected = torch.stack(torch.broadcast_tensors(fine + 0.1, fine[:, None] - 0.2, fine + fine[:, None] - 0.1))[None]
    torch.testing.assert_close(patch, expected, rtol=0, atol=1e-5)


def test_a_homography_is_opencvs():
    rng = np.random.default_rng(1)
    picture = cv2.GaussianBlur(rng.uniform(-1, 1, (64, 64, 3)).astype(np.float32), (0, 0), 4)
    to_image = np.array([[0.8, 0.1, 5], [-0.05, 0.9, 3], [4e-4, -3e-4, 1]])  # pixels of the patch to the image's
    inverse_map = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    expected = cv2.warpPerspective(picture, to_image, (64, 64), flags=inverse_map, borderMode=cv2.BORDER_REPLICATE)
    unit = np.array([[2 / 64, 0, 1 / 64 - 1], [0, 2 / 64, 1 / 64 - 1], [0, 0, 1]])
    crop = torch.from_numpy(unit @ to_image @ np.linalg.inv(unit)).float()[None]
    patch = warp(torch.from_numpy(picture.transpose(2, 0, 1))[None], crop, 64)[0].permute(1, 2, 0)
    assert np.abs(patch.numpy() - expected).max() < 4e-3  # OpenCV's weights have 5 bits


@pytest.mark.parametrize("size", [3, 8])
def test_warps_gradient_is_that_of_finite_differences(size: int):
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 3, 8, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    tilt = 0.05 * torch.randn(2, 3, 3, generator=generator, dtype=torch.float64)
    crop = (torch.diag(torch.tensor([0.6, 0.6, 1.0], dtype=torch.float64)) + tilt).requires_grad_()
    assert torch.autograd.gradcheck(lambda image: warp(image, crop.detach(), size).square(), image, atol=1e-7)
    assert torch.autograd.gradcheck(lambda crop: warp(image.detach(), crop, size).square(), crop, atol=1e-5)


def test_descent_on_the_pixels_lowers_the_estimators_loss_as_8_bits_show(faces: np.ndarray):
    estimator, crop = PoolEstimator(), moved(0.05, 0.1, 0.6).expand(len(faces), 3, 3)
    start = to_batch(faces)
    target = torch.tensor([[0.2, -0.3]]).expand(len(faces), 2)

    def error(image: Tensor) -> Tensor:
        return angular_error_deg(estimator(estimator_view(image, crop, 32)).gaze, target)

    image = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([image], lr=0.02)
    for _ in range(15):
        optimizer.zero_grad()
        error(image).mean().backward()
        optimizer.step()
    with torch.no_grad():
        before, after = error(start), error(image_to_float(image_to_uint8(image)))
    assert (after < 0.8 * before).all()
