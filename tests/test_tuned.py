"""The page of a tuning job: figures as they were kept, harm told in plain words, what is missing
never zero.
"""

import json
import re

import pytest
from conftest import TEA
from test_reports import Tags

import culturepark as cp
from culturepark.reports import tuned
from culturepark.training.matrix import Matrix

NAN, INF = float("nan"), float("inf")
ABOUT = {
    "kind": "adapter",
    "base": "tiny",
    "base_hash": "71023084",
    "base_licence": "apache-2.0",
    "objective": "sft",
    "corpus": "tea/trl",
    "corpus_hash": "6abee9d6",
    "machine": "CPU, 2 cores",
    "versions": {"torch": "2.13.0"},
    "created": "2026-11-25T06:10:40+00:00",
    "rows": {"train": 359, "validation": 50},
    "settings": {"method": "lora", "epochs": 3.0, "patience": 2, "cultures": []},
}
BEFORE = {"base_accuracy": 0.6, "base_margin": 0.1, "base_chosen": -1.5, "base_rejected": -1.6}
BETTER = {"accuracy": 0.7, "margin": 0.4, "chosen": -1.4, "rejected": -1.8, "kl": 0.2}
LOSSES = (
    {"loss": 3.0, "step": 4},
    {"loss": 2.0, "step": 8},
    {"eval_loss": 2.5, "step": 8},
    {"loss": 1.0, "step": 12},
    {"eval_loss": 2.4, "step": 12, "epoch": 3.0},
    {"train_runtime": 9.0, "step": 12, "epoch": 3.0},
)


def model(place, called="north", losses=LOSSES, **changes):
    folder = place / called
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({**ABOUT, "name": folder.name, **changes}))
    if losses is not None:
        (folder / "curves.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in losses))
    return folder


def gather(place, *names, **changes):
    return tuned.gather_facts(
        place, [model(place, name, **changes) for name in names or ("north",)]
    )


def pairs(place, objective="dpo", **scores):
    facts = gather(place, objective=objective, scores={**BEFORE, **BETTER, **scores})
    return facts["judged"][0], tuned.render_page(facts)


def matrix(place, **changes):
    made = Matrix(
        cultures=("north", "south"),
        models=("north", "south", "base"),
        likelihood=((-1.0, -2.0, -3.0), (-1.5, -1.4, -1.2)),
        accuracy=((0.75, 0.25, 0.5), (0.5, 0.5, 0.25)),
        recognised=(0.75, 0.5),
        n=(4, 8),
    )
    place.mkdir(exist_ok=True)
    (place / "matrix.json").write_text(json.dumps(made.model_dump() | changes))
    return made


def test_a_model_is_told_as_it_was_kept(tmp_path):
    facts = gather(tmp_path / "sft", "north", "south")
    row = facts["models"][0]
    assert (row["train"], row["validation"], row["steps"], row["loss"]) == (359, 50, 12, 1.0)
    assert (row["eval_loss"], row["best_step"], row["stopped"]) == (2.4, 12, "no")
    page = tuned.render_page(facts)
    for said in (
        "<bdi>sft</bdi>",
        "supervised fine-tuning",
        "tiny 71023084",
        "6abee9d6",
        "torch 2.13.0",
        "apache-2.0",
    ):
        assert said in page


def test_the_same_inputs_give_the_same_bytes_and_nothing_half_written(tmp_path):
    folders = [model(tmp_path, name) for name in ("north", "south")]
    matrix(tmp_path)
    first = tuned.write_report(tmp_path, folders).read_bytes()
    assert tuned.write_report(tmp_path, folders).read_bytes() == first
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "matrix.json",
        "north",
        "report.html",
        "south",
    ]


def test_a_page_that_cannot_be_written_and_models_that_are_none_are_told(tmp_path):
    folder = model(tmp_path)
    (tmp_path / "report.html").mkdir()
    with pytest.raises(cp.ParkError, match="cannot write the report"):
        tuned.write_report(tmp_path, [folder])
    assert not (tmp_path / "report.html.partial").exists()
    for none in ([], [tmp_path / "nowhere"]):
        with pytest.raises(cp.InputError, match="no tuned model"):
            tuned.write_report(tmp_path, none)


