"""What says how much detail a redirected picture has kept."""

from pathlib import Path

import pytest
import torch

from benchmarks.detail import columns_of, figures, laplacian_correlation, main, structural_similarity


def noise(seed: int) -> torch.Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_a_picture_has_all_detail_of_itself_and_none_of_another() -> None:
    assert laplacian_correlation(noise(0), noise(0)).tolist() == pytest.approx([1, 1], abs=1e-5)
    assert laplacian_correlation(noise(0), noise(1)).abs().max() < 0.15
    assert structural_similarity(noise(0), noise(0)).tolist() == pytest.approx([1, 1], abs=1e-5)
    assert structural_similarity(noise(0), noise(1)).max() < 0.2


def test_half_the_contrast_has_a_quarter_of_the_energy_in_the_right_place() -> None:
    found = figures(noise(0) / 2, noise(0), "here")
    assert found["energy of Laplacians, here"] == pytest.approx(0.25, abs=1e-5)
    assert found["correlation of Laplacians, here"] == pytest.approx(1, abs=1e-5)
    assert found["L1, here"] == pytest.approx(noise(0).abs().mean().item() / 2, abs=1e-5)


def test_seeds_of_a_kind_are_told_by_mean_and_standard_error() -> None:
    told = columns_of([[{"L1": 0.1}, {"L1": 0.3}], [{"L1": 0.5}]], ["flow", "st-ed"])
    assert told.splitlines()[-1] == "| L1 | 0.200 ± 0.100 | 0.500 |"


def test_a_folder_that_is_no_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert f"{tmp_path}: no config.json or no checkpoint" in capsys.readouterr().err
