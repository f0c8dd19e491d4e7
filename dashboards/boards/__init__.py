"""One module a dashboard; each offers `build() -> Board`, and is found by being here."""

from __future__ import annotations

import importlib
import pkgutil

from agent.base.catalogue import drill, node, self
from dashboards.lib import Board, Json, annotation, finish, select

ANNOTATIONS = (
    annotation(
        "drill", f"{select(drill.ACTIVE)} == 1", "drill {{drill}}: {{scope}} {{uuid}}{{engine}}{{job_id}}", "purple"
    ),
    annotation("maintenance", f"{select(node.MAINTENANCE_UNTIL)} > time()", "maintenance of {{node}}", "blue"),
)


def load_all() -> dict[str, tuple[Board, Json]]:
    """Every board by uid, as written and as finished JSON, in order of uid."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        board: Board = importlib.import_module(f"{__name__}.{module.name}").build()
        found[board.uid] = (board, finish(board, self.BUILD, ANNOTATIONS))
    return dict(sorted(found.items()))
