"""Files made up with the names, keys and shapes of the published ones: they load, and damaged ones are refused."""

import argparse
import json
import os
import pickle
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from core.command import UserError
from core.files import file_sha256
from models import perceptual
from models.arcface import ArcFace
from models.discriminator import LatentDiscriminator
from models.e4e import E4EEncoder
from models.load_pretrained_model import (
    build_estimator,
    load_arcface,
    load_e4e,
    load_estimator,
    load_imagenet_weights,
    load_stylegan2,
)
from models.network_sizes import encoder_sizes, generator_sizes
from models.stylegan2 import Generator
from pretrained_models.__main__ import main
from pretrained_models.published import ROOT, load_st_ed
from tests.formula import uniform

GOLDENS = Path(__file__).parent / "goldens"
SMALL_ENCODER = {"num_rows": 10, "input_size": 64, "style_dim": 16, "width": 4, "depths": (1, 2, 2, 1)}
SMALL_GENERATOR = {"size": 64, "style_dim": 16, "num_mapping": 3, "channel_multiplier": 0.03, "max_channels": 12}


def of_one_value(key: str, shape: list[int], dtype: str) -> Tensor:
    """A tensor of the shape whose entries are all one number that follows from the key; a file of it is tiny."""
    value = 1 + sum(key.encode()) % 97 + len(key)
    return torch.tensor(value, dtype=getattr(torch, dtype.removeprefix("torch."))).expand(shape)


def state_of(entries: list[list[Any]], prefix: str = "") -> dict[str, Tensor]:
    return {prefix + key: of_one_value(key, shape, dtype) for key, shape, dtype in entries}


def published_entries(name: str) -> list[list[Any]]:
    return json.loads((GOLDENS / f"keys_{name}.json").read_text())["entries"]


def e4e_content() -> dict[str, Any]:
    state = state_of(published_entries("e4e_psp"))
    opts = {"stylegan_size": 1024, "start_from_latent_avg": True, "device": "cuda:0", "checkpoint_path": None}
    return {"state_dict": state, "opts": opts, "latent_avg": torch.arange(512.0).repeat(18, 1)}


def st_ed_content() -> dict[str, Any]:
    keys = json.loads((GOLDENS / "st_ed_keys.json").read_text())
    return {name: state_of(keys[name], "module.") for name in ("encoder", "decoder", "discriminator")}


