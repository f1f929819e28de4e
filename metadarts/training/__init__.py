"""Configurations, building, the search loop, run folders, evaluation."""

from .build import Experiment as Experiment
from .build import build as build
from .catalogue import load_plugins as load_plugins
from .config import Config as Config
from .config import load_config as load_config
from .config import with_settings as with_settings
from .discrete import discretised as discretised
from .discrete import read_genotype as read_genotype
from .evaluation import evaluate_run as evaluate_run
from .open_run import OpenRun as OpenRun
from .open_run import data_settings as data_settings
from .open_run import open_run as open_run
from .presets import preset as preset
from .records import RunFolder as RunFolder
from .search import search as search
