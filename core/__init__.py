"""The configuration, which every entry script reads first."""

from core.config_default import Config
from core.config_reader import ConfigError, load_config

__all__ = ["Config", "ConfigError", "load_config"]
