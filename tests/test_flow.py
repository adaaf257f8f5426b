"""The redirector that carries pixels: geometry of its flow, and what its edits leave alone."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from models.flow import enlarged, eye_places, head_rotation, pixel_positions, rigid_flow, warp
from models.geometry import pitchyaw_to_vector
from models.redirector import Encoding
from models.st_ed import st_ed_factors
from models.st_ed_flow import STEDFlow
from tests.tiny import SIZE, random_batch, tiny_flow


@pytest.fixture
def redirector() -> STEDFlow:
    return tiny_flow().eval()


def encoded(redirector: STEDFlow, size: int = SIZE) -> Encoding:
    with torch.no_grad():
        return redirector.encode(F.interpolate(random_batch()["image_a"], size=size))


def test_a_head_turned_to_a_condition_looks_along_its_label_vector() -> None:
    angles = torch.tensor([[0.3, -0.5], [-0.2, 0.7]])
    assert torch.allclose(head_rotation(angles)[:, :, 2], pitchyaw_to_vector(angles), atol=1e-6)


def test_no_flow_changes_nothing_and_a_constant_one_moves_the_picture() -> None:
    image = torch.rand(1, 3, 8, 8)
    assert torch.allclose(warp(image, torch.zeros(1, 2, 8, 8)), image, atol=1e-6)
    flow = torch.zeros(1, 2, 8, 8)
    flow[:, 0] = 2 / 8  # one pixel: what is to the right comes here
    assert torch.allclose(warp(image, flow)[..., :-1], image[..., 1:], atol=1e-6)


def test_a_point_before_the_middle_goes_where_the_head_turns() -> None:
    """The tip of a nose 0.4 before the axis; yaw 0.5 turns it by 0.4 sin(0.5) to image left."""
    tip = torch.full((1, 1, 65, 65), 0.4)
    flow = rigid_flow(tip, torch.tensor([[0.0, 0.5]]), torch.zeros(1, 2))
    middle = flow[0, :, 32, 32]
    assert middle.tolist() == pytest.approx([-0.4 * torch.tensor(0.5).sin().item(), 0.0], abs=1e-6)


def test_a_head_that_looks_up_shows_its_nose_higher() -> None:
    flow = rigid_flow(torch.full((1, 1, 65, 65), 0.4), torch.tensor([[0.5, 0.0]]), torch.zeros(1, 2))
    assert flow[0, 1, 32, 32].item() == pytest.approx(-0.4 * torch.tensor(0.5).sin().item(), abs=1e-6)


def test_positions_are_the_middles_of_pixels() -> None:
    assert pixel_positions(4, torch.zeros(1))[0, 0, 0].tolist() == [-0.75, -0.25, 0.25, 0.75]


def test_enlarged_maps_lie_where_they_lay() -> None:
    # PyTorch's cubic is not exact on ramps: a small pixel is 0.125 wide here, and it is off by up to 0.01.
    ramp = pixel_positions(16, torch.zeros(1))
    assert torch.allclose(enlarged(ramp, 64)[..., 8:-8, 8:-8], pixel_positions(64, ramp)[..., 8:-8, 8:-8], atol=1e-2)


@pytest.mark.parametrize("size", [64, 128, 256, 512])
def test_an_edit_of_nothing_is_the_source_at_its_own_size(redirector: STEDFlow, size: int) -> None:
    encoding = encoded(redirector, size)
    with torch.no_grad():
        again = redirector.decode(redirector.rotate(encoding, dict(encoding.conditions)))
    assert again.shape[-1] == size
    assert torch.allclose(again, encoding.remainder["image"], atol=1e-6)


def test_the_networks_see_the_same_whatever_the_size(redirector: STEDFlow) -> None:
    small, large = encoded(redirector, 64), encoded(redirector, 256)
    for name, value in small.embeddings.items():
        assert torch.allclose(large.embeddings[name], value, atol=1e-5)


def test_an_eye_put_back_where_it_was_cut_out_is_as_it_was() -> None:
    smooth = pixel_positions(128, torch.zeros(1)).cos().repeat(2, 1, 1, 1)
    places = eye_places(torch.tensor([[0.0, 0.0], [0.2, -0.5]]))
    patches = F.grid_sample(smooth.repeat(2, 1, 1, 1), places.grid(), align_corners=False)
    maps, window = places.put_back(patches, 128)
    assert torch.allclose(maps, window * smooth, atol=2e-2)
    assert window.amax(dim=(1, 2, 3)).tolist() == [1, 1]
    assert window[..., 96:, :].abs().max() == 0  # no eyes in the lower quarter


def test_eyes_are_cut_out_where_a_head_has_them_and_one_of_them_mirrored() -> None:
    places = eye_places(torch.zeros(1, 2))
    assert places.middle.flatten().tolist() == pytest.approx([-0.42, -0.39, 0.42, -0.39])
    left, right = places.grid()[..., 0]
    assert left[0, 0] < left[0, -1] and right[0, 0] > right[0, -1]
    up = eye_places(torch.tensor([[0.5, 0.0]])).middle
    assert up[0, 1] < 0.9 * -0.39 * torch.tensor(0.5).cos()


def test_a_mirrored_face_gets_the_mirrored_eyes(redirector: STEDFlow) -> None:
    """One network for both eyes: what it does is the same in a mirror."""
    torch.nn.init.normal_(redirector.eyes.net.out.weight, std=0.1)
    encoding = redirector.rotate(encoded(redirector), {"gaze": torch.tensor([[0.2, 0.3]]).repeat(4, 1)})
    signs = torch.tensor([1.0, -1.0])
    mirrored = replace(
        encoding,
        conditions={
            name: value * signs if value.shape[1] == 2 else value for name, value in encoding.conditions.items()
        },
        remainder={n: v * signs if n in ("own_gaze", "own_head") else v for n, v in encoding.remainder.items()},
    )
    image = encoding.remainder["image"]
    flat = torch.zeros(4, 2, SIZE, SIZE), torch.zeros(4, 2, SIZE, SIZE)
    shares, paint = torch.tensor([1.0, 0.0, 0.0])[None, :, None, None].repeat(4, 1, SIZE, SIZE), torch.zeros_like(image)
    maps = (*flat, shares, paint)
    one, other = redirector.eyes(encoding, image, maps), redirector.eyes(mirrored, image.flip(-1), maps)
    assert torch.allclose(one[0] * torch.tensor([-1.0, 1.0])[:, None, None], other[0].flip(-1), atol=1e-5)
    assert torch.allclose(one[2], other[2].flip(-1), atol=1e-5)
    assert one[0].abs().max() > 1e-3


def test_the_gaze_is_the_heads_until_it_has_learned_what_eyes_add(redirector: STEDFlow) -> None:
    encoding = encoded(redirector)
    assert torch.equal(encoding.conditions["gaze"], encoding.conditions["head"])
    assert torch.equal(encoding.remainder["own_gaze"], encoding.conditions["gaze"])


def test_a_mirrored_face_has_the_mirrored_gaze(redirector: STEDFlow) -> None:
    torch.nn.init.normal_(redirector.gaze.out.weight, std=0.1)
    image, signs = F.interpolate(random_batch()["image_a"], size=128), torch.tensor([1.0, -1.0])
    head = torch.tensor([[0.2, -0.5]]).repeat(4, 1)
    with torch.no_grad():
        one, other = redirector.gaze(image, head), redirector.gaze(image.flip(-1), head * signs)
    assert torch.allclose(one, other * signs, atol=1e-5)
    assert (one - head).abs().min() > 1e-4


def test_the_gaze_is_seen_more_sharply_than_the_face(redirector: STEDFlow) -> None:
    """What averages away at the size of the networks changes the gaze, and nothing else."""
    torch.nn.init.normal_(redirector.gaze.out.weight, std=0.1)
    image = F.interpolate(random_batch()["image_a"], size=2 * SIZE)
    checks = torch.tensor([[0.3, -0.3], [-0.3, 0.3]]).repeat(SIZE, SIZE)
    with torch.no_grad():
        one, other = redirector.encode(image), redirector.encode(image + checks)
    assert (one.conditions["gaze"] - other.conditions["gaze"]).abs().max() > 1e-4
    assert torch.allclose(one.conditions["head"], other.conditions["head"], atol=1e-5)


def test_the_networks_may_see_less_than_they_give_back() -> None:
    small = STEDFlow(st_ed_factors(8, 1, 4, 3, 4), 64, growth=2, blocks=3, fc_width=16, width=4).eval()
    images = F.interpolate(random_batch()["image_a"], size=128)
    with torch.no_grad():
        encoding = small.encode(images)
        decoded = small.decode_parts(small.rotate(encoding, {"gaze": torch.full((4, 2), 0.3)}))
    assert decoded.image.shape == images.shape and decoded.parts["flow"].shape[-1] == 128


def test_sizes_that_are_no_multiple_are_refused(redirector: STEDFlow) -> None:
    with pytest.raises(ValueError, match=r"\(1, 3, 96, 96\).*multiple of 64 px"):
        redirector.encode(torch.zeros(1, 3, 96, 96))


def test_the_image_is_made_of_its_parts(redirector: STEDFlow) -> None:
    encoding = encoded(redirector)
    with torch.no_grad():
        decoded = redirector.decode_parts(redirector.rotate(encoding, {"head": torch.full((4, 2), 0.3)}))
    parts = decoded.parts
    assert torch.allclose(parts["shares"].sum(dim=1), torch.ones(4, SIZE, SIZE), atol=1e-6)
    own, mirror, paint = parts["shares"].split(1, dim=1)
    made = own * parts["warp"] + mirror * parts["mirror"] + paint * parts["paint"]
    assert torch.allclose(made, decoded.image, atol=1e-6)
    assert torch.allclose(warp(encoding.remainder["image"], parts["flow"]), parts["warp"])


def test_untrained_a_turned_gaze_moves_no_head(redirector: STEDFlow) -> None:
    encoding = encoded(redirector)
    with torch.no_grad():
        flow = redirector.decode_parts(redirector.rotate(encoding, {"gaze": torch.full((4, 2), 0.4)})).parts["flow"]
        turned = redirector.decode_parts(redirector.rotate(encoding, {"head": torch.full((4, 2), 0.4)})).parts["flow"]
    assert flow.abs().max() == 0
    assert turned.abs().max() > 0.02


def test_a_gradient_reaches_every_parameter(redirector: STEDFlow) -> None:
    batch = random_batch()
    targets = {"gaze": torch.full((4, 2), 0.3), "head": torch.full((4, 2), -0.3)}
    for part in (redirector.decoder.fine.out, redirector.decoder.coarse, redirector.eyes.net.out, redirector.gaze.out):
        torch.nn.init.normal_(part.weight, std=0.1)  # they start at zero and let nothing through yet
    encoding = redirector.encode(batch["image_a"])
    decoded = redirector.decode_parts(redirector.rotate(encoding, targets))
    (decoded.image.square().mean() + sum(value.square().mean() for value in encoding.conditions.values())).backward()
    without = [name for name, p in redirector.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.mark.parametrize(("size", "blocks"), [(64, 3), (128, 4), (256, 5)])
def test_one_image_of_any_size_is_redirected_and_learned_from_under_autocast(size: int, blocks: int) -> None:
    torch.manual_seed(0)
    model = STEDFlow(st_ed_factors(64, 3, 8, 4, 8), size, growth=2, blocks=blocks, fc_width=16, width=4)
    image = F.interpolate(random_batch()["image_a"][:1], size=size)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        encoding = model.encode(image)
        targets = {"gaze": torch.full((1, 2), 0.3), "extra_1d_0": torch.full((1, 1), 0.2)}
        decoded = model.decode_parts(model.rotate(encoding, targets))
    assert decoded.image.dtype == torch.float32
    decoded.image.square().mean().backward()
    gradient = model.decoder.fine.out.weight.grad
    assert gradient is not None and gradient.isfinite().all() and gradient.any()


def test_a_rigid_flow_is_as_exact_under_autocast() -> None:
    depth, heads = torch.full((1, 1, 128, 128), 0.3), (torch.tensor([[0.1, 0.4]]), torch.tensor([[-0.2, 0.1]]))
    exact = rigid_flow(depth, *heads)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(rigid_flow(depth, *heads), exact)
