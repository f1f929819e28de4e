"""A task's network as a standalone file, checked against its source."""

from .check import Check as Check
from .check import difference as difference
from .check import export_model as export_model
from .check import verify as verify
from .formats import SUFFIXES as SUFFIXES
from .formats import Opened as Opened
from .formats import open_model as open_model
from .freeze import freeze as freeze
from .model import ShippedModel as ShippedModel
from .model import make_model as make_model
from .model import read_model as read_model
