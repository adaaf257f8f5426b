"""Angles, vectors and rotations, against numbers worked by hand."""

import math

import pytest
import torch

from models.geometry import angular_error_deg, pitchyaw_to_vector, rotation_matrix, vector_to_pitchyaw


def test_label_vector_points_up_for_positive_pitch_and_along_x_for_positive_yaw() -> None:
    vectors = pitchyaw_to_vector(torch.tensor([[0.0, 0.0], [math.pi / 2, 0.0], [0.0, math.pi / 2]]))
    assert torch.allclose(vectors, torch.tensor([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]]), atol=1e-6)


def test_vector_and_angles_round_trip() -> None:
    angles = torch.rand(100, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2.8 - 1.4
    assert torch.allclose(vector_to_pitchyaw(pitchyaw_to_vector(angles)), angles, atol=1e-12)


def test_angular_error_of_a_right_angle_and_of_equal_angles() -> None:
    u = torch.tensor([[0.0, 0.0], [0.3, -0.2]])
    v = torch.tensor([[0.0, math.pi / 2], [0.3, -0.2]])
    assert angular_error_deg(u, v).tolist() == pytest.approx([90.0, 0.0], abs=1e-5)


def test_angular_error_has_a_finite_gradient_at_zero_error_and_unit_gradient_beside_it() -> None:
    u = torch.tensor([[0.1, 0.2], [0.1, 0.0]], dtype=torch.float64, requires_grad=True)
    angular_error_deg(u, torch.tensor([[0.1, 0.2], [0.1 - 1e-6, 0.0]], dtype=torch.float64)).sum().backward()
    assert torch.isfinite(u.grad).all()
    assert u.grad[1, 0].item() == pytest.approx(180 / math.pi, rel=1e-4)


def test_half_precision_is_promoted_and_double_is_kept() -> None:
    assert angular_error_deg(torch.zeros(1, 2).bfloat16(), torch.zeros(1, 2)).dtype == torch.float32
    assert angular_error_deg(torch.zeros(1, 2).double(), torch.zeros(1, 2).double()).dtype == torch.float64


def test_rotation_of_embeddings_has_the_opposite_pitch_sign_to_label_vectors() -> None:
    """The published weights were trained with R_y(yaw) R_x(pitch): its pitch goes the other way than a label's.

    'Correcting' it would turn every published checkpoint's pitch around.
    """
    pitch, yaw = 0.3, -0.5
    column = rotation_matrix(torch.tensor([[pitch, yaw]]))[0, :, 2]
    label = pitchyaw_to_vector(torch.tensor([pitch, yaw]))
    assert column.tolist() == pytest.approx(
        [math.cos(pitch) * math.sin(yaw), -math.sin(pitch), math.cos(pitch) * math.cos(yaw)], abs=1e-6
    )
    assert (column * torch.tensor([1.0, -1.0, 1.0])).tolist() == pytest.approx(label.tolist(), abs=1e-6)


def test_one_angle_rotates_in_the_plane() -> None:
    turned = rotation_matrix(torch.tensor([[math.pi / 2]]))[0] @ torch.tensor([1.0, 0.0])
    assert turned.tolist() == pytest.approx([0.0, 1.0], abs=1e-6)


@pytest.mark.parametrize("dof", [1, 2])
def test_rotations_are_orthogonal(dof: int) -> None:
    r = rotation_matrix(torch.randn(5, dof, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    assert torch.allclose(r @ r.transpose(1, 2), torch.eye(dof + 1, dtype=torch.float64).expand_as(r), atol=1e-12)
    assert torch.allclose(torch.linalg.det(r), torch.ones(5, dtype=torch.float64))
