"""Training images of an estimator, framed as another detector might have framed them."""

import torch

from core.estimator.spec import EstimatorSettings
from core.estimator.trainer import EstimatorTrainer
from core.estimator.variety import vary_framing
from tests.formula import uniform


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_each_image_is_zoomed_and_shifted_by_a_few_pixels():
    dots = torch.zeros(20, 3, 64, 64)
    dots[:, :, 30:34, 30:34] = 1
    moved = vary_framing(dots, _generator())[:, 0]
    line = torch.arange(64.0)
    x = (moved.sum(dim=1) * line).sum(dim=1) / moved.sum(dim=(1, 2))
    assert 0.5 < (x - 31.5).std() < 2.5  # of 64 pixels, 0.02 are 1.3
    assert moved.sum(dim=(1, 2)).std() > 0.5  # 16 pixels, of another size each


def test_an_estimator_sees_varied_images_where_it_is_asked_to():
    def first_loss(vary: bool) -> float:
        trainer = EstimatorTrainer(EstimatorSettings("compact", 2, 4, 1e-3, vary_framing=vary), torch.device("cpu"))
        images = (127 * (uniform((4, 3, 64, 64)) + 1)).to(torch.uint8)
        return trainer.train_step({"image": images, "gaze": torch.zeros(4, 2), "head": torch.zeros(4, 2)})["loss"]

    assert first_loss(True) == first_loss(True) != first_loss(False)
