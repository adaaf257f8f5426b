"""The configuration, which every entry script reads first."""

from core.config_default import Config, ConfigError, load_config

__all__ = ["Config", "ConfigError", "load_config"]
