"""Checkpoints: published and ours, whole or not at all, and never code."""

import os
import pickle
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

from checkpoints_manager import checkpoint_path, load_checkpoint, save_checkpoint, saved_steps
from core.command import UserError
from core.files import atomic_write
from tests.tiny import random_batch, tiny_trainer
from utils import read_torch_file


def save(folder: Path, step: int, keep: int = 0) -> Path:
    trainer = tiny_trainer()
    trainer.train_step(random_batch(), 0)
    return save_checkpoint(folder, step, trainer.modules, trainer.optimizers, {"code_revision": "x"}, keep)


def test_it_holds_the_published_entries_and_ours(tmp_path: Path) -> None:
    content = torch.load(save(tmp_path, 3), weights_only=True)
    assert content.keys() >= {"encoder", "decoder", "discriminator", "optimizers", "step", "format_version"}


PREFIXES = ["", "module.", "module.module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod._orig_mod."]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_published_file_loads_with_or_without_prefix(tmp_path: Path, prefix: str) -> None:
    source, path = tiny_trainer(seed=3), checkpoint_path(tmp_path, 206865)
    path.parent.mkdir()
    states = {n: {prefix + k: v for k, v in m.state_dict().items()} for n, m in source.modules.items()}
    beside = {"best": np.float64(0.1), "where": Path("runs"), "args": Namespace(lr=np.float32(1e-3))}
    torch.save(states | beside, path)
    target = tiny_trainer(seed=4)
    others = load_checkpoint(path, target.modules, target.optimizers)
    assert others["best"] == 0.1 and "optimizers" not in others
    for name, module in source.modules.items():
        for key, value in module.state_dict().items():
            assert torch.equal(value, target.modules[name].state_dict()[key])


def test_another_architecture_is_refused_with_file_entry_and_keys(tmp_path: Path) -> None:
    path = save(tmp_path, 3)
    wider = {"encoder": torch.nn.Linear(2, 2), **{n: m for n, m in tiny_trainer().modules.items() if n != "encoder"}}
    with pytest.raises(UserError, match=r"3\.pt, entry 'encoder': does not fit this model: 2 missing .*unexpected"):
        load_checkpoint(path, wider)


def test_a_file_that_would_run_code_is_refused_and_does_not_run_it(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "exploded"),)

    path = checkpoint_path(tmp_path, 1)
    path.parent.mkdir()
    torch.save({"encoder": Bomb()}, path)
    with pytest.raises(UserError, match="could run code"):
        load_checkpoint(path, tiny_trainer().modules)
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError, match=r"1\.pt"):
        load_checkpoint(path, tiny_trainer().modules)
    assert not (tmp_path / "exploded").exists()


def test_a_cut_file_and_a_foreign_file_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path, 3)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="damaged"):
        load_checkpoint(path, tiny_trainer().modules)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(UserError, match="expected the entries encoder, decoder, discriminator, found state_dict"):
        load_checkpoint(path, tiny_trainer().modules)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 100):
        save(tmp_path, step, keep=2)
    assert saved_steps(tmp_path) == [10, 100]


def test_what_was_just_saved_is_never_removed(tmp_path: Path) -> None:
    for step in (1000, 2000, 500):
        save(tmp_path, step, keep=2)
    assert saved_steps(tmp_path) == [500, 2000]


def test_a_web_page_saved_as_weights_is_called_one(tmp_path: Path) -> None:
    path = tmp_path / "weights.tar"
    path.write_text("<html>Quota exceeded</html>")
    with pytest.raises(UserError, match=r"weights\.tar: is a web page, not weights.* Open the link"):
        read_torch_file(path)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
