"""Bytes to floats and back, grids, and files of tensors."""

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from core.command import UserError
from utils import image_grid, image_to_float, image_to_uint8, load_state, named_tensors, read_torch_file


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


# Files of tensors


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("value", "read"),
    [
        (np.float64(1.5), 1.5),
        (np.int32(-3), -3),
        (np.bool_(True), True),
        (np.str_("name"), "name"),
        (np.arange(6, dtype=">i2").reshape(2, 3), [[0, 1, 2], [3, 4, 5]]),
        (np.asfortranarray([[0.5, 1], [2, 3]]), [[0.5, 1], [2, 3]]),
        (np.array(["ab", "c"]), ["ab", "c"]),
        (argparse.Namespace(lr=np.float32(0.5)), argparse.Namespace(lr=0.5)),
    ],
)
def test_what_numpy_and_a_command_line_left_is_read(tmp_path: Path, value: object, read: object, zipped: bool) -> None:
    torch.save({"it": value}, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    found = read_torch_file(tmp_path / "x.pt")["it"]
    assert (found.tolist() if isinstance(found, np.ndarray) else found) == read


@pytest.mark.parametrize("module", ["pathlib", "pathlib._local"])  # the latter in Python 3.13
@pytest.mark.parametrize("name", ["PosixPath", "WindowsPath"])
def test_paths_of_another_system_are_read_on_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str
) -> None:
    class Foreign:
        def __reduce__(self) -> tuple:
            return Foreign, ("runs", "x.pt")

    Foreign.__module__, Foreign.__qualname__ = module, name
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, module, argparse.Namespace(**{name: Foreign}))
        torch.save({"it": Foreign()}, tmp_path / "x.pt")
    assert read_torch_file(tmp_path / "x.pt")["it"].parts == ("runs", "x.pt")


class Crafted:
    """Saved as a call of what it is made with."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


def test_an_array_whose_objects_would_be_bytes_of_the_file_is_never_made(tmp_path: Path) -> None:
    torch.save({"it": Crafted(np.ndarray, (1,), "O", b"8 bytes.")}, tmp_path / "x.pt")
    assert read_torch_file(tmp_path / "x.pt")["it"].size == 0
    for value in (np.array([None]), np.dtype("O"), np.zeros(1, [("a", "O")])):
        torch.save({"it": value}, tmp_path / "x.pt")
        with pytest.raises(UserError, match="could run code"):
            read_torch_file(tmp_path / "x.pt")


def test_names_are_those_that_the_modules_gave() -> None:
    one, two = torch.zeros(1), torch.ones(2)
    wrapped = {"module._orig_mod.body.module.0.weight": one, "_orig_mod.module.module.modules.bias": two, "step": 3}
    assert named_tensors(wrapped) == {"body.0.weight": one, "modules.bias": two}
    assert named_tensors([one]) == {}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(value: float) -> None:
    state = torch.nn.Linear(2, 2).state_dict() | {"bias": torch.tensor([0.0, value])}
    with pytest.raises(UserError, match=r"^x.pt: does not fit this model: 1 not finite \(bias\)"):
        load_state(torch.nn.Linear(2, 2), state, "x.pt", "Train it anew.")


def test_two_entries_of_one_name_are_refused() -> None:
    layer = torch.nn.Linear(2, 2)
    state = layer.state_dict() | {"module.bias": torch.zeros(2)}
    with pytest.raises(UserError, match=r"x.pt: does not fit this model: 1 unexpected \(module.bias\)\. Mend it\."):
        load_state(layer, state, "x.pt", "Mend it.")


class Masked(torch.nn.Module):
    """With a buffer of minus infinity, as a mask of attention is."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(2))
        self.register_buffer("mask", torch.tensor([[0.0, -torch.inf], [0.0, 0.0]]))


def test_infinity_is_loaded_where_the_module_itself_has_it_and_nowhere_else() -> None:
    state = Masked().state_dict() | {"weight": torch.ones(2)}
    module = Masked()
    load_state(module, state, "x.pt", "Mend it.")
    assert torch.equal(module.weight, torch.ones(2))
    for name, value in (
        ("weight", torch.tensor([1.0, -torch.inf])),
        ("mask", -Masked().mask),
        ("mask", torch.full((2, 2), torch.nan)),
    ):
        with pytest.raises(UserError, match=f"1 not finite .{name}"):
            load_state(Masked(), state | {name: value}, "x.pt", "Mend it.")
