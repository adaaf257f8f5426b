"""Redirectors as configurations build them, untrained: for times, which weights do not change."""

from pathlib import Path

import torch
from torch import nn

from core.build import build_redirector
from core.config_default import Config
from core.config_reader import load_config
from core.redirection.load import Loaded

ROOT = Path(__file__).resolve().parent.parent


def untrained(name: str) -> Loaded:
    """config/NAME.json's redirector on the CPU; layers that begin at zero, and would move nothing, are stirred."""
    settings = load_config([str(ROOT / "config" / f"{name}.json")], unused=Config.model_fields)
    torch.manual_seed(0)
    redirector = build_redirector(settings)
    for module in redirector.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and not module.weight.any():
            nn.init.normal_(module.weight, std=0.01)
    return Loaded(redirector.eval().requires_grad_(False), settings, torch.device("cpu"))
