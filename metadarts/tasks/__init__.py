"""Few-shot tasks: sources of labelled images, and the sampler that draws episodes from them."""

from metadarts.tasks.baseline import nearest_class_mean as nearest_class_mean
from metadarts.tasks.mixture import Part as Part
from metadarts.tasks.mixture import mixture as mixture
from metadarts.tasks.opening import is_source_name as is_source_name
from metadarts.tasks.opening import open_source as open_source
from metadarts.tasks.opening import recognise as recognise
from metadarts.tasks.raw import RawBatch as RawBatch
from metadarts.tasks.raw import finish as finish
from metadarts.tasks.sampler import EpisodePlan as EpisodePlan
from metadarts.tasks.sampler import Episodes as Episodes
from metadarts.tasks.sampler import EpisodeSampler as EpisodeSampler
from metadarts.tasks.sampler import episodes_sha256 as episodes_sha256
from metadarts.tasks.source import ClassEntry as ClassEntry
from metadarts.tasks.source import Source as Source
from metadarts.tasks.sources import SOURCES as SOURCES
from metadarts.tasks.sources.glyphs import glyphs as glyphs
from metadarts.tasks.sources.npz import labelled as labelled
from metadarts.tasks.sources.omniglot import omniglot as omniglot
