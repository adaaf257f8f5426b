"""What every redirector promises, whatever its networks."""

from functools import partial
from unittest.mock import Mock

import pytest
import torch

from models.geometry import rotation_matrix
from models.redirector import Encoding, Redirector
from models.st_ed import STED, st_ed_factors
from tests.tiny import SIZE, random_batch, tiny_flow, tiny_redirector, tiny_redirtrans, tiny_redirtrans_gan


def with_colour() -> STED:
    torch.manual_seed(0)
    return STED(st_ed_factors(8, 1, 4, 3, 4), SIZE, growth=2, blocks=3, carry_colour=True)


KINDS = {
    "ST-ED": tiny_redirector,
    "ST-ED with colour": with_colour,
    "ST-ED with flow": tiny_flow,
    "ReDirTrans": tiny_redirtrans,
    "ReDirTrans with colour": partial(tiny_redirtrans, carry_colour=True),
    "ReDirTrans-GAN": tiny_redirtrans_gan,
}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def redirector(request: pytest.FixtureRequest) -> Redirector:
    return request.param().eval()


@pytest.fixture
def encoding(redirector: Redirector) -> Encoding:
    with torch.no_grad():
        return redirector.encode(random_batch()["image_a"])


def test_shapes_follow_the_factors(redirector: Redirector, encoding: Encoding) -> None:
    for factor in redirector.factors:
        assert encoding.embeddings[factor.name].shape == (4, factor.dof + 1, factor.size)
        assert (factor.name in encoding.conditions) == (factor.dof > 0)
    assert redirector.decode(encoding).shape == (4, 3, SIZE, SIZE)


def test_rotating_to_the_own_conditions_changes_nothing(redirector: Redirector, encoding: Encoding) -> None:
    same = redirector.rotate(encoding, encoding.conditions)
    for name, value in encoding.embeddings.items():
        assert torch.allclose(same.embeddings[name], value, atol=1e-6)


def test_rotations_are_exact_under_autocast(redirector: Redirector, encoding: Encoding) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        same = redirector.rotate(encoding, encoding.conditions)
    for name, value in encoding.embeddings.items():
        assert torch.allclose(same.embeddings[name], value, atol=1e-6)


def test_factors_that_are_not_named_stay_to_the_bit(redirector: Redirector, encoding: Encoding) -> None:
    turned = redirector.rotate(encoding, {"gaze": torch.full((4, 2), 0.3)})
    assert not torch.equal(turned.embeddings["gaze"], encoding.embeddings["gaze"])
    for name in encoding.embeddings.keys() - {"gaze"}:
        assert torch.equal(turned.embeddings[name], encoding.embeddings[name])


def test_there_and_back_again(redirector: Redirector, encoding: Encoding) -> None:
    there = redirector.rotate(encoding, {"gaze": torch.full((4, 2), 0.4), "head": torch.full((4, 2), -0.2)})
    back = redirector.rotate(there, {name: encoding.conditions[name] for name in ("gaze", "head")})
    for name in ("gaze", "head"):
        assert torch.allclose(back.embeddings[name], encoding.embeddings[name], atol=1e-6)


def test_factors_turned_together_are_as_each_alone(redirector: Redirector, encoding: Encoding) -> None:
    targets = {name: value + 0.3 for name, value in encoding.conditions.items()}
    together = redirector.rotate(encoding, targets)
    with_canonical = redirector.rotate(encoding, targets, redirector.canonical(encoding))
    for name, target in targets.items():
        alone = redirector.rotate(encoding, {name: target})
        assert torch.equal(together.with_factor(name, alone).embeddings[name], together.embeddings[name])
        assert torch.equal(with_canonical.embeddings[name], together.embeddings[name])
        expected = rotation_matrix(target) @ rotation_matrix(encoding.conditions[name]).mT @ encoding.embeddings[name]
        assert torch.allclose(together.embeddings[name], expected, atol=1e-6)


def test_the_halves_of_a_batch_are_its_rows(redirector: Redirector) -> None:
    both = redirector.encode(random_batch()["image_a"])
    for half, rows in zip(both.halves(), (both[:2], both[2:]), strict=True):
        for found, wanted in zip(vars(half).values(), vars(rows).values(), strict=True):
            assert found.keys() == wanted.keys()
            assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_factors_of_one_shape_are_turned_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, rotations and angles were half of the operations of ST-ED's step."""

    def rotations(num_1d: int, num_2d: int) -> int:
        model = STED(st_ed_factors(8, num_1d, 4, num_2d, 4), SIZE, growth=2, blocks=3, fc_width=8)
        encoding = model.encode(random_batch()["image_a"])
        with monkeypatch.context() as patched:
            patched.setattr("models.redirector.rotation_matrix", counted := Mock(wraps=rotation_matrix))
            model.rotate(encoding, {name: value + 0.3 for name, value in encoding.conditions.items()})
        return counted.call_count

    assert rotations(1, 2) == rotations(4, 5) == 4  # of one and of two angles, back and there


