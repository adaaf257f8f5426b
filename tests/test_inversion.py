"""W+ codes of a data set: computed once, person by person, never mixed, and dealt out with its entries."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.batches import PairSampler, evaluation_pairs
from core.command import UserError
from core.files import remove_left
from core.inversion import InvertedDataset, inversion_facts, inversion_folder, invert_dataset
from dataset_aligned import AlignedDataset, average_points
from models.e4e import E4EEncoder
from models.recrop import estimator_view
from models.stylegan2 import Generator
from tests.kills import kill_when
from tests.tiny import PoolEstimator, write_dataset
from utils import image_to_float

ROOT = Path(__file__).resolve().parent.parent
SIDE, PATCH = 32, 16
PERSONS = [f"{i:05d}" for i in range(4)]


class Pair(nn.Module):
    """A random e4e and generator; stops working after some batches, and counts those it does."""

    def __init__(self, batches: int = 1000) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = E4EEncoder(8, SIDE, style_dim=16, width=4, depths=(1, 1, 1, 1))
        self.decoder = Generator(SIDE, style_dim=16, num_mapping=2, max_channels=8, channel_multiplier=0.02)
        self.left, self.done = batches, 0
        self.eval()

    def invert(self, image: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        return self.encoder(image)

    def generate(self, w_plus: Tensor) -> Tensor:
        if self.done == self.left:
            raise RuntimeError("out of memory")
        self.done += 1
        return self.decoder.synthesis(w_plus)


def write_aligned(path: Path, samples: int = 6, seed: int = 0) -> Path:
    """Pictures of noise, all different, each with its own homography."""
    random = np.random.default_rng(seed)
    with h5py.File(write_dataset(path, len(PERSONS), samples, SIDE), "a") as file:
        file.attrs.update({"view": "ffhq-aligned", "patch_size": PATCH})
        for group in file.values():
            group["pixels"][...] = random.integers(0, 256, group["pixels"].shape)
            shift = random.uniform(-6, 0, (samples, 2))
            homography = np.tile(np.diag([0.7, 0.7, 1.0]), (samples, 1, 1))
            homography[:, :2, 2] = shift
            group["homography"], group["points"] = homography, random.uniform(0, SIDE, (samples, 5, 2))
    return path


def cache(
    data: AlignedDataset,
    parent: Path,
    pair: Pair | None = None,
    *,
    estimator: nn.Module | None = None,
    batch_size: int = 4,
    workers: int = 0,
    weights: str = "a",
) -> Path:
    """The folder of the codes, computed with an estimator by default."""
    recipe = inversion_facts(data, patch_size=PATCH, weights_sha256=weights, noise="stored")
    folder, pair = inversion_folder(parent, data, recipe), pair or Pair()
    invert_dataset(
        data, folder, recipe, invert=pair.invert, generate=pair.generate, estimator=estimator or PoolEstimator(),
        patch_size=PATCH, batch_size=batch_size, device=torch.device("cpu"), workers=workers,
    )  # fmt: skip
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in the processes that are killed here: other numbers of threads round differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def data(tmp_path: Path) -> AlignedDataset:
    return AlignedDataset(write_aligned(tmp_path / "gc.h5"), name="gc")


@pytest.fixture
def folder(data: AlignedDataset, tmp_path: Path) -> Path:
    return cache(data, tmp_path)


@torch.no_grad()
def direct(entry: dict[str, Tensor]) -> dict[str, Tensor]:
    """Code, gaze and head of one entry, without the cache."""
    pair, image = Pair(), image_to_float(entry["image"])[None]
    w_plus = pair.invert(image)
    seen = PoolEstimator()(estimator_view(pair.generate(w_plus), entry["crop"][None], PATCH))
    return {"w_plus": w_plus[0], "gaze": seen.gaze[0], "head": seen.head[0]}


# What is in it


def test_codes_and_labels_are_those_of_the_entry_itself(data: AlignedDataset, folder: Path) -> None:
    inverted, seen = InvertedDataset(data, folder), []
    assert len(inverted) == 24
    for index in (0, 5, 6, 23):
        entry, plain = inverted[index], data[index]
        assert all(torch.equal(entry[name], plain[name]) for name in ("image", "crop", "points"))
        expected = direct(plain)
        assert entry["w_plus"].dtype == torch.float32 and entry["w_plus"].shape == (8, 16)
        for name, value in expected.items():
            assert torch.allclose(entry[name], value, rtol=1e-4, atol=1e-5), name
            assert name == "w_plus" or not torch.allclose(plain[name], value, atol=1e-2)
        assert inverted.labels()[index].tolist() == torch.cat((entry["gaze"], entry["head"])).tolist()
        seen.append(expected["w_plus"])
    assert all((a - b).abs().max() > 1e-2 for a, b in zip(seen, seen[1:], strict=False))  # or any row would do


def test_batch_size_and_workers_change_nothing_beyond_rounding(data: AlignedDataset, tmp_path: Path) -> None:
    first, *others = (
        InvertedDataset(data, cache(data, tmp_path / name, **how))
        for name, how in {"a": {}, "b": {"batch_size": 1, "workers": 2}, "c": {"batch_size": 50}}.items()
    )
    for other in others:
        assert np.allclose(other.labels(), first.labels(), atol=1e-5)
        assert all(torch.allclose(other[i]["w_plus"], first[i]["w_plus"], rtol=1e-4, atol=1e-5) for i in range(24))


def test_without_relabelling_the_labels_are_the_file_s(data: AlignedDataset, folder: Path) -> None:
    kept, changed = InvertedDataset(data, folder, relabel=False), InvertedDataset(data, folder)
    assert np.array_equal(kept.labels(), data.labels()) and not np.allclose(changed.labels(), data.labels(), atol=0.1)
    assert all(torch.equal(kept[7][name], data[7][name]) for name in data[7])
    assert torch.equal(kept[7]["w_plus"], changed[7]["w_plus"])
    assert data[7].keys() == kept[7].keys() - {"w_plus"}


def test_without_an_estimator_nothing_is_generated_and_labels_cannot_be_replaced(
    data: AlignedDataset, tmp_path: Path
) -> None:
    pair, recipe = Pair(0), inversion_facts(data, patch_size=PATCH, weights_sha256="a")
    invert_dataset(
        data, tmp_path / "c", recipe, invert=pair.invert, generate=pair.generate, estimator=None, patch_size=PATCH,
        batch_size=4, device=torch.device("cpu"), workers=0,
    )  # fmt: skip
    assert InvertedDataset(data, tmp_path / "c", relabel=False)[3]["w_plus"].shape == (8, 16)
    with pytest.raises(UserError, match="4 of 4 persons.*\n  00000.h5: no gaze, no head, expected 6\n"):
        InvertedDataset(data, tmp_path / "c")


# As a data set


def test_pairs_samplers_and_loader_processes_take_it_for_a_data_set(data: AlignedDataset, folder: Path) -> None:
    inverted = InvertedDataset(data, folder)
    assert np.array_equal(evaluation_pairs(inverted, seed=1), evaluation_pairs(data, seed=1))
    assert inverted.groups() is data.groups() is None
    pair = inverted[8, 11]
    for index, suffix in ((8, "_a"), (11, "_b")):
        entry = inverted[index]
        assert all(torch.equal(pair[name + suffix], entry[name]) for name in entry)
    assert len(pair) == 2 * len(inverted[0])

    def batches(context: str | None) -> list[Tensor]:
        sampler = PairSampler(inverted, batch_size=6, seed=0, num_steps=3)
        how = {"num_workers": 1, "multiprocessing_context": context} if context else {}
        loader = torch.utils.data.DataLoader(inverted, batch_sampler=sampler, **how)
        return [torch.cat([batch[name].flatten() for name in sorted(batch)]) for batch in loader]

    expected = batches(None)
    for context in ("fork", "spawn"):
        assert all(torch.equal(u, v) for u, v in zip(batches(context), expected, strict=True))
    again = pickle.loads(pickle.dumps(inverted))
    assert torch.equal(again[9]["w_plus"], inverted[9]["w_plus"]) and np.array_equal(again.labels(), inverted.labels())


def test_points_of_patches_are_those_of_the_head_that_is_seen_on_the_inversion(tmp_path: Path) -> None:
    data = AlignedDataset(write_dataset(tmp_path / "patches.h5", 2, 3, SIDE))
    inverted = InvertedDataset(data, cache(data, tmp_path))
    assert not data.is_aligned
    for index in (0, 5):
        entry = inverted[index]
        expected = (average_points(entry["head"].numpy()) + 1) * (SIDE / 2) - 0.5
        assert np.allclose(entry["points"], expected, atol=1e-4)
        assert not np.allclose(entry["points"], data[index]["points"], atol=0.1)


def test_the_wrapped_data_set_stays_as_it_is(data: AlignedDataset, folder: Path) -> None:
    data.labels()
    inverted = InvertedDataset(data, folder)
    inverted.labels()
    with h5py.File(data.path) as file:
        assert np.array_equal(data.labels()[:6], file["00000/labels"][:])
    assert "w_plus" not in data[0]


# Adding, going on, not mixing


def test_another_part_of_the_split_adds_its_persons_and_repeats_none(
    data: AlignedDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = [AlignedDataset(data.path, persons=persons) for persons in (["00002", "00000"], ["00003", "00002"])]
    pairs = [Pair(), Pair(), Pair()]
    first = cache(parts[0], tmp_path / "split", pairs[0])
    before = content(first)
    assert sorted(before) == ["00000.h5", "00002.h5"] and pairs[0].done == 4  # two batches a person
    assert cache(parts[1], tmp_path / "split", pairs[1]) == first and pairs[1].done == 2
    assert "6 of 12 are still to be computed" in capsys.readouterr().out
    after = content(first)
    assert before.items() <= after.items() and sorted(after) == ["00000.h5", "00002.h5", "00003.h5"]
    cache(parts[0], tmp_path / "split", pairs[2])
    assert not pairs[2].done and "all 12 are in" in capsys.readouterr().out
    whole = content(cache(data, tmp_path / "whole"))
    assert after.items() <= whole.items()
    assert torch.equal(
        InvertedDataset(parts[1], first)[0]["w_plus"],
        InvertedDataset(data, tmp_path / "whole" / first.name)[18]["w_plus"],
    )


def test_a_failure_in_the_middle_of_a_person_costs_that_person(
    data: AlignedDataset, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        cache(data, tmp_path / "again", Pair(3))  # in the second person
    found = tmp_path / "again" / folder.name
    assert [path.name for path in found.iterdir()] == ["00000.h5"]
    (found / ".00001.h5.99999999.tmp").write_bytes(b"of a kill")
    (found / "00000.h5").write_bytes(b"of a power cut")
    cache(data, tmp_path / "again")
    assert content(found) == content(folder)


def test_kill_9_and_the_same_again_gives_the_same_files(data: AlignedDataset, folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from tests import test_inversion as t\n"
        "class Slow(t.Pair):\n"
        "    def generate(self, w_plus):\n"
        "        time.sleep(0.05)\n"
        "        return super().generate(w_plus)\n"
        "t.torch.set_num_threads(1)\n"
        "t.cache(t.AlignedDataset(sys.argv[1]), Path(sys.argv[2]), Slow())"
    )
    found = tmp_path / "again" / folder.name
    kill_when(["-c", code, str(data.path), str(tmp_path / "again")], ROOT, (found / "00001.h5").exists)
    assert not (found / "00003.h5").exists()
    pair = Pair()
    cache(data, tmp_path / "again", pair)
    assert 0 < pair.done <= 4 and content(found) == content(folder)


def test_a_request_to_stop_keeps_what_is_written(data: AlignedDataset, tmp_path: Path) -> None:
    class Stopped(Pair):
        def generate(self, w_plus: Tensor) -> Tensor:
            if self.done == 4:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().generate(w_plus)

    with pytest.raises(KeyboardInterrupt, match="Stopped before person 00002; the same command continues from there."):
        cache(data, tmp_path / "stopped", Stopped())
    assert sorted(path.name for path in tmp_path.glob("stopped/*/*")) == ["00000.h5", "00001.h5"]


def test_caches_of_other_weights_or_other_data_lie_side_by_side(
    data: AlignedDataset, folder: Path, tmp_path: Path
) -> None:
    before = content(folder)
    other_weights = cache(data, tmp_path, weights="b")
    with h5py.File(shutil.copy(data.path, tmp_path / "moved.h5"), "a") as file:
        file["00000/labels"][...] = 0.25
    moved = AlignedDataset(tmp_path / "moved.h5", persons=["00001"])
    assert inversion_facts(moved, patch_size=PATCH) == inversion_facts(data, patch_size=PATCH)
    folders = {folder, other_weights}
    for name, row in (("homography", 2), ("pixels", 3)):
        (tmp_path / name).mkdir()
        with h5py.File(shutil.copy(data.path, tmp_path / name), "a") as file:
            file[f"00003/{name}"][row] = file[f"00003/{name}"][row - 1]
        folders.add(cache(AlignedDataset(tmp_path / name / "gc.h5"), tmp_path))
    folders.add(cache(AlignedDataset(data.path, is_bgr=True), tmp_path))
    assert len(folders) == 5 and all(path.name.startswith("gc-") for path in folders)
    assert content(folder) == before


def test_codes_of_another_recipe_are_refused_where_somebody_moved_them(
    data: AlignedDataset, folder: Path, tmp_path: Path
) -> None:
    cache(data, tmp_path, weights="b")
    other = inversion_folder(
        tmp_path, data, inversion_facts(data, patch_size=PATCH, weights_sha256="b", noise="stored")
    )
    shutil.rmtree(other)
    folder.rename(other)
    with pytest.raises(UserError, match="00000.h5: these W. codes were made with other values of weights_sha256. Move"):
        cache(data, tmp_path, weights="b")


# What goes wrong


def test_a_disk_without_room_is_found_before_the_work(
    data: AlignedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, needed = Pair(), 24 * 8 * 16 * 4
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(needed - 1))
    with pytest.raises(
        OSError, match=r"the W\+ codes of 24 images take 1.23e-05 GB, but .* Make room, choose a folder"
    ):
        cache(data, tmp_path / "full", pair)
    assert not pair.done
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(needed))
    cache(data, tmp_path / "full", pair)


def test_a_disk_that_fills_up_leaves_no_half_written_person(data: AlignedDataset, folder: Path, tmp_path: Path) -> None:
    code = (
        "import resource, sys; from pathlib import Path; from tests import test_inversion as t\n"
        "t.torch.set_num_threads(1)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        "t.cache(t.AlignedDataset(sys.argv[1]), Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, str(data.path), str(tmp_path / "full")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "00000.h5: cannot be written (" in done.stderr and "Make room or choose another folder" in done.stderr
    assert not (tmp_path / "full" / folder.name).exists()
    assert content(cache(data, tmp_path / "full")) == content(folder)


def test_damaged_codes_name_the_file_and_the_remedy(data: AlignedDataset, folder: Path) -> None:
    inverted, path = InvertedDataset(data, folder), folder / "00001.h5"
    whole = path.read_bytes()
    with h5py.File(path) as file:
        at = file["w_plus"].id.get_chunk_info(2).byte_offset
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])  # one bit of one code
    assert torch.isfinite(inverted[7]["w_plus"]).all()
    with pytest.raises(UserError, match=r"00001.h5: w_plus cannot be read .* Remove it and run the same command again"):
        inverted[8]
    path.write_bytes(whole[:1000])
    with pytest.raises(UserError, match="00001.h5: cannot be read as HDF5"):
        inverted[7]
    (folder / "00003.h5").unlink()
    with pytest.raises(UserError, match=r"(?s)2 of 4 persons .*00001.h5: damaged.*00003.h5: no such file"):
        InvertedDataset(data, folder)


def test_a_network_that_returns_nan_is_refused(data: AlignedDataset, tmp_path: Path) -> None:
    pair = Pair()
    pair.invert = lambda image: torch.full((len(image), 8, 16), torch.nan)
    with pytest.raises(UserError, match="gc.h5: person '00000': w_plus.* of the inversion is not finite. Check the"):
        cache(data, tmp_path / "nan", pair)
    assert not list(tmp_path.glob("nan/*/*"))


def test_what_another_process_is_writing_is_not_removed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        (tmp_path / f".a.h5.{other.pid}.tmp").touch()
        remove_left(tmp_path)
        assert list(tmp_path.iterdir())
        other.communicate(b"\n")
    remove_left(tmp_path)
    assert not list(tmp_path.iterdir())
