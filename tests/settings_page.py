"""docs/settings.md, made of the settings' own fields: `python tests/settings_page.py` writes it."""

from pathlib import Path

from culturepark.options import write_table
from culturepark.settings import Endpoint, Refining, Settings, Split
from culturepark.training.recipe import Recipe

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"
INTRO = """# Settings

What a run is told to do: by options, in a `--config FILE` or in `culturepark.toml` ([Real models](models.md#settings)), and from Python
(`cp.run("mine", dialogues=4)`). It is frozen in the run's `run.toml`. ° says how much there will be, * how the work is done: neither
changes what is said, and a * may change while a run goes on.

This page is made of the fields themselves: `python tests/settings_page.py`.
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
