"""learn2learn both ways: its tasksets as our episodes, our sources and networks in its loops."""

from metadarts.bridges.benchmarks import TASKSETS as TASKSETS
from metadarts.bridges.benchmarks import open_tasksets as open_tasksets
from metadarts.bridges.dataset import SourceDataset as SourceDataset
from metadarts.bridges.dataset import as_dataset as as_dataset
from metadarts.bridges.module import SupernetModule as SupernetModule
from metadarts.bridges.module import TaskModule as TaskModule
from metadarts.bridges.package import import_learn2learn as import_learn2learn
from metadarts.bridges.tasksets import TasksetEpisodes as TasksetEpisodes
from metadarts.bridges.tasksets import Tasksets as Tasksets
