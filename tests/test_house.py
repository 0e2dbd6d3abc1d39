"""The house: imports run one way, the command starts light, prompts live in cards."""

import ast
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter

import pytest
from conftest import ROOT

import culturepark as cp

PACKAGE = ROOT / "culturepark"
ROWS = [
    {"_version", "records", "errors", "toml", "cache", "registry"},
    {
        "atomic",
        "providers",
        "secrets",
        "prompts",
        "sandbox",
        "workspace",
        "store",
        "llm",
        "surveys",
        "settings",
        "executor",
        "local_models",
        "wording",
        "context",
        "markdown",
        "tables",
    },
    {
        "dialogue",
        "curation",
        "corpora",
        "training",
        "evaluation",
        "reports",
        "runs",
        "logs",
        "forecast",
    },
    {"offline"},
    {"serving"},
    {"testing"},
    {"api"},
    {"cli", "__main__", "__init__"},
]
HEAVY = {
    "litellm",
    "aiohttp",
    "opentelemetry",
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "tokenizers",
    "datasets",
    "psutil",
    "pyarrow",
    "ray",
    "networkx",
    "openai",
    "sklearn",
    "numpy",
    "pandas",
    "inspect_ai",
}
WHOLE = {"tasks.py"}  # what Inspect itself loads, and nobody else at start


def imports(path, top_only):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree) if not top_only else tree.body:
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (
                [f"{node.module}.{a.name}" for a in node.names]
                if node.module == "culturepark"
                else [node.module]
            )


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way_and_stages_never_import_one_another(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    row = next(i for i, r in enumerate(ROWS) if room in r)
    for name in imports(path, top_only=room == "__init__"):
        parts = name.split(".")
        if parts[0] == "culturepark" and len(parts) > 1 and parts[1] != room:
            other = next(i for i, r in enumerate(ROWS) if parts[1] in r)
            same_row_is_fine = row in (0, 1, 7) or room == "reports"
            assert other < row or (other == row and same_row_is_fine), f"{room} imports {parts[1]}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_module_imports_anything_heavy_when_loaded_and_each_says_what_it_is_for(path):
    heavy = HEAVY - {"inspect_ai"} if path.name in WHOLE else HEAVY
    assert not {n.split(".")[0] for n in imports(path, top_only=True)} & heavy
    assert ast.get_docstring(ast.parse(path.read_text()))


NAMES = {
    ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for p in MODULES
}
# settings checks addresses by the rules of llm, which reads its endpoints from settings
KNOWN_CIRCLE = ("culturepark.settings", "culturepark.llm")


def executed_imports(node):
    """Yield our modules that are imported, in functions too; not those for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.Import):
            yield from NAMES & {alias.name for alias in child.names}
        elif isinstance(child, ast.ImportFrom):
            inner = [f"{child.module}.{alias.name}" for alias in child.names]
            yield from NAMES & {name if name in NAMES else child.module for name in inner}
        else:
            yield from executed_imports(child)


def import_graph():
    for path in MODULES:
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        found = set(executed_imports(ast.parse(path.read_text()))) - {name}
        yield name, {n for n in found if (name, ".".join(n.split(".")[:2])) != KNOWN_CIRCLE}


def test_no_modules_import_one_another_in_a_circle():
    TopologicalSorter(dict(import_graph())).prepare()  # CycleError names the circle


def test_no_rooms_import_one_another_in_a_circle():
    rooms = {}
    for name, found in import_graph():
        room = (*name.split("."), "")[1]
        others = {(*n.split("."), "")[1] for n in found}
        rooms.setdefault(room, set()).update(others - {room})
    TopologicalSorter(rooms).prepare()


def test_no_sql_stands_outside_the_store():
    sql = re.compile(r"\b(SELECT|INSERT|UPDATE|DELETE FROM|PRAGMA|SAVEPOINT)\b")
    rooms = [path for path in MODULES if path.relative_to(PACKAGE).parts[0] != "store"]
    assert [p.name for p in rooms if sql.search(p.read_text())] == []


def test_help_loads_none_of_it():
    code = (
        "import sys; from culturepark.cli import cli; print(sorted({m.split('.')[0] for m in"
        " sys.modules}))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert not [m for m in (*HEAVY, "pydantic", "jinja2", "rich") if f"'{m}'" in loaded]


def test_the_public_surface_is_what_it_says():
    assert all(getattr(cp, name) is not None for name in cp.__all__) and set(cp.__all__) <= set(
        dir(cp)
    )
    with pytest.raises(AttributeError, match="nothing_here"):
        cp.nothing_here  # noqa: B018


def test_a_room_that_the_docs_named_is_still_found_under_its_old_name():
    with pytest.warns(DeprecationWarning, match=r"culturepark\.surveys"):
        from culturepark import grounding
    with pytest.warns(DeprecationWarning, match="load_shipped"):
        assert grounding.shipped().get("CHN", "Q33")


def test_data_folders_are_cards_only_and_the_wheel_ships_them():
    shipped = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"][
        "targets"
    ]["wheel"]["force-include"]
    assert set(shipped) == {"agents", "personas", "scenarios"}
    assert {p.suffix for f in shipped for p in (ROOT / f).rglob("*") if p.is_file()} == {".toml"}


def test_prompts_live_in_cards_not_in_code():
    text = "\n".join(p.read_text() for p in (PACKAGE / "dialogue").glob("*.py"))
    assert "You are" not in text
