"""docs/settings.md, made of the settings' own fields: `python tests/settings_page.py` writes it."""

from pathlib import Path

from culturepark.options import write_table
from culturepark.settings import Endpoint, Refining, Settings, Split
from culturepark.training.recipe import Recipe

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"
INTRO = """# Settings

All settings of a run. Set them with options, in a `--config FILE`, in `culturepark.toml`
([Real models](models.md#settings)), or from Python (`cp.run("mine", dialogues=4)`). CulturePark
freezes them in the run's `run.toml`.

- ° marks a setting for the amount of work, * one for how the work is done. Neither changes what is
  said.
- A setting marked * may change while a run continues.

`python tests/settings_page.py` generates this page from the fields themselves.
"""
PARTS = (
    ("A run", Settings),
    ("`[refine]`", Refining),
    ("`[split]`", Split),
    ('`[endpoints."PROVIDER/NAME"]`', Endpoint),
    ("A tuning job (`tune.toml`)", Recipe),
)


def make_page():
    """The page as it should be."""
    return "\n".join([INTRO, *(f"## {title}\n\n{write_table(model)}" for title, model in PARTS)])


if __name__ == "__main__":
    PAGE.write_text(make_page(), encoding="utf-8")