def test_canonical_embeddings_do_not_depend_on_where_they_were_rotated_to(
    redirector: Redirector, encoding: Encoding
) -> None:
    moved = redirector.rotate(encoding, {"head": torch.full((4, 2), 0.7)})
    for name, value in redirector.canonical(encoding).embeddings.items():
        assert torch.allclose(redirector.canonical(moved).embeddings[name], value, atol=1e-6)


def test_an_image_is_encoded_alike_alone_and_in_a_batch(redirector: Redirector) -> None:
    """The training step encodes a and b in one call; InstanceNorm makes that exact."""
    image = random_batch()["image_a"]
    alone = redirector.encode(image[:1])
    for name, value in redirector.encode(image)[:1].embeddings.items():
        assert torch.allclose(value, alone.embeddings[name], atol=1e-5)


def test_a_walk_is_a_row_of_redirections(redirector: Redirector) -> None:
    image, angles = random_batch()["image_a"], torch.tensor([[0.0, -0.3], [0.0, 0.3]])
    with torch.no_grad():
        frames = redirector.walk(image, "gaze", angles)
        assert torch.allclose(frames[1], redirector.redirect(image, {"gaze": angles[1].expand(4, 2)}), atol=1e-5)


def test_wrong_image_size_names_both_sizes() -> None:
    with pytest.raises(ValueError, match=r"32, 32.*64"):
        tiny_redirector().encode(torch.zeros(1, 3, 32, 32))


def test_gaze_is_the_last_factor_and_head_the_one_before() -> None:
    factors = st_ed_factors(1024, 4, 16, 4, 16)
    assert [factor.name for factor in factors[-2:]] == ["head", "gaze"]
    assert sum(factor.dof for factor in factors) == 12
    assert [factor.dof for factor in factors] == [0, 1, 1, 1, 1, 2, 2, 2, 2]


@pytest.mark.parametrize(("size", "blocks"), [(64, 3), (64, 4), (128, 4), (128, 5), (256, 6)])
def test_any_image_size_and_block_count_that_fit(size: int, blocks: int) -> None:
    model = STED(st_ed_factors(8, 0, 4, 2, 4), size, growth=2, blocks=blocks, fc_width=8)
    image = torch.zeros(1, 3, size, size)
    assert model.decode(model.encode(image)).shape == image.shape


def test_blocks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="6 dense blocks do not fit images of 64 px"):
        STED(st_ed_factors(8, 0, 4, 2, 4), 64, growth=2, blocks=6)


def test_embeddings_that_do_not_fill_the_innermost_map_pass_a_linear_layer() -> None:
    """As published: fc_dec, from m values to the next lower multiple of the map's area."""
    model = STED(st_ed_factors(5, 0, 4, 2, 4), 64, growth=2, blocks=4, fc_width=8)
    assert model.decoder.state_dict()["fc_dec.weight"].shape == (28, 29)
    assert "fc_dec.weight" not in STED(st_ed_factors(8, 0, 4, 2, 4), 64, 2, 4, 8).decoder.state_dict()


def test_output_gain_scales_the_first_images_and_nothing_else() -> None:
    models = []
    for gain in (1.0, 0.1):
        torch.manual_seed(0)
        models.append(STED(st_ed_factors(8, 0, 4, 2, 4), 64, growth=2, blocks=3, fc_width=8, output_gain=gain).eval())
    image = random_batch()["image_a"]
    whole, faint = (model.decode(model.encode(image)) for model in models)
    assert torch.allclose(whole * 0.1, faint, atol=1e-5)


def test_a_carried_colour_is_the_sources_and_adds_to_the_decoders_image() -> None:
    model, image = with_colour().eval(), random_batch()["image_a"]
    with torch.no_grad():
        encoding = model.encode(image)
        turned = model.rotate(encoding, {"gaze": torch.full((4, 2), 0.3)})
        added = model.decode(turned) - model.decoder(turned)
    assert torch.allclose(added, image.mean(dim=(2, 3), keepdim=True).expand_as(added), atol=1e-6)