def test_what_a_name_says_cannot_break_out_of_the_page(tmp_path):
    evil = "</title></svg><script>alert(1)</script><img src=x onerror=alert(1)>\"'"
    scores = {**BEFORE, **BETTER, "chosen": -2.0}
    folders = [
        model(
            tmp_path,
            str(n),
            name=evil,
            objective=o,
            corpus=evil,
            machine=evil,
            settings={evil: evil},
            scores=scores,
        )
        for n, o in enumerate(("dpo", evil))
    ]
    matrix(tmp_path, cultures=(evil, "south"), models=(evil, "south", "base"))
    page = tuned.render_page(tuned.gather_facts(tmp_path, folders))
    assert "&lt;script&gt;" in page and not re.search(r"<script|<img", page)


def test_the_page_takes_nothing_from_outside_and_is_well_formed(tmp_path):
    matrix(tmp_path)
    page = tuned.render_page(
        gather(
            tmp_path,
            "north",
            "south",
            objective="dpo",
            scores={**BEFORE, **BETTER, "accuracy": 0.5},
        )
    )
    tags = Tags(page)
    assert not tags.open and not re.search(r"url\(|@import|<(script|link|img|iframe|object)", page)
    links = [
        v
        for _, k, v in tags.attributes
        if k in ("src", "href", "srcset", "action", "data", "style")
    ]
    ids = [v for _, k, v in tags.attributes if k == "id"]
    assert (
        len(ids) == len(set(ids))
        and {v[1:] for v in links} <= set(ids)
        and all(v.startswith("#") for v in links)
    )
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in page
    assert tags.headings[0] == 1 and all(
        b - a <= 1 for a, b in zip(tags.headings, tags.headings[1:], strict=False)
    )


def test_every_model_has_a_plot_on_the_same_axes_with_its_best_check_marked(tmp_path):
    later = [e | {"step": 2 * e["step"]} for e in LOSSES]
    folders = [model(tmp_path), model(tmp_path, "south", later)]
    facts = tuned.gather_facts(tmp_path, folders)
    assert [label for _, label in facts["axes"]["x"]][-1] == "30" and facts["axes"]["y"][0][
        1
    ] == "1"
    north, south = facts["charts"]
    assert north["points"][1] == north["best"] and float(south["best"][0]) > float(north["best"][0])
    page = tuned.render_page(facts)
    assert (
        page.count('class="plot"') == page.count('class="best"') - 1 == 2
    )  # and one in the legend
    assert "validation loss at best 2.400 at step 12" in page


def test_a_loss_that_is_no_number_is_a_gap_and_said(tmp_path):
    odd = (
        {"loss": 3.0, "step": 4},
        {"loss": NAN, "step": 8},
        {"loss": 2.0, "step": 12},
        {"eval_loss": INF, "step": 12},
    )
    facts = gather(tmp_path, losses=odd)
    assert facts["charts"][0]["line"].count("M") == 2 and not facts["charts"][0]["points"]
    page = tuned.render_page(facts)
    assert (
        "The training loss is not a finite number at 1 of 3 logged steps, first at step 8" in page
    )
    assert "The validation loss is not a finite number at 1 of 1" in page
    assert facts["models"][0]["eval_loss"] is None and not re.search(r"\b(nan|inf)\b", page)


def test_a_run_that_ended_in_no_number_is_not_finite_rather_than_unknown(tmp_path):
    page = tuned.render_page(
        gather(tmp_path, losses=({"loss": NAN, "step": 8},), scores={"loss": 2.0})
    )
    assert '<td class="n">not finite</td>' in page and "there is no curve to draw" in page


def test_a_spike_is_drawn_at_the_end_of_the_axis_and_said(tmp_path):
    facts = gather(tmp_path, losses=(*LOSSES, {"loss": 900.0, "step": 16}))
    assert facts["axes"]["high"] <= 5 and facts["charts"][0]["line"].endswith("20.0")
    assert "1 of the losses, up to 900.000" in tuned.render_page(facts)


