"""The command with the redirector that carries pixels: training to report, resuming, its terms, and what refuses it."""

import json
import shutil
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from core.adversary import ImageAdversary
from core.objective import Objective
from core.trainer import RedirectionTrainer
from models.discriminator import PatchDiscriminator
from models.st_ed_flow import STEDFlow
from preprocess.synthetic.dataset import make_dataset
from tests import test_train_st_ed
from tests.test_train_st_ed import equal, final_weights
from tests.tiny import PoolEstimator, assembled, random_batch, tiny_flow
from train_st_ed import main

ROOT = Path(__file__).resolve().parent.parent
PARTS = {"warp": 50.0, "paint": 20.0, "mask": 25.0, "flow": 20.0}
WEIGHTS = PARTS | {
    "l1": 200.0, "gradient": 100.0, "eyes": 60.0, "gaze_a": 2.0, "head_a": 2.0, "gaze_redirection": 1.5,
    "embedding_disentangle": 2.0, "label_disentangle": 2.0,
}  # fmt: skip
TILE = 128  # of a picture grid


setup = test_train_st_ed.setup  # the fixture: a folder with data, estimators and config.json


@pytest.fixture
def flow(setup: Path) -> Path:
    """The folder of `test_train_st_ed`, with flow.json beside config.json."""
    config = json.loads((setup / "config.json").read_text()) | {
        "redirector": "st-ed-flow", "flow_width": 4, "coeff_gradient_loss": 100, "coeff_warp_loss": 50,
        "coeff_paint_loss": 20, "coeff_mask_loss": 25, "coeff_flow_loss": 20, "coeff_eye_loss": 60,
        "redirect_to_labels": True, "coeff_disentangle_pseudo_label_loss": 1,
    }  # fmt: skip
    (setup / "flow.json").write_text(json.dumps(config))
    return setup


