"""Who may import whom, and that nothing needs a script around it to be imported."""

import ast
import functools
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LEVEL_0 = {
    "core",
    "core.command",
    "core.config_default",
    "core.config_page",
    "core.config_reader",
    "core.config_rules",
    "core.config_types",
    "core.disk",
    "core.distributed",
    "core.facts",
    "core.pickles",
    "core.figures",
    "core.files",
    "core.hdf5",
    "core.hdf5_ends",
    "core.loading",
    "core.owner",
    "core.person_parts",
    "core.persons_file",
    "core.runtime",
    "core.schedules",
    "core.torch_files",
    "core.tracking",
    "models.flow",
    "models.geometry",
    "utils",
}
LEVEL_1_ROOMS = {
    "core.batches",
    "models",
    "preprocess",
    "dataset",
    "dataset_aligned",
    "dataset_augmented",
    "losses",
    "checkpoints_manager",
}
ROOMS = LEVEL_1_ROOMS | {
    "core",
    "utils",
    "train_st_ed",
    "train_facenet",
    "augmentation",
    "redirect",
    "demo",
    "pretrained_models",
    "notebooks",
    "benchmarks",
    "tests",
}
FOLDERS = ("core", "models", "preprocess", "pretrained_models", "notebooks", "benchmarks")
MODULES = sorted(
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
    for pattern in ("*.py", *(f"{room}/**/*.py" for room in FOLDERS))
    for path in ROOT.glob(pattern)
)


def level(module: str) -> int:
    if module in LEVEL_0:
        return 0
    if module in LEVEL_1_ROOMS or module.partition(".")[0] in LEVEL_1_ROOMS:
        return 1
    return 2 if module.startswith("core.") else 3


@functools.cache
def imported(module: str) -> set[str]:
    """Modules of this project that the file names, wherever in it."""
    path = ROOT / (module.replace(".", "/") + ".py")
    path = path if path.is_file() else ROOT / module.replace(".", "/") / "__init__.py"
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(part for part in (package if node.level else "", node.module or "") if part)
            names |= {f"{base}.{a.name}" if f"{base}.{a.name}" in MODULES else base for a in node.names}
    return {name for name in names if name.partition(".")[0] in ROOMS}


@pytest.mark.parametrize("module", MODULES)
def test_no_arrow_points_upwards(module: str) -> None:
    for other in imported(module):
        same_folder = "." in module and other.partition(".")[0] == module.partition(".")[0] != "core"
        lower = level(other) < level(module) or (level(module) == level(other) == 0)
        same_folder |= module.startswith("dataset") and other.startswith("dataset")
        same_top_room = level(module) == level(other) and level(module) in (2, 3)
        assert lower or same_folder or same_top_room, f"{module} must not import {other}"


def test_no_file_is_a_drawer() -> None:
    lengths = {path: len(path.read_text().splitlines()) for room in FOLDERS for path in ROOT.glob(f"{room}/**/*.py")}
    lengths |= {path: len(path.read_text().splitlines()) for path in ROOT.glob("*.py")}
    assert not {path.name: lines for path, lines in lengths.items() if lines > 400}


def test_nothing_imports_in_a_circle() -> None:
    graphlib.TopologicalSorter({module: imported(module) - {module} for module in MODULES}).prepare()  # or CycleError


def test_entry_scripts_are_mains_that_nothing_imports() -> None:
    for script in ("train_st_ed", "train_facenet", "augmentation", "redirect", "demo"):
        assert not [module for module in MODULES if script in imported(module)]
        assert len((ROOT / f"{script}.py").read_text().splitlines()) < 90


def test_imports_from_a_command_line() -> None:
    """Each as the first of ours, in a process of its own that has PyTorch already."""
    code = "import os, sys, torch\nfor name in sys.argv[1:]:\n if not os.fork():\n  __import__(name); os._exit(0)\n"
    code += " assert os.wait()[1] == 0, name"
    modules = ["core", "dataset", "losses", "models.st_ed", "preprocess", "core.evaluator"]
    done = subprocess.run([sys.executable, "-c", code, *modules], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_configuration_does_not_import_torch() -> None:
    code = "import sys, core.config_reader, core.facts; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_what_takes_long_is_imported_by_those_who_use_it() -> None:
    """torchvision, PyTorch's compiler, and scipy, with which faces are rendered, not drawn."""
    code = "import sys, core.run, redirect, preprocess.synthetic.dataset\n"
    code += "print({'torchvision', 'torch._dynamo', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
