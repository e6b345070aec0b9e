"""heartbit.toml: its tables, how it is read, and what is said about it when it is wrong.

Nothing in here knows what the settings are for; wiring does.
"""

from heartbit.config.load import Loaded, check, find_config, load
from heartbit.config.models import Config
from heartbit.config.problems import Problem
from heartbit.config.show import Setting, show

__all__ = ["Config", "Loaded", "Problem", "Setting", "check", "find_config", "load", "show"]
