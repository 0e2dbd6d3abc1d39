"""What CulturePark can do, one function per command: the command and `import culturepark as cp`
both call these.
"""

from culturepark.api.cards import check, init, preview, show
from culturepark.api.comparison import compare
from culturepark.api.evaluation import benchmarks, evaluate
from culturepark.api.lineage import explain, format_lineage
from culturepark.api.runs import replay, resume, start
from culturepark.api.tuning import (
    describe_models,
    hosted,
    is_first_process,
    locate_upload,
    matrix,
    scpo,
    tune,
)
from culturepark.api.work import (
    calls,
    counts,
    estimate,
    export,
    exporters,
    refine,
    report,
    run,
    simulate,
)
from culturepark.events import Tell
from culturepark.pipeline.work import describe_failures

__all__ = [
    "Tell",
    "benchmarks",
    "calls",
    "check",
    "compare",
    "counts",
    "describe_failures",
    "describe_models",
    "estimate",
    "evaluate",
    "explain",
    "export",
    "exporters",
    "format_lineage",
    "hosted",
    "init",
    "is_first_process",
    "locate_upload",
    "matrix",
    "preview",
    "refine",
    "replay",
    "report",
    "resume",
    "run",
    "scpo",
    "show",
    "simulate",
    "start",
    "tune",
]
