"""Everything that has a short name is loaded by it, or by `package.module:NAME`."""

import pytest
from conftest import TEA

import culturepark as cp
from culturepark import registry
from culturepark.errors import InputError
from culturepark.providers import PROVIDERS
from culturepark.registry import Registry

REGISTRIES = [
    *(value for value in vars(registry).values() if isinstance(value, Registry)),
    PROVIDERS,
]
every = pytest.mark.parametrize("things", REGISTRIES, ids=lambda r: r.kind)


@every
def test_every_short_name_stands_for_a_thing_of_its_kind(things):
    assert len(things) and all(things.load(name) is things[name] for name in things)


@every
def test_an_unknown_name_comes_with_the_nearest_and_with_the_way_to_ones_own(things):
    known = next(iter(things))
    with pytest.raises(InputError, match=f"^here: no {things.kind} '{known}x'") as told:
        things.load(f"{known}x", "here: ")
    assert f"Did you mean {known!r}" in str(told.value) and "package.module:NAME" in str(told.value)


@every
def test_one_of_your_own_is_loaded_by_the_name_of_its_module(things, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"own_{things.kind.replace(' ', '_')}"
    path = tmp_path / f"{name}.py"
    path.write_text("import culturepark.registry as r, culturepark.providers as p\n")
    with path.open("a") as file:
        file.write(f"every = [*vars(r).values(), p.PROVIDERS]\nKIND = {things.kind!r}\n")
        file.write(
            "MINE = next(next(iter(v.values())) for v in every if getattr(v, 'kind', 0) == KIND)\n"
        )
    assert things.load(f"{name}:MINE") is next(iter(things.values()))
    for wrong, why in ((f"{name}:KIND", f"is no {things.kind}"), (f"{name}:GONE", "cannot import")):
        with pytest.raises(InputError, match=why):
            things.load(wrong)


def test_a_module_that_is_not_found_comes_with_the_way_to_one_in_this_folder():
    with pytest.raises(InputError, match=r"PYTHONPATH=\."):
        registry.FILTERS.load("nowhere_at_all:mine")


def test_a_format_of_your_own_is_exported_like_ours(park, monkeypatch):
    (park / "lines.py").write_text(
        "from culturepark.corpora.formats import WHOLE, Format, splits\ndef write(source,"
        " folder):\n    row = lambda s: {'asks': s.prompt, 'says': s.completion}\n    return"
        " {WHOLE: splits(folder, '{split}.jsonl', lambda s: map(row, source.samples(s)))}\nLINES ="
        " Format(write, 'samples', about='Plain lines.')\n"
    )
    monkeypatch.syspath_prepend(str(park))
    run = cp.run("own", TEA, formats=("lines:LINES",))
    assert '"asks"' in (run.corpus / "lines.LINES/train.jsonl").read_text()
    assert "Plain lines." in (run.corpus / "lines.LINES/README.md").read_text()


def test_a_provider_of_your_own_is_named_before_its_model(tmp_path, monkeypatch):
    (tmp_path / "clouds.py").write_text(
        "from culturepark.providers import Provider\n"
        "ACME = Provider('http://127.0.0.1:9/v1', 'ACME_API_KEY')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("ACME_API_KEY", "secret-of-acme")
    line = cp.model("clouds:ACME/llama-70b")
    assert line.model == "llama-70b"
    assert line.identity == "clouds:ACME/llama-70b@http://127.0.0.1:9/v1"
