"""What the code looks like, beside an earlier commit: sizes, names, layout, SQL, import circles."""

from __future__ import annotations

import ast
import io
import re
import statistics
import subprocess
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

BEFORE = "5f558b8"  # the last commit before the middle of the package was rebuilt
ROOT = Path(__file__).parent.parent
IRREGULAR = set(
    "told made held found asked sent said kept left read built done given known seen taken paid put"
    " begun sought brought bought caught chosen drawn driven fed felt forgotten gone got grown had"
    " heard hidden laid led lent lost met run sold set shown shut spent spoken stood sworn taught"
    " thought thrown understood woken worn won written".split()
) - {
    "read",
    "put",
    "run",
    "set",
    "shut",
}  # verbs as well
SQL = re.compile(
    r"\b(SELECT\s.+\sFROM|INSERT\s+(OR\s+\w+\s+)?INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM|"
    r"CREATE\s+(TABLE|INDEX)|PRAGMA\s+\w+|SAVEPOINT\s+\w+)",
    re.DOTALL,
)


class Shape(NamedTuple):
    """The figures of one tree, in the order in which they are printed."""

    modules: int
    lines: int
    function_median: int
    function_p90: int
    function_max: int
    functions_over_60_lines: int
    participles: float
    one_word_names: float
    lines_over_100_columns: int
    conditional_expressions_per_100_lines: float
    modules_with_sql_outside_the_store: int
    class_names_defined_twice: int
    import_circles_of_modules: int
    import_circles_of_rooms: int


def main(before: str = BEFORE) -> None:
    """Print the figures of a commit and of the working tree, side by side."""
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(
            ["git", "archive", before, "culturepark"], cwd=ROOT, check=True, capture_output=True
        ).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(folder, filter="data")
        old, new = (measure_shape(tree / "culturepark") for tree in (Path(folder), ROOT))
    print(f"{'':40}{before[:7]:>10}{'now':>10}")
    for name, was, now in zip(Shape._fields, old, new, strict=True):
        print(f"{name.replace('_', ' '):40}{_format(was):>10}{_format(now):>10}")


def measure_shape(package: Path) -> Shape:
    """Return the figures of a package's source."""
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(package.rglob("*.py"))}
    trees = {path: ast.parse(text) for path, text in texts.items()}
    nodes = [node for tree in trees.values() for node in ast.walk(tree)]
    functions = [n for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    sizes = sorted((n.end_lineno or n.lineno) - n.lineno + 1 for n in functions)
    names = [n.name.strip("_") for n in functions if not n.name.startswith("__")]
    lines = list(chain.from_iterable(text.splitlines() for text in texts.values()))
    classes = Counter(n.name for n in nodes if isinstance(n, ast.ClassDef))
    return Shape(
        len(texts),
        len(lines),
        int(statistics.median(sizes)),
        sizes[len(sizes) * 9 // 10],
        sizes[-1],
        sum(size > 60 for size in sizes),
        sum(map(is_participle, names)) / len(names),
        sum("_" not in name for name in names) / len(names),
        sum(len(line) > 100 for line in lines),
        100 * sum(isinstance(n, ast.IfExp) for n in nodes) / len(lines),
        sum(has_sql(t) for p, t in trees.items() if "store" not in p.parts),
        sum(count > 1 for count in classes.values()),
        len(find_circles(package)),
        len(find_circles(package, depth=2)),
    )


def is_participle(name: str) -> bool:
    """Return whether a function is named by a bare participle: `told`, `made`, `counted`."""
    return name in IRREGULAR or bool(re.fullmatch(r"[a-z]+[^e]ed", name))


def has_sql(tree: ast.AST) -> bool:
    """Return whether any text in the code, docstrings apart, is a statement of SQL."""
    parts = (n.value for n in ast.walk(tree) if isinstance(n, ast.Constant))
    return any(isinstance(part, str) and SQL.search(part) for part in parts)


def find_circles(package: Path, depth: int | None = None) -> list[list[str]]:
    """Return the groups of modules that import one another, for type checkers alone too.

    With `depth` 2 the folders below the package count, each as one.
    """
    import networkx

    graph = networkx.DiGraph()
    for path in package.rglob("*.py"):
        name = _dotted(path, package).split(".")
        for other in _imports(path, package):
            graph.add_edge(".".join(name[:depth]), ".".join(other.split(".")[:depth]))
    graph.remove_nodes_from([package.name])  # the public surface, which loads what is used
    return [sorted(c) for c in networkx.strongly_connected_components(graph) if len(c) > 1]


def _imports(path: Path, package: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(package.name):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if _is_module(whole, package) else str(node.module)


def _is_module(dotted: str, package: Path) -> bool:
    path = package.parent.joinpath(*dotted.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def _dotted(path: Path, package: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _format(value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.1%}" if value < 1 else f"{value:.1f}"
