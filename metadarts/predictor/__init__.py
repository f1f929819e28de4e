"""The meta-model: predicts a task's architecture, learnt from an archive of adapted tasks."""

from .archive import Archive as Archive
from .archive import Selection as Selection
from .footprints import Footprints as Footprints
from .head import Prediction as Prediction
from .model import MetaModel as MetaModel
from .model import PredictorSpec as PredictorSpec
from .model import Scores as Scores
from .rebuild import Rebuilder as Rebuilder
from .saved import open_model as open_model
from .saved import save_model as save_model
from .stem import Stem as Stem
from .task_record import Origin as Origin
from .task_record import TaskRecord as TaskRecord
from .tuning import tune as tune
