"""Tests whether architectures are specific to their tasks: the same held-out tasks with swapped and redrawn
architectures."""

from .answer import Evidence as Evidence
from .answer import verdict as verdict
from .figures import Architecture as Architecture
from .figures import Contrast as Contrast
from .figures import Control as Control
from .figures import Diagnosis as Diagnosis
from .figures import Rate as Rate
from .figures import Variant as Variant
from .page import as_markdown as as_markdown
from .page import as_text as as_text
from .picture import draw_diagnosis as draw_diagnosis
from .study import diagnose as diagnose
from .study import require_diagnosable as require_diagnosable
