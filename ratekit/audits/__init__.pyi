from .results import Audit as Audit
from .study import Settings as Settings
from .study import audit as audit
from .study import planned as planned