def test_what_is_missing_is_a_dash_and_never_zero(tmp_path):
    page = tuned.render_page(gather(tmp_path, losses=None, rows={}, settings={}))
    assert re.search(r"<bdi>north</bdi></th>(<td class=\"n\">–</td>){6}<td>–</td>", page)
    assert (
        "There is no curves.jsonl" in page
        and "<div><dt>best validation loss, mean over models</dt><dd>–" in page
    )
    (tmp_path / "north" / "curves.jsonl").write_text('{"loss": 2.0, "step": 4}\n{"loss": 1')
    assert "cannot be read: 1." in tuned.render_page(
        tuned.gather_facts(tmp_path, [tmp_path / "north"])
    )


@pytest.mark.parametrize(
    "settings, told",
    [
        ({"epochs": 3.0}, "no"),
        ({"epochs": 8.0}, "step 12, epoch 3 of 8"),
        ({"epochs": 8.0, "steps": 12}, "no"),
        ({"epochs": 1.0, "steps": 40}, "step 12 of 40"),
        ({}, None),
    ],
)
def test_where_it_stopped_early(tmp_path, settings, told):
    assert gather(tmp_path, settings=settings)["models"][0]["stopped"] == told


def test_a_preference_run_that_helped_is_not_warned_of(tmp_path):
    judged, page = pairs(tmp_path)
    assert not judged["warnings"] and not judged["worse"]
    assert "None of the figures above says that a model became worse" in page and "−1.400" in page


@pytest.mark.parametrize(
    "objective, scores, worse, said",
    [
        (
            "dpo",
            {"accuracy": 0.45},
            True,
            "This run made the model worse by 15.0 points of accuracy (60.0% before, 45.0% after).",
        ),
        ("orpo", {"accuracy": 0.6}, False, "Accuracy did not rise (60.0% before and after)"),
        (
            "dpo",
            {"chosen": -1.75},
            False,
            "The chosen answers became less likely, by 0.250 nats per token",
        ),
        ("dpo", {"kl": 1.25}, False, "The model is 1.25 nats per token from its base, more than 1"),
        (
            "kto",
            {"base_accuracy": NAN, "accuracy": NAN, "margin": 0.02},
            True,
            "The model is broken",
        ),
        ("dpo", {"base_accuracy": 1.0, "accuracy": 1.0}, False, None),
        (
            "dpo",
            {"base_accuracy": 1.0, "accuracy": 1.0, "margin": 0.02},
            True,
            "worse by 0.080 nats per token of margin",
        ),
    ],
)
def test_harm_is_told_in_plain_words(tmp_path, objective, scores, worse, said):
    judged, page = pairs(tmp_path, objective, **scores)
    assert judged["worse"] is worse and ("1 of 1 models became worse" in page) is worse
    assert (not judged["warnings"]) if said is None else said in page


def test_marked_answers_without_partners_are_judged_by_their_margin(tmp_path):
    scores = {
        "base_chosen": -1.5,
        "base_rejected": -1.6,
        "base_margin": 0.1,
        "chosen": -1.5,
        "rejected": -1.45,
        "margin": -0.05,
    }
    facts = gather(tmp_path, objective="kto", scores=scores)
    assert facts["judged"][0]["warnings"] == [
        "This run made the model worse by 0.150 nats per token of margin (0.100 before, −0.050"
        " after)."
    ]
    assert re.search(
        r'<bdi>north</bdi></th><td class="n">–</td><td class="n">–</td><td class="n">0.100',
        tuned.render_page(facts),
    )


def test_a_preference_run_that_nobody_judged_is_unknown_and_not_fine(tmp_path):
    page = tuned.render_page(gather(tmp_path, objective="dpo"))
    assert "Whether it is better or worse is unknown" in page and "None of the figures" not in page


def test_the_matrix_marks_own_cells_and_counts_who_is_ahead(tmp_path):
    made = matrix(tmp_path)
    facts = gather(tmp_path, "north", "south")
    ahead = facts["matrix"]["ahead"]
    for table in ("likelihood", "accuracy"):
        assert (ahead[table]["beats"], ahead[table]["margin"]) == (
            made.own(table),
            pytest.approx(made.margin(table)),
        )
    page = tuned.render_page(facts)
    assert page.count(' own">◆ ') == 4 and '<td class="n h5 own">◆ −1.000</td>' in page
    assert (
        "For 2 of 2 cultures their own model finds their answers likelier than all other tuned ones"
        in page
    )
    assert (
        "likelier than the base for 1 of 2" in page
        and "For 1 of 2 cultures their own model picks" in page
    )
    assert "62% of rows were recognised" in page and "by chance it would be 50%" in page


