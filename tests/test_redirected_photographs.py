"""What is told of redirected photographs: changes that were seen, against those asked for."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import redirected_photographs
from benchmarks.redirected_photographs import EDITS, changes, edited, summary
from tests.tiny import random_batch, tiny_flow


def test_an_edit_turns_one_factor_from_where_the_redirector_sees_it() -> None:
    redirector, images = tiny_flow().eval(), random_batch()["image_a"]
    with torch.no_grad():
        encoding = redirector.encode(images)
        wanted = encoding.conditions["head"] + torch.tensor([0.0, np.pi / 12])
        expected = redirector.decode(redirector.rotate(encoding, {"head": wanted})).clamp(-1, 1)
    assert torch.allclose(edited(redirector, images, "head", (0, 15)), expected, atol=1e-5)


def test_half_the_change_is_told_as_a_slope_of_a_half(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the detector: after the first look each edit has turned half as far, and one face is lost."""
    edits = [(factor, edit) for factor, edits in EDITS.items() for edit in edits]
    looks = iter([np.zeros((3, 4))] + [_half(factor, edit) for factor, edit in edits])
    monkeypatch.setattr(redirected_photographs, "labels_seen", lambda images: next(looks))
    told = summary(changes(tiny_flow().eval(), random_batch()["image_a"][:3]), 3).splitlines()
    assert told[-3] == "| gaze yaw | 1.00 | 0.50 | 7.5 | head 2.0 | 67% |"
    assert told[-1] == "| head yaw | 1.00 | 0.50 | 7.5 | gaze 2.0 | 67% |"


def _half(factor: str, edit: tuple[float, float]) -> np.ndarray:
    gaze = np.array([0.0, 2.0]) if factor == "head" else np.array(edit) / 2
    head = np.array([0.0, 2.0]) if factor == "gaze" else np.array(edit) / 2
    labels = np.tile(np.concatenate([gaze, head]), (3, 1))
    labels[2] = np.nan
    return labels


def test_a_folder_that_is_no_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert redirected_photographs.main([str(tmp_path)]) == 2
    assert "Name the folder of a finished run" in capsys.readouterr().err
