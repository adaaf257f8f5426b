"""What says how much detail a redirected picture has kept."""

from pathlib import Path

import pytest
import torch

from benchmarks.detail import columns_of, figures, laplacian_correlation, main, side_by_side, structural_similarity
from core.command import UserError


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


def test_runs_of_the_same_pairs_stand_side_by_side_at_the_largest_size() -> None:
    large = noise(0).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    runs = [{"source": x, "target": x, "redirected": y} for x, y in ((noise(0), noise(1)), (large, large))]
    shown = side_by_side(runs)
    assert list(shown) == ["source", "target", "redirected 1", "redirected 2"]
    assert {images.shape[-1] for images in shown.values()} == {64}
    assert torch.equal(shown["redirected 2"], large)


def test_runs_of_other_pairs_do_not_stand_side_by_side() -> None:
    runs = [{"source": noise(i), "target": noise(i), "redirected": noise(i)} for i in range(2)]
    with pytest.raises(UserError, match="run 2 is of other pairs"):
        side_by_side(runs)


def test_a_folder_that_is_no_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert f"{tmp_path}: no config.json or no checkpoint" in capsys.readouterr().err
