"""Bytes to floats and back, grids."""

import numpy as np
import torch

from utils import image_grid, image_to_float, image_to_uint8


def test_every_byte_becomes_the_published_float() -> None:
    published = (np.arange(256) * 2.0 / 255.0 - 1.0).astype(np.float32)
    ours = image_to_float(torch.arange(256, dtype=torch.uint8)).numpy()
    assert np.array_equal(ours, published)


def test_bytes_survive_the_round_trip_and_outliers_are_clamped() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(image_to_uint8(image_to_float(every)), every)
    assert image_to_uint8(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


def test_a_grid_keeps_rows_columns_and_channels() -> None:
    images = torch.full((2, 3, 3, 4, 4), -1.0)
    images[1, 2, 0] = 1.0  # second row, third column, red
    picture = image_grid(images)
    assert picture.shape == (8, 12, 3)
    assert picture[4:, 8:].reshape(-1, 3).tolist() == [[255, 0, 0]] * 16
    assert picture.sum() == 16 * 255
