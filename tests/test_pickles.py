"""Files of weights that anybody may have made: none runs code, ends the process or costs more than a second or two."""

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from core.command import UserError
from core.pickles import DEEPEST, MOST
from tests.tiny import tiny_trainer
from utils import read_torch_file

START, END = b"\x80\x02", b"."
CALL = {
    "mkdir by reduce": b"cos\nmkdir\n(X\x08\x00\x00\x00explodedtR",
    "mkdir by a stack's global": b"\x8c\x02os\x8c\x05mkdir\x93(X\x08\x00\x00\x00explodedtR",
    "mkdir by obj": b"(cos\nmkdir\nX\x08\x00\x00\x00explodedo",
    "mkdir by inst": b"(X\x08\x00\x00\x00explodedios\nmkdir\n",
    "system": b"cposix\nsystem\n(X\x0e\x00\x00\x00touch explodedtR",
    "eval": b"cbuiltins\neval\n(X\x1e\x00\x00\x00__import__('os').mkdir('explo')tR",
    "getattr": b"cbuiltins\ngetattr\n(cos\npath\nX\x02\x00\x00\x00ostR",
    "a new object": b"csubprocess\nPopen\n(X\x05\x00\x00\x00touchtX\x08\x00\x00\x00exploded\x86\x81",
    "a state of an object": b"ctorch.nn\nModule\n)R}X\x01\x00\x00\x00aK\x01sb",
    "an extension": b"\x82\x01",
}
MUCH = {
    "nested tuples": b")" + b"\x85" * 140_000,
    "more nested tuples than are walked": b")" + b"\x85" * 2_000_000,
    "nested lists": b"]" * 10_000 + b"a" * 9_999,
    "nested dictionaries": b"}" + b"K\x01}" * 5_000 + b"s" * 5_000,
    "lists put into one another from outside": b"".join(b"]q%c" % i for i in range(250))
    + b"".join(b"h%ch%ca0" % (i, i + 1) for i in range(249)),
    "a list in itself": b"]q\x00h\x00a",
    "many numbers": b"](" + b"K\x01" * (MOST + 1) + b"e",
    "a buffer of a gigabyte": b"cbuiltins\nbytearray\nJ\x00\x00\x00\x40\x85R",
    "a large tuple copied often": b"(" + b"K\x01" * 100_000 + b"tq\0ctorch\nSize\nq\1]" + b"h\1h\0\x85Ra" * 2000,
    "a list that grows after it was taken": b"]q\0\x85q\1ctorch\nSize\nq\2h\0("
    + b"K\x01" * 100_000
    + b"e]"
    + b"h\2h\1Ra" * 2000,
    "a long text copied often": b"X\x40\x42\x0f\0"
    + b"a" * 1_000_000
    + b"X\6\0\0\0latin1\x86q\0c_codecs\nencode\nq\1]"
    + b"h\1h\0Ra" * 1000,
}
DAMAGED = {
    "nothing on the stack": b"a",
    "no such memo": b"h\x07",
    "no mark": b"t",
    "an unknown opcode": b"\xff",
    "a text without end": b"X\xff\xff\xff\x7fabc",
    "a number without end": b"\x8b\xff\xff\xff\x7f\x01",
}


def written(path: Path, body: bytes, kind: str) -> Path:
    """A pickle in each of PyTorch's formats, or alone."""
    content = START + body + END
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x/data.pkl", content)
            archive.writestr("x/version", "3\n")
            archive.writestr("x/byteorder", "little")
    elif kind == "legacy":
        whole = io.BytesIO()
        torch.save({}, whole, _use_new_zipfile_serialization=False)
        head = whole.getvalue()
        before = head[: head.index(pickle.dumps({}, 2))]
        path.write_bytes(before + content + pickle.dumps([], 2))
    else:
        path.write_bytes(content)
    return path


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["zip", "legacy", "alone"])
@pytest.mark.parametrize("name", [*CALL, *MUCH, *DAMAGED])
def test_a_hostile_pickle_is_refused_without_side_effect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path / "x.pt", (CALL | MUCH | DAMAGED)[name], kind)
    with pytest.raises(UserError, match=r"x\.pt: ") as raised:
        read_torch_file(path)
    assert os.listdir(tmp_path) == ["x.pt"]
    assert (name in MUCH and kind != "alone") <= ("was not loaded, for it" in str(raised.value))


@pytest.mark.parametrize("zipped", [True, False])
def test_what_trainings_save_is_far_from_the_limits(tmp_path: Path, zipped: bool) -> None:
    trainer, deep = tiny_trainer(), list[object]()
    for _ in range(DEEPEST - 20):
        deep = [deep]
    content = {name: module.state_dict() for name, module in trainer.modules.items()} | {
        "optimizers": {name: optimizer.state_dict() for name, optimizer in trainer.optimizers.items()},
        "history": OrderedDict(loss=[0.5] * 100_000, deep=deep),
    }
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    assert read_torch_file(tmp_path / "x.pt").keys() == content.keys()


def test_the_largest_files_of_weights_are_within_the_limits(tmp_path: Path) -> None:
    # StyleGAN2 of 1024 px with its discriminator, average and Adam's state has about 1,300 tensors, e4e and ResNet-50
    # fewer: here three networks of 300 layers, each with Adam's state.
    modules = [torch.nn.ModuleList(torch.nn.PReLU() for _ in range(300)) for _ in range(3)]
    optimizers = [torch.optim.Adam(module.parameters()) for module in modules]
    for module, optimizer in zip(modules, optimizers, strict=True):
        sum(parameter.sum() for parameter in module.parameters()).backward()  # type: ignore[union-attr]
        optimizer.step()
    content = {str(i): [modules[i].state_dict(), optimizers[i].state_dict()] for i in range(3)}
    torch.save(content, tmp_path / "x.pt")
    assert isinstance(read_torch_file(tmp_path / "x.pt"), dict)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, zipped: bool) -> None:
    torch.save({"a": torch.zeros(3), "b": [1, "c"]}, tmp_path / "whole.pt", _use_new_zipfile_serialization=zipped)
    whole = (tmp_path / "whole.pt").read_bytes()
    for length in range(0, len(whole), 7):
        (tmp_path / "x.pt").write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"x\.pt: is not a PyTorch file or is damaged"):
            read_torch_file(tmp_path / "x.pt")