def test_a_matrix_without_own_models_or_with_holes_claims_nothing(tmp_path):
    pooled = {
        "models": ["pooled", "base"],
        "likelihood": [[-1, None], [-2, -1]],
        "accuracy": [[0.5, 0.5], [0.2, 0.1]],
    }
    matrix(tmp_path, **pooled)
    facts = gather(tmp_path, "pooled")
    page = tuned.render_page(facts)
    assert "No culture has a model of its own" in page and '<td class="n h0">–</td>' in page
    assert facts["matrix"]["recognised"] is None and "were recognised" not in page


def test_a_matrix_of_other_models_or_none_at_all_is_said(tmp_path):
    matrix(tmp_path)
    assert "The matrix was made of other models" in tuned.render_page(gather(tmp_path))
    (tmp_path / "matrix.json").write_text('{"cultures": ["north"]')
    page = tuned.render_page(tuned.gather_facts(tmp_path, [tmp_path / "north"]))
    assert "matrix.json cannot be read" in page and "Likelihood:" not in page


def test_the_matrix_is_told_in_the_terminal_too(tmp_path):
    lines = matrix(tmp_path).format_table().splitlines()
    assert lines[1].split() == ["north", "-1.000*", "-2.000", "-3.000", "4"]
    assert lines[-3:] == [
        "accuracy    own model 62%, other tuned ones 38%, base 38%",
        "recognised  62% of rows, by chance 50%",
        (
            "own         ahead of all other tuned ones for 2 of 2 cultures by likelihood, 1 by"
            " accuracy"
        ),
    ]
    pooled = Matrix(
        cultures=("north",),
        models=("pooled", "base"),
        likelihood=((-1.0, -2.0),),
        accuracy=((0.5, 0.25),),
        recognised=(0.0,),
        n=(4,),
    )
    assert (
        "no culture has a model of its own" in pooled.format_table()
        and "pooled 50%, base 25%" in pooled.format_table()
    )


def test_folders_stay_here(tmp_path):
    home = "/home/me/private/llama-small"
    page = tuned.render_page(
        gather(
            tmp_path, base=home, corpus=home, settings={"base": home, "paths": ["C:\\me\\x.bin"]}
        )
    )
    assert "llama-small" in page and "/home/me" not in page and "C:\\me" not in page


def test_a_runs_report_lists_its_tuned_jobs_and_is_the_same_without(park):
    run = cp.run(
        "r", {**TEA, "model": "conftest:Plays", "dialogues": 2, "turns": 2}, formats=("trl",)
    )
    before = (run.folder / "report" / "report.html").read_bytes()
    (run.folder / "models" / "begun" / ".north.partial").mkdir(parents=True)
    (run.folder / "models" / "begun" / ".north.partial" / "manifest.json").write_text("{}")
    assert cp.report(run).read_bytes() == before and b"Tuned models" not in before
    place = run.folder / "models" / "sft"
    tuned.write_report(
        place,
        [model(place, n, scores={"eval_loss": v}) for n, v in (("north", 2.0), ("south", 2.5))],
    )
    hosted = run.folder / "models" / "hosted" / "north" / "manifest.json"
    hosted.parent.mkdir(parents=True)
    hosted.write_text(
        json.dumps({"kind": "hosted", "method": "supervised", "base": "gpt-4.1-nano"})
    )
    page = cp.report(run).read_text()
    assert '<a href="../models/sft/report.html"><bdi>sft</bdi></a></th><td>sft</td>' in page
    assert '<td class="n">2</td><td class="n">2.250</td>' in page
    assert (
        "<bdi>hosted</bdi></th><td>supervised</td>" in page
        and '<td class="n">1</td><td class="n">–</td>' in page
    )
    assert (cp.report(run).parent / "../models/sft/report.html").resolve() == (
        place / "report.html"
    ).resolve()
