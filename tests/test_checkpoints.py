"""Checkpoints: published and ours, whole or not at all, and never code."""

import os
import pickle
import re
import subprocess
import sys
import zipfile
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

from checkpoints_manager import checkpoint_path, last_sound_step, load_checkpoint, save_checkpoint, saved_steps
from core.command import UserError
from core.disk import Disk
from core.files import atomic_write
from core.torch_files import write_torch_file
from tests.tiny import random_batch, tiny_trainer
from utils import read_torch_file

ROOT = Path(__file__).resolve().parent.parent


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


def test_equal_contents_are_equal_files_whoever_wrote_them(tmp_path: Path) -> None:
    path, trainer = save(tmp_path, 3), tiny_trainer(seed=5)
    stored = load_checkpoint(path, trainer.modules, trainer.optimizers)
    facts = {"".join(key): "".join(list(str(stored[key]))) for key in ("code_revision",)}
    again = save_checkpoint(tmp_path / "elsewhere", 3, trainer.modules, trainer.optimizers, facts)
    assert again.read_bytes() == path.read_bytes()
    code = (
        "import sys; from pathlib import Path; from core.torch_files import write_torch_file; import torch\n"
        "write_torch_file(Path(sys.argv[1]), torch.load(sys.argv[2], weights_only=True))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.pt"), str(path)], cwd=ROOT, check=True)
    assert (tmp_path / "x.pt").read_bytes() == path.read_bytes()


def flip_a_weight(path: Path) -> None:
    """Change one bit of the last tensor, as a disk or a transfer may."""
    with zipfile.ZipFile(path) as archive:
        entry = [entry for entry in archive.infolist() if "/data/" in entry.filename][-1]
        wanted = archive.read(entry)
    content = bytearray(path.read_bytes())
    content[content.index(wanted, entry.header_offset) + len(wanted) - 1] ^= 0x40
    path.write_bytes(content)


def test_one_wrong_bit_is_found_and_the_newest_sound_checkpoint_named(tmp_path: Path) -> None:
    for step in (3, 6, 9):
        save(tmp_path, step)
    for step in (6, 9):
        flip_a_weight(checkpoint_path(tmp_path, step))
    torch.load(checkpoint_path(tmp_path, 9), weights_only=True)  # PyTorch sees nothing
    with pytest.raises(UserError, match=r"9\.pt: .* is damaged.* one before it is .*3\.pt: --load-step 3 takes it"):
        load_checkpoint(checkpoint_path(tmp_path, 9), tiny_trainer().modules)
    flip_a_weight(checkpoint_path(tmp_path, 3))
    with pytest.raises(UserError, match=r"is damaged\. Download or save it again\.$"):
        load_checkpoint(checkpoint_path(tmp_path, 3), tiny_trainer().modules)


def test_an_archive_without_sums_is_taken_as_it_is(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.ones(3)}, tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert isinstance(read_torch_file(tmp_path / "a.pt"), dict)


@pytest.mark.parametrize("content", [b"", bytes(5000)])
def test_what_a_power_cut_leaves_is_damaged(content: bytes, tmp_path: Path) -> None:
    save(tmp_path, 3)
    checkpoint_path(tmp_path, 6).write_bytes(content)
    assert last_sound_step(tmp_path, 9) == 3


@pytest.mark.parametrize("nth", [2, 3, 5])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("handles", [False, True])
def test_what_a_signal_raises_in_the_midst_of_a_checkpoint_is_what_is_told(
    tmp_path: Path, nth: int, kind: type[BaseException], handles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second Ctrl-C, or the death of a process that reads data: PyTorch told of a wrong position in its archive.

    handles: it is saved while an error of before is handled.
    """
    count, usual, raised = iter(range(1, 10**6)), Disk.write, kind("a signal")

    def write(self: Disk, data: bytes) -> int:
        if next(count) == nth:
            raise raised
        return usual(self, data)

    def save() -> None:
        write_torch_file(tmp_path / "x.pt", {"a": torch.zeros(1000), "b": torch.zeros(7)})

    monkeypatch.setattr(Disk, "write", write)
    with pytest.raises(kind) as told:
        try:
            raise ValueError("of before")
        except ValueError:
            if handles:
                save()
        save()
    assert told.value is raised and os.listdir(tmp_path) == []


def test_a_full_disk_is_one_sentence_and_leaves_the_earlier_checkpoint(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from tests.test_checkpoints import random_batch, save, tiny_trainer\n"
        "tiny_trainer().train_step(random_batch(), 0)  # all is imported then\n"
        "for limit in map(int, sys.argv[2:]):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))\n"
        "    try: save(Path(sys.argv[1]), 3)\n"
        "    except OSError as error: print(error)\n"
        "    else: print('saved')\n"
        "    print(*(path.name for path in (Path(sys.argv[1]) / 'checkpoints').iterdir()))"
    )
    size = save(tmp_path, 2).stat().st_size
    limits = [str(limit) for limit in (0, 100, size // 2, size - 1)]
    command = [sys.executable, "-c", code, str(tmp_path), *limits]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0
    said, left = done.stdout.splitlines()[::2], done.stdout.splitlines()[1::2]
    assert len(said) == len(limits) and left == ["2.pt"] * len(limits)
    for message in said:
        assert re.fullmatch(
            rf"{tmp_path}/checkpoints/3\.pt: cannot be written \(File too large\)\. At least {size / 1e6:.1f} MB are "
            r"needed, the disk has [\d,.]+ MB left\. Make room or choose another folder; the same command goes on\.",
            message,
        )
    save(tmp_path, 3)


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
