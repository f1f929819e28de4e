"""learn2learn in both directions: its tasksets as our episodes, our sources and networks in its loops."""

from metadarts.integrations.benchmarks import TASKSETS as TASKSETS
from metadarts.integrations.benchmarks import open_tasksets as open_tasksets
from metadarts.integrations.dataset import SourceDataset as SourceDataset
from metadarts.integrations.dataset import as_dataset as as_dataset
from metadarts.integrations.module import SupernetModule as SupernetModule
from metadarts.integrations.module import TaskModule as TaskModule
from metadarts.integrations.package import import_learn2learn as import_learn2learn
from metadarts.integrations.tasksets import TasksetEpisodes as TasksetEpisodes
from metadarts.integrations.tasksets import Tasksets as Tasksets
