"""The house: imports run down only, the command starts light, prompts live in cards."""

import ast
import re
import subprocess
import sys
import tomllib
from collections import Counter
from graphlib import TopologicalSorter
from itertools import chain

import pytest
from conftest import ROOT

import culturepark as cp
from benchmarks.shape import is_participle

PACKAGE = ROOT / "culturepark"
MODULES = sorted(PACKAGE.rglob("*.py"))
# A room imports from rows above its own, never from one beside it: each list of names is a row.
ROWS = """
    _version errors options
    atomic cache events keys markdown records registry
    providers sandbox tables toml wording
    prompts surveys workspace
    context settings
    executor store
    local_models logs
    llm
    corpora curation dialogue evaluation forecast runs training
    offline reports serving
    testing
    pipeline
    api
    cli
    __init__ __main__
"""
ROW = {room: n for n, row in enumerate(ROWS.split("\n")) for room in row.split()}
HEAVY = set(
    "accelerate aiohttp datasets inspect_ai litellm networkx numpy openai opentelemetry pandas peft"
    " psutil pyarrow ray sklearn tokenizers torch transformers trl".split()
)
# Participles that are adjectives or nouns where they stand.
ADJECTIVES = {"culturepark.api.tuning.hosted"}
INSPECTS = {"tasks.py", "provider.py"}  # what Inspect itself loads, and nobody else at start


def name_module(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


TREES = {name_module(path): ast.parse(path.read_text()) for path in MODULES}


def find_imports(node):
    """Yield our modules that are imported, in functions too; not those for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.Import):
            yield from TREES.keys() & {alias.name for alias in child.names}
        elif isinstance(child, ast.ImportFrom):
            inner = [f"{child.module}.{alias.name}" for alias in child.names]
            yield from TREES.keys() & {n if n in TREES else child.module for n in inner}
        else:
            yield from find_imports(child)


def name_room(module):
    return (*module.split("."), "__init__")[1]


def test_imports_run_down_only_and_never_to_a_room_beside():
    pairs = [(name, other) for name, tree in TREES.items() for other in find_imports(tree)]
    rooms = [(a, b) for a, b in pairs if name_room(a) not in (name_room(b), "__init__")]
    assert [(a, b) for a, b in rooms if ROW[name_room(a)] <= ROW[name_room(b)]] == []


def test_no_modules_import_one_another_in_a_circle():
    graph = {name: set(find_imports(tree)) - {name, "culturepark"} for name, tree in TREES.items()}
    TopologicalSorter(graph).prepare()  # CycleError names the circle


def test_no_module_loads_anything_heavy_and_each_says_what_it_is_for():
    heavy = []
    for path in MODULES:
        tree = TREES[name_module(path)]
        nodes = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
        names = chain.from_iterable([a.name for a in n.names] for n in nodes if hasattr(n, "names"))
        loaded = {*names, *(getattr(n, "module", "") or "" for n in nodes)}
        allowed = {"inspect_ai"} if path.name in INSPECTS else set()
        heavy += [(path.name, n) for n in loaded if n.split(".")[0] in HEAVY - allowed]
    assert heavy == []
    assert [name for name, tree in TREES.items() if not ast.get_docstring(tree)] == []


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


def test_no_function_is_named_by_a_bare_participle_and_none_is_long():
    bare, long = [], []
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                place = f"{module}.{node.name}"
                bare += [place] * is_participle(node.name.strip("_"))
                long += [place] * (node.end_lineno - node.lineno >= 60)
    assert (sorted(set(bare) - ADJECTIVES), long) == ([], [])


def test_no_class_name_stands_for_two_classes():
    classes = [
        node.name
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    ]
    assert sorted(name for name, count in Counter(classes).items() if count > 1) == []


def test_layout_is_the_formatters():
    texts = [
        path.read_text()
        for folder in ("culturepark", "tests")
        for path in (ROOT / folder).rglob("*.py")
    ]
    assert not [text for text in texts if re.search(r"#\s*fmt: " + "(skip|off)", text)]