# Published name -> contents of the file.
CONTENTS: dict[str, Callable[[], dict[str, Any]]] = {
    "e4e_ffhq_encode.pt": e4e_content,
    "r50_backbone.pth": lambda: state_of(published_entries("iresnet50")),
    "baseline_estimator_vgg.tar": lambda: state_of(published_entries("gazeheadnet_vgg"), "module."),
    "baseline_estimator_resnet.tar": lambda: state_of(published_entries("gazehead_resnet50"), "module."),
    "206865.pt": st_ed_content,
}
KEYS = {
    "e4e_ffhq_encode.pt": "e4e_weights",
    "r50_backbone.pth": "arcface_weights",
    "baseline_estimator_vgg.tar": "gazenet_savepath",
    "baseline_estimator_resnet.tar": "eval_gazenet_savepath",
    "206865.pt": "206865.pt, entry 'decoder'",
}
# Published name -> where in the contents a tensor is found that damage can be done to.
A_TENSOR = {
    "e4e_ffhq_encode.pt": ("state_dict", "encoder.styles.17.linear.bias"),
    "r50_backbone.pth": ("layer3.9.bn3.running_var",),
    "baseline_estimator_vgg.tar": ("module.vgg16.14.weight",),
    "baseline_estimator_resnet.tar": ("module.resnet50.layer4.2.conv2.weight",),
    "206865.pt": ("decoder", "module.decoder.last.conv3.weight"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of weights; it is the working folder, and torch hub's cache is empty, too."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def small_pair() -> tuple[E4EEncoder, Generator]:
    torch.manual_seed(0)
    encoder, generator = E4EEncoder(**SMALL_ENCODER), Generator(**SMALL_GENERATOR)
    return encoder.eval(), generator.eval()


def pair_content(encoder: nn.Module, generator: nn.Module) -> dict[str, Any]:
    state = {f"encoder.{key}": value for key, value in encoder.state_dict().items()}
    state |= {f"decoder.{key}": value for key, value in generator.state_dict().items()}
    return {"state_dict": state, "opts": {}, "latent_avg": uniform((10, 16))}


def saved(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def numbers(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every entry as its only value; fails if it has several."""
    for key, tensor in module.state_dict().items():
        assert (tensor == tensor.flatten()[0]).all(), f"{key} is not filled evenly"
        yield key, tensor.flatten()[0]


def assert_filled(module: nn.Module, prefix: str = "") -> None:
    for key, value in numbers(module):
        assert value == of_one_value(prefix + key, [], "float32"), f"{key} holds the values of another"


def assert_frozen(*modules: nn.Module) -> None:
    for module in modules:
        nn.ModuleList([module]).train()
        assert not any(part.training for part in module.modules())
        assert not any(parameter.requires_grad for parameter in module.parameters())


def test_the_published_e4e_loads_at_full_size(folder: Path) -> None:
    encoder, generator, latent_avg = load_e4e(saved(e4e_content(), folder / "e4e.pt"))
    assert (encoder.num_rows, encoder.input_size, generator.size, generator.num_rows) == (18, 256, 1024, 18)
    assert_filled(encoder, "encoder.")
    assert_filled(generator, "decoder.")
    assert_frozen(encoder, generator)
    assert torch.equal(latent_avg, torch.arange(512.0).expand(18, 512))


def test_the_published_arcface_loads(folder: Path) -> None:
    arcface = load_arcface(saved(CONTENTS["r50_backbone.pth"](), folder / "r50.pth"))
    assert_filled(arcface)
    assert_frozen(arcface)


@pytest.mark.parametrize(("name", "backbone"), [("vgg", "vgg16"), ("resnet", "resnet50")])
def test_the_published_estimators_load(folder: Path, name: str, backbone: str) -> None:
    file = f"baseline_estimator_{name}.tar"
    estimator = load_estimator(saved(CONTENTS[file](), folder / file), backbone, key="gazenet_savepath")
    assert_filled(estimator)
    assert_frozen(estimator)


def test_the_published_redirector_loads(folder: Path) -> None:
    load_st_ed(saved(st_ed_content(), folder / "206865.pt"))


def test_a_bare_stylegan2_checkpoint_loads_whatever_else_it_holds(folder: Path) -> None:
    state = state_of(published_entries("stylegan2_256"))
    extras = {"g": {}, "d": {}, "g_optim": {"state": {}}, "latent_avg": torch.zeros(512), "ada_aug_p": 0.1}
    content = {"g_ema": state, **extras, "args": argparse.Namespace(size=256)}
    generator = load_stylegan2(saved(content, folder / "stylegan2.pt"))
    assert generator.size == 256
    assert_filled(generator)
    assert_frozen(generator)


@pytest.mark.parametrize("size", [32, 64, 128, 512])
def test_the_generator_is_of_the_size_that_the_keys_say(folder: Path, size: int) -> None:
    torch.manual_seed(1)
    source = Generator(size, style_dim=24, num_mapping=2, channel_multiplier=3.3 * size / 16384, max_channels=20).eval()
    loaded = load_stylegan2(saved({"g_ema": source.state_dict()}, folder / "g.pt"))
    w_plus = uniform((1, source.num_rows, 24))
    with torch.no_grad():
        assert torch.equal(loaded.synthesis(w_plus), source.synthesis(w_plus))
        assert torch.equal(loaded.mapping(w_plus[0]), source.mapping(w_plus[0]))


def test_a_small_arcface_loads(folder: Path) -> None:
    torch.manual_seed(1)
    source = ArcFace(width=4, depths=(1, 2, 1, 1), input_size=48, embedding_size=8).eval()
    loaded, face = load_arcface(saved(source.state_dict(), folder / "a.pth")), uniform((2, 3, 48, 48))
    with torch.no_grad():
        assert torch.equal(loaded(face), source(face))


def test_a_small_pair_loads_and_computes_the_same(folder: Path, small_pair: tuple[E4EEncoder, Generator]) -> None:
    content = pair_content(*small_pair)
    encoder, generator, latent_avg = load_e4e(saved(content, folder / "pair.pt"))
    image = uniform((2, 3, 64, 64))
    with torch.no_grad():
        assert torch.equal(encoder(image), small_pair[0](image))
        codes = encoder(image) + latent_avg
        assert torch.equal(generator.synthesis(codes), small_pair[1].synthesis(codes))
    assert torch.equal(latent_avg, content["latent_avg"])


def test_prefixes_half_tensors_and_what_a_training_leaves_do_no_harm(
    folder: Path, small_pair: tuple[E4EEncoder, Generator]
) -> None:
    content = pair_content(*small_pair)
    expected = {key: value.half().float() for key, value in content["state_dict"].items() if value.is_floating_point()}
    content["state_dict"] = {
        "module._orig_mod.module." + key.replace(".", "._orig_mod.", 1): value.half() if key in expected else value
        for key, value in content["state_dict"].items()
    }
    content["latent_avg"] = content["latent_avg"].half()
    discriminator = LatentDiscriminator(4, 2)
    optimizer = torch.optim.Adam(discriminator.parameters())
    content |= {
        "global_step": 200000, "best_val_loss": 0.3, "optimizer": optimizer.state_dict(),
        "discriminator_state_dict": discriminator.state_dict(), "discriminator_optimizer_state_dict": {},
    }  # fmt: skip
    encoder, generator, latent_avg = load_e4e(saved(content, folder / "pair.pt"))
    loaded = pair_content(encoder, generator)["state_dict"]
    for key, value in expected.items():
        assert loaded[key].dtype == torch.float32 and torch.equal(loaded[key], value)
    assert latent_avg.dtype == torch.float32


def test_a_missing_average_is_computed_the_same_each_time_and_said(
    folder: Path, small_pair: tuple[E4EEncoder, Generator], capsys: pytest.CaptureFixture[str]
) -> None:
    content = pair_content(*small_pair)
    del content["latent_avg"]
    path = saved(content, folder / "pair.pt")
    torch.manual_seed(3)
    first = load_e4e(path)[2]
    assert re.search(r"pair.pt: has no latent_avg; the mean of 10000 mapped random codes", capsys.readouterr().out)
    assert torch.rand(1) == torch.rand(1, generator=torch.Generator().manual_seed(3))  # global draws are not moved
    assert torch.equal(load_e4e(path)[2], first)
    assert first.shape == (10, 16) and torch.equal(first, first[:1].expand(10, 16))
    with torch.no_grad():
        mean = small_pair[1].mapping(torch.randn(20000, 16)).mean(dim=0)
        spread = small_pair[1].mapping(torch.randn(20000, 16)).std(dim=0)
    assert ((first[0] - mean).abs() < 5 * spread / 10000**0.5 + 5 * spread / 20000**0.5).all()


def test_an_encoder_that_was_trained_without_average_gets_zeros(
    folder: Path, small_pair: tuple[E4EEncoder, Generator], capsys: pytest.CaptureFixture[str]
) -> None:
    content = pair_content(*small_pair) | {"opts": {"start_from_latent_avg": False}}
    del content["latent_avg"]
    assert load_e4e(saved(content, folder / "pair.pt"))[2].abs().max() == 0
    assert "zeros" in capsys.readouterr().out


def test_a_single_average_stands_for_all_rows_and_another_shape_is_refused(
    folder: Path, small_pair: tuple[E4EEncoder, Generator]
) -> None:
    content, average = pair_content(*small_pair), uniform((16,))
    loaded = load_e4e(saved(content | {"latent_avg": average}, folder / "pair.pt"))[2]
    assert torch.equal(loaded, average.expand(10, 16))
    with pytest.raises(UserError, match=r"latent_avg is \(18, 16\), expected \(10, 16\)"):
        load_e4e(saved(content | {"latent_avg": torch.zeros(18, 16)}, folder / "pair.pt"))


def without(content: dict[str, Any], unlearned: str) -> dict[str, Any]:
    """The same file without the entries of its state dict that hold this in their names."""
    return content | {"state_dict": {k: v for k, v in content["state_dict"].items() if unlearned not in k}}


def test_noise_maps_that_a_file_lacks_are_drawn_the_same_each_time_and_said(
    folder: Path, small_pair: tuple[E4EEncoder, Generator], capsys: pytest.CaptureFixture[str]
) -> None:
    content = pair_content(*small_pair)
    pair = saved(without(content, "noises."), folder / "pair.pt")
    alone = saved({"g_ema": without({"state_dict": small_pair[1].state_dict()}, "noises.")["state_dict"]}, folder / "g")
    found = [load_e4e(pair)[1], load_e4e(pair)[1], load_stylegan2(alone)]
    assert capsys.readouterr().out.count("has no noise maps, which are not learned; random ones (seed 0)") == 3
    for generator in found:
        maps = list(generator.noises.buffers())
        assert [m.shape for m in maps] == [m.shape for m in small_pair[1].noises.buffers()]
        assert torch.cat([m.flatten() for m in maps]).std() == pytest.approx(1, abs=0.05)
        assert all(map(torch.equal, maps, found[0].noises.buffers()))
        assert torch.equal(generator.convs[0].conv.weight, small_pair[1].convs[0].conv.weight)


def test_blur_kernels_that_a_file_lacks_follow_from_the_network(
    folder: Path, small_pair: tuple[E4EEncoder, Generator]
) -> None:
    _, generator, _ = load_e4e(saved(without(pair_content(*small_pair), ".kernel"), folder / "pair.pt"))
    w_plus = uniform((1, 10, 16))
    with torch.no_grad():
        assert torch.equal(generator.synthesis(w_plus), small_pair[1].synthesis(w_plus))


def test_a_file_that_lacks_some_noise_maps_or_kernels_is_refused(
    folder: Path, small_pair: tuple[E4EEncoder, Generator]
) -> None:
    for key in ("noises.noise_3", "convs.0.conv.blur.kernel"):
        with pytest.raises(UserError, match=rf"1 missing \(decoder.{key}\)"):
            load_e4e(saved(without(pair_content(*small_pair), key), folder / "pair.pt"))


PSP = {"encoder_type": "GradualStyleEncoder", "learn_in_w": False, "start_from_latent_avg": True}


@pytest.mark.parametrize("opts", [PSP, argparse.Namespace(**PSP), {"learn_in_w": False}])
def test_each_head_of_a_psp_file_gives_its_row_by_itself(
    folder: Path, small_pair: tuple[E4EEncoder, Generator], opts: Any
) -> None:
    encoder, _, _ = load_e4e(saved(pair_content(*small_pair) | {"opts": opts}, folder / "psp.pt"))
    image = uniform((2, 3, 64, 64))
    with torch.no_grad():
        added, own = small_pair[0](image), encoder(image)
    assert torch.equal(own[:, 0], added[:, 0])
    torch.testing.assert_close(own[:, 1:], added[:, 1:] - added[:, :1])


@pytest.mark.parametrize(
    "opts", [{"encoder_type": "Encoder4Editing"}, {"encoder_type": "Encoder4Editing", "learn_in_w": False},
             {"progressive_steps": None}, {"depths": (1, 2, 2, 1)}],
)  # fmt: skip
def test_a_file_that_says_it_is_e4e_is_taken_for_it_without_a_word(
    folder: Path, small_pair: tuple[E4EEncoder, Generator], capsys: pytest.CaptureFixture[str], opts: dict[str, Any]
) -> None:
    encoder, _, _ = load_e4e(saved(pair_content(*small_pair) | {"opts": opts}, folder / "pair.pt"))
    assert not encoder.own_rows and not capsys.readouterr().out


def test_what_a_file_does_not_say_of_its_encoder_is_assumed_and_said(
    folder: Path, small_pair: tuple[E4EEncoder, Generator], capsys: pytest.CaptureFixture[str]
) -> None:
    for opts in ({}, None, {"start_from_latent_avg": True}):
        encoder, _, _ = load_e4e(saved(pair_content(*small_pair) | {"opts": opts}, folder / "pair.pt"))
        assert not encoder.own_rows
        assert "pair.pt: does not say if its encoder is e4e's or pSp's" in capsys.readouterr().out


def test_another_kind_of_encoder_is_refused_by_its_name(folder: Path, small_pair: tuple[E4EEncoder, Generator]) -> None:
    content = pair_content(*small_pair) | {"opts": {"encoder_type": "ProgressiveBackboneEncoder"}}
    with pytest.raises(UserError, match="'ProgressiveBackboneEncoder', expected Encoder4Editing or GradualStyle"):
        load_e4e(saved(content, folder / "pair.pt"))


LEFT_BESIDE = {
    "best_val_loss": np.float64(0.5), "step": np.int64(3), "losses": np.arange(4.0), "device": torch.device("cuda:0"),
    "file": PurePosixPath("runs/x.pt"), "folder": PureWindowsPath("C:/runs"), "here": Path("x"),
    "opts": argparse.Namespace(exp_dir=Path("x"), start_from_latent_avg=True), "log": defaultdict(list, {"l1": [0.5]}),
}  # fmt: skip


def test_numbers_and_paths_beside_the_weights_do_no_harm(
    folder: Path, small_pair: tuple[E4EEncoder, Generator]
) -> None:
    content, arcface = pair_content(*small_pair), CONTENTS["r50_backbone.pth"]()
    encoder, _, latent_avg = load_e4e(saved(content | LEFT_BESIDE, folder / "pair.pt"))
    assert torch.equal(encoder.styles[1].linear.weight, small_pair[0].styles[1].linear.weight)
    assert torch.equal(latent_avg, content["latent_avg"])
    load_stylegan2(saved({"g_ema": small_pair[1].state_dict(), **LEFT_BESIDE}, folder / "g.pt"))
    load_arcface(saved(arcface | LEFT_BESIDE, folder / "a.pth"))
    vgg = CONTENTS["baseline_estimator_vgg.tar"]()
    load_estimator(saved(vgg | LEFT_BESIDE, folder / "vgg.tar"), "vgg16", key="gazenet_savepath")


def test_torchvisions_files_load_whatever_wraps_their_keys(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    networks = {"alexnet": torchvision.models.alexnet(), "resnet50": torchvision.models.resnet50()}
    for name, network in networks.items():
        wrapped = {f"module.module._orig_mod.{key}": value for key, value in network.state_dict().items()}
        saved(wrapped | LEFT_BESIDE, folder / f"{name}.pth")
    url = f"https://some.where/alexnet-{file_sha256(folder / 'alexnet.pth')[:8]}.pth"
    monkeypatch.setattr(perceptual, "TRUNK_URL", url)
    trunk = perceptual.build_lpips(perceptual.find_trunk("alexnet.pth", allow_download=False)).net
    for theirs, ours in zip(networks["alexnet"].features.parameters(), trunk.parameters(), strict=True):
        assert torch.equal(theirs, ours)
    estimator = build_estimator("resnet50")
    load_imagenet_weights(estimator, "resnet50", folder / "resnet50.pth")
    for key in ("conv1.weight", "layer4.2.bn3.running_var"):
        assert torch.equal(estimator.state_dict()[f"resnet50.{key}"], networks["resnet50"].state_dict()[key])


def test_a_trunk_of_lpips_is_what_its_name_says(folder: Path) -> None:
    with pytest.raises(UserError, match=r"^lpips_weights: a\.pth: no such file\. Get it from https.*owt-7be5be79"):
        perceptual.find_trunk("a.pth", allow_download=True)
    with pytest.raises(UserError, match=r"a\.pth: sha256 \w{8}\.\.\., expected 7be5be79\.\.\. Get it again from https"):
        perceptual.find_trunk(str(saved({}, folder / "a.pth")), allow_download=False)
    assert perceptual.find_trunk("", allow_download=False) is None


def test_an_average_that_numpy_saved_is_one(folder: Path, small_pair: tuple[E4EEncoder, Generator]) -> None:
    content = pair_content(*small_pair)
    path = saved(content | {"latent_avg": content["latent_avg"].numpy()}, folder / "pair.pt")
    assert torch.equal(load_e4e(path)[2], content["latent_avg"])


def test_no_single_missing_key_changes_the_sizes() -> None:
    """Else the message would list half the network in place of what is missing."""
    state = state_of(published_entries("e4e_psp"))
    for prefix, sizes in (("encoder.", lambda s: encoder_sizes(s, 18)), ("decoder.", generator_sizes)):
        whole = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        small = sizes(whole)
        for key in whole:
            assert sizes({k: v for k, v in whole.items() if k != key}) == small, key


def damage(kind: str, name: str, path: Path) -> str:
    """Writes the file, damaged; returns a pattern for the message."""
    content = CONTENTS[name]()
    *entry, key = A_TENSOR[name]
    state = content[entry[0]] if entry else content
    bare = re.escape(key.removeprefix("module."))
    if kind == "missing key":
        del state[key]
        expected = rf"{re.escape(KEYS[name])}.*: does not fit this model: 1 missing \({bare}\)\. "
    elif kind == "other shape":
        state[key] = torch.zeros(7, *state[key].shape)
        expected = rf"{re.escape(KEYS[name])}.*: 1 of another shape \({bare} \(7, .*\) instead of \(.*\)\)\. "
    elif kind == "code":
        content["extra"] = Bomb()
        expected = "could run code"
    elif kind == "web page":
        path.write_text("\n<!DOCTYPE html><html><title>Google Drive - Virus scan warning</title></html>")
        return "is a web page, not weights"
    elif kind == "bytes":
        path.write_bytes(bytes(range(256)) * 16)
        return "is not a PyTorch file or is damaged"
    saved(content, path)
    return expected


class Bomb:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("kind", ["missing key", "other shape", "bytes", "code", "web page"])
@pytest.mark.parametrize("name", CONTENTS)
def test_a_damaged_file_is_refused_with_the_reason(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str, kind: str
) -> None:
    expected = damage(kind, name, folder / name)
    assert main(["--folder", "."]) == 1
    output = capsys.readouterr().out
    assert re.search(expected, output), output
    assert re.search(rf"^{name} .* NO$", output, re.MULTILINE)
    assert not (folder / "exploded").exists()


def test_a_bare_pickle_that_would_run_code_is_refused(folder: Path) -> None:
    for load in (load_e4e, load_stylegan2, load_arcface):
        (folder / "bomb.pt").write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(UserError, match=r"_weights: bomb\.pt"):
            load("bomb.pt")
    assert not (folder / "exploded").exists()


def test_a_web_page_is_called_one_and_a_missing_file_missing(folder: Path) -> None:
    damage("web page", "r50_backbone.pth", folder / "page.pth")
    with pytest.raises(UserError, match=r"arcface_weights: page.pth: is a web page.*in a browser.*r50_backbone.pth"):
        load_arcface("page.pth")
    with pytest.raises(UserError, match=r"e4e_weights: e4e.pt: no such file.*Download e4e_ffhq_encode.pt"):
        load_e4e("e4e.pt")


def test_one_file_in_place_of_another_is_refused_with_what_it_holds(folder: Path) -> None:
    e4e = saved(e4e_content(), folder / "e4e.pt")
    with pytest.raises(UserError, match="expected the entry 'g_ema', found the entries state_dict, opts, latent_avg"):
        load_stylegan2(e4e)
    with pytest.raises(UserError, match="expected a dictionary of tensors, found the entries state_dict, opts"):
        load_arcface(e4e)
    arcface = saved(CONTENTS["r50_backbone.pth"](), folder / "r50.pth")
    with pytest.raises(UserError, match="expected the entry 'state_dict', found the entries conv1.weight, .*, ..."):
        load_e4e(arcface)
    with pytest.raises(UserError, match=r"missing \(.*\); 475 unexpected \("):
        load_stylegan2(saved({"g_ema": torch.load(arcface)}, folder / "g.pt"))
    for odd, found in ((torch.zeros(3), "Tensor"), ({}, "nothing|missing"), ({1: torch.zeros(1)}, "entries 1")):
        with pytest.raises(UserError, match=found):
            load_arcface(saved(odd, folder / "odd.pth"))


def test_a_generator_of_no_known_size_is_refused(folder: Path) -> None:
    state = {f"to_rgbs.{i}.conv.weight": torch.zeros(1, 3, 4, 1, 1) for i in range(12)}
    with pytest.raises(UserError, match=r"g.pt: its keys are of no network known here: .*16384.*32 to 1024.*g_ema"):
        load_stylegan2(saved({"g_ema": state}, folder / "g.pt"))


def test_the_command_lists_what_is_there_and_what_is_not(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "estimator_vgg" / "checkpoints").mkdir(parents=True)
    for name, place in (
        ("206865.pt", "206865.pt"),
        ("baseline_estimator_vgg.tar", "estimator_vgg/checkpoints/at_step_0000000.pth.tar"),
        ("baseline_estimator_resnet.tar", "baseline_estimator_resnet.tar"),
    ):
        saved(CONTENTS[name](), folder / place)
    assert main(["--folder", "."]) == 0
    output = capsys.readouterr().out
    assert re.search(r"^206865\.pt .* yes\n    206865\.pt\n    sha256 [0-9a-f]{64}$", output, re.MULTILINE)
    assert re.search(r"gazenet_savepath .* yes\n    estimator_vgg/checkpoints/at_step_0000000", output)
    assert re.search(r"eval_gazenet_savepath .* yes\n    baseline_estimator_resnet.tar", output)
    for name in ("e4e_ffhq_encode.pt", "r50_backbone.pth", "stylegan2.pt", "alexnet-owt-7be5be79.pth"):
        assert re.search(rf"^{name} .* not there\n    expected at {name}", output, re.MULTILINE)


def test_a_torchvision_file_must_have_the_hash_of_its_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved({}, folder / "vgg16-397923af.pth")
    assert main(["--folder", "."]) == 1
    assert re.search(
        r"vgg16-397923af.pth .* NO\n.*\n.*\n    sha256 should begin with 397923af", capsys.readouterr().out
    )


def test_the_command_runs_from_the_root_and_its_files_are_in_the_readme(folder: Path) -> None:
    command = [sys.executable, "-m", "pretrained_models", "--folder", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    readme = (ROOT / "pretrained_models" / "README.md").read_text()
    rows = re.findall(r"^(\S+) +([a-z0-9_]+)[, ].*(?:yes|not there)$", done.stdout, re.MULTILINE)
    assert len(rows) == 9
    for name, key in rows:
        assert re.search(rf"^\| `{re.escape(name)}`.*`{key}`", readme, re.MULTILINE), name
    assert main(["--folder", "nowhere"]) == 2
