"""Whether any search for task-specific architectures can help in a family of tasks: each operation trained alone."""

from .page import as_markdown as as_markdown
from .page import as_text as as_text
from .picture import draw_gate as draw_gate
from .study import Gate as Gate
from .study import GatePlan as GatePlan
from .study import candidates as candidates
from .study import gate as gate
from .verdict import verdict as verdict
