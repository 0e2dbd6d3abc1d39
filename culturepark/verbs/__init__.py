"""What the park can do, one function a verb: the command and `import culturepark as cp` are both this room."""

from culturepark.verbs.cards import check, init, preview, show
from culturepark.verbs.comparison import compare
from culturepark.verbs.evaluation import benchmarks, evaluate
from culturepark.verbs.lineage import explain, told
from culturepark.verbs.runs import replay, resume, start
from culturepark.verbs.stages import Tell
from culturepark.verbs.tuning import first, graduates, hosted, matrix, scpo, sent, tune
from culturepark.verbs.work import calls, counts, estimate, export, exporters, refine, report, run, simulate

__all__ = [
    "Tell", "benchmarks", "calls", "check", "compare", "counts", "estimate", "evaluate", "explain", "export", "exporters", "first", "graduates", "hosted", "init", "matrix",
    "preview", "refine", "replay", "report", "resume", "run", "scpo", "sent", "show", "simulate", "start", "told", "tune",
]  # fmt: skip