def logged(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def flow_trainer(weights: dict[str, float] = WEIGHTS, **given: object) -> RedirectionTrainer:
    redirector = tiny_flow()
    adversary = ImageAdversary(PatchDiscriminator(2))
    return assembled(redirector, adversary, weights, estimator=PoolEstimator(), **given)


def opened(seed: int = 0) -> STEDFlow:
    """One whose last layers, which begin at zero, say something."""
    redirector = tiny_flow(seed).eval()
    for part in (redirector.decoder.fine.out, redirector.decoder.coarse):
        torch.nn.init.normal_(part.weight, std=0.1)
    return redirector


# The command


def test_it_trains_resumes_to_the_bit_and_reports(flow: Path) -> None:
    assert main(["flow.json"]) == 0
    run = flow / "run"
    terms = {f"train/{name}" for name in WEIGHTS}
    assert all(terms <= line.keys() for line in logged(run) if "train/l1" in line)
    report = json.loads((run / "report/6/report.json").read_text())["datasets"]["gc/test"]
    assert {"gaze_redirection", "head_to_gaze", "gaze_disentangle", "l1_all"} <= report.keys()
    assert {path.name for path in (run / "report/6").iterdir()} >= {"walk_gaze.png", "walk_head.png"}
    person = {path.name for path in (run / "samples/00003").iterdir()}
    assert person >= {"warp.png", "mirror.png", "paint.png", "shares.png", "walk_gaze.mp4", "walk_head.mp4"}
    shutil.copytree(run, flow / "parts")
    for step in (4, 6):
        (flow / "parts/checkpoints" / f"{step}.pt").unlink()
    assert main(["flow.json", "--save-path", "parts", "--num-data-loaders", "2"]) == 0
    assert equal(final_weights(run), final_weights(flow / "parts"))


def test_a_checkpoint_is_evaluated_to_the_figures_of_its_run(flow: Path) -> None:
    assert main(["flow.json", "--num-training-steps", "2"]) == 0
    before = json.loads((flow / "run/report/2/report.json").read_text())
    (flow / "run/report/2/report.json").unlink()
    assert main(["flow.json", "--skip-training", "--load-step", "2"]) == 0
    assert json.loads((flow / "run/report/2/report.json").read_text())["datasets"] == before["datasets"]


def test_the_grid_and_tensorboard_show_the_parts_beside_the_images(flow: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert main(["flow.json", "--num-training-steps", "2", "--no-compute-full-result"]) == 0
    grid = cv2.imread(str(flow / "run/samples/step_2.png"))
    assert grid.shape[1] == 8 * TILE
    events = EventAccumulator(str(flow / "run/tensorboard"), size_guidance={"images": 0})
    events.Reload()
    shown = cv2.imdecode(np.frombuffer(events.Images("samples/comparison")[-1].encoded_image_string, np.uint8), 1)
    assert np.array_equal(shown, grid)


def test_labels_of_some_images_are_enough_for_it_and_its_redirected_data_set(flow: Path) -> None:
    some = ["--semi-supervised", "--num-labeled-samples", "6", "--no-redirect-to-labels"]
    assert main(["flow.json", *some, "--store-redirect-dataset"]) == 0
    assert {"train/gaze_a_unlabeled", "train/eyes"} <= logged(flow / "run")[0].keys()
    with h5py.File(flow / "run/Redirected_samples.h5") as file:
        real = np.concatenate([person["real"][()] for person in file.values()])
        assert sorted(real.tolist()) == [0] * 6 + [1] * 6


def test_targets_without_labels_cannot_be_asked_for_by_them(flow: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["flow.json", "--semi-supervised", "--num-labeled-samples", "6"]) == 2
    message = capsys.readouterr().err
    assert "'redirect_to_labels' is true, but with semi_supervised targets have no labels; set it to false" in message
    assert not (flow / "run").exists()


@pytest.mark.parametrize(
    ("first", "second"), [("config.json", "flow.json"), ("flow.json", "config.json")], ids=["st-ed", "st-ed-flow"]
)
def test_it_and_st_ed_refuse_each_others_checkpoints_in_a_sentence(
    first: str, second: str, flow: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([first, "--num-training-steps", "2", "--no-compute-full-result"]) == 0
    before, kind = final_weights(flow / "run", 2), json.loads(Path(first).read_text()).get("redirector", "st-ed")
    capsys.readouterr()
    for more in ([], ["--skip-training", "--load-step", "2"]):
        assert main([second, *more]) == 2
        said = f"2.pt: was trained with redirector {kind}. Set it so, or choose another save_path."
        assert capsys.readouterr().err.strip().endswith(said)
    assert equal(final_weights(flow / "run", 2), before)


def test_weights_of_its_terms_are_said_to_do_nothing_for_another(
    flow: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--coeff-warp-loss", "50", "--flow-width", "8", "--num-training-steps", "2", "--no-compute-full-result"]
    assert main(["config.json", *flags]) == 0
    assert "warning: coeff_warp_loss, flow_width have no effect on st-ed." in capsys.readouterr().out
    assert "train/warp" not in logged(flow / "run")[0]
    assert main(["config.json", *flags[4:], "--save-path", "other"]) == 0
    assert equal(final_weights(flow / "run", 2), final_weights(flow / "other", 2))


# The trainer


def test_a_tiny_run_learns_to_carry() -> None:
    weights = WEIGHTS | {"embedding_disentangle": 0.0, "label_disentangle": 0.0}
    trainer, batch = flow_trainer(weights, learning_rate=lambda _: 2e-3), random_batch()
    l1 = [trainer.train_step(batch, step)["l1"].item() for step in range(40)]
    assert l1[-1] < 0.85 * l1[0]


def test_every_term_of_it_is_returned_and_one_of_weight_0_is_not_computed() -> None:
    assert flow_trainer().train_step(random_batch(), 1).keys() == WEIGHTS.keys() | {"total"}
    assert not PARTS.keys() & flow_trainer(WEIGHTS | dict.fromkeys(PARTS, 0.0)).train_step(random_batch(), 1).keys()


@pytest.mark.parametrize("name", ["warp", "paint", "mask", "flow", "eyes", "gradient"])
def test_a_term_alone_moves_the_decoder(name: str) -> None:
    trainer = flow_trainer({name: 1.0}, weight_decay=0.0)
    trainer.redirector.load_state_dict(opened().state_dict())
    before = [parameter.clone() for parameter in trainer.redirector.decoder.parameters()]
    trainer.train_step(random_batch(), 1)
    after = list(trainer.redirector.decoder.parameters())
    assert any(not torch.equal(u, v) for u, v in zip(before, after, strict=True))


@pytest.mark.parametrize("to_labels", [False, True])
def test_it_is_asked_for_labels_or_for_conditions_and_turned_from_them(to_labels: bool) -> None:
    redirector, batch = tiny_flow(), random_batch()
    _, redirected = Objective({"l1": 1.0}, to_labels=to_labels).terms(redirector, batch, {})
    conditions, own = (redirector.encode(batch[name]).conditions for name in ("image_b", "image_a"))
    turned_from = batch["head_a"] if to_labels else own["head"]
    assert torch.allclose(redirected.encoding.remainder["own_head"], turned_from, atol=1e-5)
    assert torch.allclose(redirected.encoding.remainder["own_gaze"], own["gaze"], atol=1e-5)
    for name in ("gaze", "head"):
        wanted = batch[f"{name}_b"] if to_labels else conditions[name]
        assert torch.allclose(redirected.encoding.conditions[name], wanted, atol=1e-5)
    others = redirected.encoding.conditions.keys() - {"gaze", "head"}
    assert others and all(torch.allclose(redirected.encoding.conditions[n], conditions[n], atol=1e-5) for n in others)


def test_without_labels_of_the_target_its_eyes_are_where_the_encoder_sees_its_head() -> None:
    totals = []
    for other in (False, True):
        batch = random_batch()
        if other:
            batch |= {name: random_batch(seed=1)[name] for name in ("gaze_b", "head_b")}
        totals.append(flow_trainer(semi_supervised=True).train_step(batch, 1)["total"].item())
    assert totals[0] == totals[1]


def test_the_eye_term_moves_no_condition_of_the_target() -> None:
    """Else a head would be seen where the images agree."""
    redirector, batch = tiny_flow(), random_batch()
    objective = Objective({"eyes": 1.0}, semi_supervised=True)
    targets: dict[str, Tensor] = {}

    def note(batch: dict[str, Tensor]) -> tuple:
        a, b = type(redirector).encode_pair(redirector, batch)
        targets["head"] = b.conditions["head"]
        targets["head"].retain_grad()
        return a, b

    redirector.encode_pair = note  # type: ignore[method-assign]
    redirector.rotate = lambda encoding, *_: encoding  # type: ignore[method-assign]
    terms, _ = objective.terms(redirector, batch, {})
    terms["eyes"].backward()
    assert targets["head"].grad is None


# Redirecting


def test_gaze_head_and_both_are_three_edits_and_none_is_the_source() -> None:
    redirector, image = opened(), random_batch()["image_a"]
    turned = {"gaze": torch.full((4, 2), 0.3), "head": torch.full((4, 2), -0.3)}
    with torch.no_grad():
        own = redirector.encode(image).conditions
        edits = [redirector.redirect(image, {name: turned[name] for name in names})
                 for names in (["gaze"], ["head"], ["gaze", "head"])]  # fmt: skip
        assert torch.allclose(redirector.redirect(image, own), image, atol=1e-6)
    for i, edit in enumerate(edits):
        for other in [image, *edits[:i]]:
            assert (edit - other).abs().mean() > 1e-3


def test_a_turned_gaze_moves_no_head_however_the_head_moves() -> None:
    redirector, image = opened(), random_batch()["image_a"]
    torch.nn.init.zeros_(redirector.decoder.fine.out.weight)  # which moves the eyes
    with torch.no_grad():
        encoding = redirector.encode(image)
        flows = [
            redirector.decode_parts(redirector.rotate(encoding, {name: torch.full((4, 2), 0.3)})).parts["flow"]
            for name in ("gaze", "head")
        ]
    assert flows[0].abs().max() == 0 and flows[1].abs().max() > 0.02


def test_a_walk_begins_at_the_source_where_its_first_angle_is_the_sources_own() -> None:
    redirector, image = opened(), random_batch()["image_a"][:1]
    with torch.no_grad():
        own = redirector.encode(image).conditions["head"]
        frames = redirector.walk(image, "head", torch.cat((own, own + 0.2, own + 0.4)))
    assert torch.allclose(frames[0], image, atol=1e-6)
    assert (frames[2] - image).abs().mean() > (frames[1] - image).abs().mean() > 1e-3


# The full size


@pytest.mark.slow
def test_the_full_size_trains_three_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """config/ST-ED-flow.json as it is, but for the embedded data set, batches of two and estimators made in passing."""
    monkeypatch.chdir(tmp_path)
    make_dataset(tmp_path / "data", persons=6, samples=4, seed=0, workers=1, progress=False)
    split = {"train": ["00000", "00001", "00002"], "val": ["00003"], "test": ["00004", "00005"]}
    (tmp_path / "data/gazecapture_split.json").write_text(json.dumps(split))
    flags = ["--gazecapture-split", "data/gazecapture_split.json", "--batch-size", "2", "--num-data-loaders", "0"]
    flags += ["--train-missing-estimators", "--estimator-num-steps", "1", "--estimator-batch-size", "2"]
    flags += ["--estimator-init", "none", "--no-compute-full-result", "--test-subsample", "0.1"]
    flags += ["--num-sample-persons", "1", "--print-freq-train", "1", "--num-training-steps", "3", "--device", "cpu"]
    assert main([str(ROOT / "config/ST-ED-flow.json"), *flags]) == 0
    lines = [line for line in logged(tmp_path / "runs/ST-ED-flow") if "train/warp" in line]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert all(np.isfinite(line["train/total"]) for line in lines)
