"""Hosted fine-tuning over real HTTP: what is planned is told, paid for once, followed to its end,
and seated.
"""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time

import openai
import pytest
from click.testing import CliRunner
from conftest import TEA
from test_batch import Front

import culturepark as cp
from culturepark.cli.hosted import tune_hosted as command
from culturepark.errors import BudgetReached, InputError, Locked, ModelError, RunFailed
from culturepark.testing.server import Server
from culturepark.training import hosted
from culturepark.training.hosted.quote import clean_name, format_plan

KEY = "sk-secret-0123456789"
BASE = "openai/embedded"
CHILD = """
import asyncio, sys
from culturepark.training import hosted
hosted.POLL = 0.05
made = hosted.plan(sys.argv[1], "openai/embedded", base_url=sys.argv[2])
asyncio.run(hosted.tune(made, sys.argv[3], lambda culture, text: print(culture, text, flush=True)))
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Short waits, and a key."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(hosted, "POLL", 0.02)
    monkeypatch.setattr("culturepark.training.hosted.service.JITTER", lambda state: 0.02)


def chat(n, culture="north", **more):
    said = [
        ("system", f"You are from {culture}."),
        ("user", f"What of tea {n}?"),
        ("assistant", f"It is good, say {n}."),
    ]
    return {"messages": [{"role": role, "content": text} for role, text in said]} | more


def pair(n, culture="north"):
    *asked, answer = chat(n, culture)["messages"]
    other = [{"role": "assistant", "content": "It is bad."}]
    return {
        "input": {"messages": asked},
        "preferred_output": [answer],
        "non_preferred_output": other,
    }


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture
def corpus(tmp_path):
    """Two cultures, twelve rows to train on and three to validate with."""
    for culture in ("north", "south"):
        folder = tmp_path / "corpus" / culture
        folder.mkdir(parents=True)
        (folder / "train.jsonl").write_bytes(lines(chat(n, culture) for n in range(12)))
        (folder / "validation.jsonl").write_bytes(lines(chat(n, culture) for n in range(12, 15)))
    return tmp_path / "corpus"


@pytest.fixture
def front():
    """Start a front before a server."""
    fronts = []

    def start(behind, alter):
        fronts.append(Front(behind, alter))
        return fronts[-1]

    yield start
    for made in fronts:
        made.http.shutdown()
        made.http.server_close()


def sent(server, path):
    return [s for s in server.seen if s["path"] == f"/v1/{path}"]


def started(server):
    return sent(server, "fine_tuning/jobs")


def child(corpus, url, out):
    """Tune in another process."""
    arguments = [sys.executable, "-c", CHILD, str(corpus), url, str(out)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


# ------------------------------------------------------------------ the server


def file(client, rows):
    return client.files.create(file=("rows.jsonl", lines(rows)), purpose="fine-tune").id


def ended(client, job):
    while job.status not in ("succeeded", "failed", "cancelled"):
        time.sleep(0.02)
        job = client.fine_tuning.jobs.retrieve(job.id)
    return job


def job(client, rows, **how):
    return ended(
        client,
        client.fine_tuning.jobs.create(model="embedded", training_file=file(client, rows), **how),
    )


@pytest.fixture(scope="module")
def client():
    with (
        Server() as server,
        openai.OpenAI(api_key="any", base_url=server.url, max_retries=0) as made,
    ):
        yield made


def test_a_job_is_what_the_sdk_reads_and_its_model_answers(client):
    how = {
        "type": "supervised",
        "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 4}},
    }
    done = job(
        client,
        map(chat, range(12)),
        method=how,
        suffix="tea",
        metadata={"run": "x"},
        seed=7,
        validation_file=file(client, [chat(20)]),
    )
    assert (done.status, done.seed, done.metadata, done.error) == (
        "succeeded",
        7,
        {"run": "x"},
        None,
    )
    assert (
        done.fine_tuned_model == f"ft:embedded:org:tea:{done.id.removeprefix('ftjob-')}"
        and done.trained_tokens > 200
    )
    assert (
        done.method.supervised.hyperparameters.learning_rate_multiplier == 1.8 and done.finished_at
    )
    assert done.fine_tuned_model in [m.id for m in client.models.list()]
    said = client.chat.completions.create(
        model=done.fine_tuned_model, messages=chat(1)["messages"][:2]
    )
    assert (
        "templated text" in said.choices[0].message.content and said.model == done.fine_tuned_model
    )
    table = client.files.content(done.result_files[0]).text.splitlines()
    assert (
        table[0] == "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"
        and len(table) == 1 + 2 * 3
    )


def test_jobs_events_and_checkpoints_come_in_pages(client):
    done = job(client, map(chat, range(12)), metadata={"page": "1"})
    events = list(client.fine_tuning.jobs.list_events(done.id, limit=3))
    assert (
        len(events) == len({e.id for e in events}) > 20
        and events[-1].message == f"Created fine-tuning job: {done.id}"
    )
    steps = [e for e in events if e.type == "metrics"]
    assert steps[0].data["step"] == 36 and all(
        "made up: this server does not train" in e.message for e in steps
    )
    kept = list(client.fine_tuning.jobs.checkpoints.list(done.id, limit=1))
    assert [c.step_number for c in kept] == [36, 24, 12] and kept[
        1
    ].fine_tuned_model_checkpoint.endswith(":ckpt-step-24")
    assert (
        kept[0].fine_tuned_model_checkpoint == done.fine_tuned_model
        and kept[0].metrics.train_loss > 0
    )
    assert [j.id for j in client.fine_tuning.jobs.list(metadata={"page": "1"})] == [done.id]
    assert done.id in [j.id for j in client.fine_tuning.jobs.list(limit=1)]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (
            {"messages": chat(1)["messages"][:2]},
            "Line 11: the last message must be from the assistant",
        ),
        (chat(1, metadata={}), "Line 11: unknown key 'metadata'"),
        (
            {"messages": [{"role": "cook", "content": "x"}]},
            r"Line 11: 'messages\[0\].role' is 'cook'",
        ),
        (
            {"messages": [{"role": "assistant", "content": "x", "weight": 2}]},
            r"'messages\[0\].weight' is 2",
        ),
        (
            {"messages": [{"role": "assistant", "content": "x", "weight": 0}]},
            "at least one .* must have weight 1",
        ),
        (["no", "object"], "Line 11: it is no JSON object"),
        (None, "Training file has 9 example"),
    ],
)
def test_a_job_with_a_bad_file_fails_and_names_the_line(client, bad, why):
    rows = map(chat, range(9)) if bad is None else [*map(chat, range(10)), bad]
    failed = job(client, rows)
    assert (
        failed.status == "failed"
        and failed.fine_tuned_model is None
        and failed.error.param == "training_file"
    )
    assert re.search(why, failed.error.message), failed.error.message


def test_a_preference_is_one_answer_against_another_and_what_cannot_be_is_refused(client):
    how = {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2, "n_epochs": 1}}}
    done = job(client, map(pair, range(10)), method=how)
    assert done.status == "succeeded" and done.method.dpo.hyperparameters.beta == 0.2
    both = pair(1) | {"preferred_output": pair(1)["preferred_output"] * 2}
    failed = job(client, [*map(pair, range(10)), both], method=how)
    assert "Line 11: 'preferred_output' is no array of one message" in failed.error.message
    known = file(client, map(chat, range(10)))
    for wrong, param in (
        ({"model": "gpt-9"}, "model"),
        ({"suffix": "x" * 65}, "suffix"),
        ({"training_file": "file-9"}, "training_file"),
        ({"method": {"type": "reinforcement"}}, "method.type"),
        ({"metadata": {"a": "x" * 513}}, "metadata"),
        ({"hyperparameters": {"n_epochs": 99}}, "method.supervised.hyperparameters.n_epochs"),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            client.fine_tuning.jobs.create(**{"model": "embedded", "training_file": known} | wrong)
        assert caught.value.param == param
    with pytest.raises(openai.NotFoundError, match="Could not find fine tune: ftjob-9"):
        client.fine_tuning.jobs.retrieve("ftjob-9")


def test_a_job_takes_its_time_and_is_cancelled(client):
    with Server(tune_seconds=30) as slow, openai.OpenAI(api_key="any", base_url=slow.url) as other:
        made = other.fine_tuning.jobs.create(
            model="embedded", training_file=file(other, map(chat, range(10)))
        )
        assert (
            made.status == "validating_files"
            and other.fine_tuning.jobs.cancel(made.id).status == "cancelled"
        )
        with pytest.raises(openai.BadRequestError, match="already completed: cancelled"):
            other.fine_tuning.jobs.cancel(made.id)
    with pytest.raises(openai.InternalServerError, match="fault on demand"):
        client.fine_tuning.jobs.list(extra_headers={"X-Fault": "500"})


def test_a_job_file_of_an_earlier_version_is_read(tmp_path):
    (tmp_path / "north").mkdir()
    (tmp_path / "north" / "job.json").write_text(
        '{"culture": "north", "key": "k", "said": {"model": "openai/x"}, "step": "started"}'
    )
    assert hosted.read_states(tmp_path)["north"].settings == {"model": "openai/x"}


# -------------------------------------------------------------------- the plan


def test_a_plan_counts_rows_and_tokens_and_an_unknown_price_is_unknown(corpus):
    made = hosted.plan(corpus, BASE, epochs=2, suffix="tea talk")
    assert [(p.culture, p.rows, p.validation_rows) for p in made.parts] == [
        ("north", 12, 3),
        ("south", 12, 3),
    ]
    assert (
        made.usd is None
        and "cost unknown" in format_plan(made)
        and "counted as bytes/4" in made.counting
    )
    assert (
        made.tokens == 2 * sum(p.tokens for p in made.parts)
        and made.build_suffix(made.parts[0]) == "tea-talk-north"
    )
    counted = hosted.plan(
        corpus, "openai/gpt-4.1-mini", base_url="http://127.0.0.1:9/v1", price=5.0
    )
    assert "o200k_base" in counted.counting and counted.usd == pytest.approx(
        counted.tokens * 5 / 1e6
    )
    assert counted.parts[0].hash == made.parts[0].hash != made.parts[1].hash


def test_names_are_what_a_service_takes():
    assert (
        clean_name("arabic (Jordan)") == "arabic-Jordan" and clean_name("português") == "portugues"
    )
    assert len(clean_name("x" * 200)) == 64 and clean_name("x" * 200) != clean_name("x" * 201)
    assert clean_name("日本") != clean_name("한국") and clean_name("日本").isalnum()


def test_a_cap_refuses_beforehand_and_needs_a_price(corpus):
    with pytest.raises(BudgetReached, match=r"more than the limit of \$0.001; nothing was sent"):
        hosted.plan(corpus, BASE, price=10.0, max_usd=0.001)
    with pytest.raises(InputError, match="--max-usd needs the price of training, which is unknown"):
        hosted.plan(corpus, BASE, max_usd=5.0)
    assert hosted.plan(corpus, BASE, price=10.0, max_usd=5.0).usd < 5


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b"{no json\n", r"north/train.jsonl:13: not JSON"),
        (
            lines([chat(1, mesages=[])]),
            "the key 'mesages' has no place in it. Did you mean 'messages'",
        ),
        (
            lines([{"messages": chat(1)["messages"][:2]}]),
            "train.jsonl:13: the last message is the user's",
        ),
        (lines([{"messages": [{"role": "asistant", "content": "x"}]}]), "Did you mean 'assistant'"),
        (
            lines([{"messages": [{"role": "assistant", "content": " "}]}]),
            r"messages\[0\] says nothing",
        ),
        (
            lines([{"messages": [{"role": "assistant", "content": "x", "weight": 3}]}]),
            "the weight 3",
        ),
        (lines([chat(13)]), "validation.jsonl: 1 of its rows stand in train.jsonl too"),
        (None, "train.jsonl: 9 rows; a service takes at least 10"),
    ],
)
def test_a_bad_row_is_told_with_its_line_before_anything_is_sent(corpus, bad, why):
    train = corpus / "north/train.jsonl"
    train.write_bytes(lines(map(chat, range(9))) if bad is None else train.read_bytes() + bad)
    with pytest.raises(InputError, match=why):
        hosted.plan(corpus, BASE)


def test_folders_and_models_that_cannot_be_are_named(corpus, tmp_path):
    with pytest.raises(
        InputError,
        match=r"no train.jsonl in it.* there is nothing. `culturepark export RUN --to openai",
    ):
        hosted.plan(tmp_path / "nowhere", BASE)
    with pytest.raises(InputError, match="cannot be tuned at a service: write PROVIDER/NAME"):
        hosted.plan(corpus, "embedded")
    with pytest.raises(
        InputError, match=r"north/train.jsonl:1: the key 'messages' has no place in it"
    ):
        hosted.plan(corpus, BASE, method="dpo")
    (corpus / "train.jsonl").write_bytes(lines(map(chat, range(12))))
    with pytest.raises(InputError, match="keep all cultures together or each apart"):
        hosted.plan(corpus, BASE)


# ------------------------------------------------------------------- the jobs


async def test_each_culture_becomes_a_model_with_its_manifest_and_is_paid_for_once(
    corpus, tmp_path
):
    said = []
    with Server(tune_seconds=0.3) as server:
        made = hosted.plan(corpus, BASE, base_url=server.url, price=4.0, epochs=2, seed=5)
        done = await hosted.tune(made, tmp_path / "out", lambda *event: said.append(event))
        assert (
            await hosted.tune(made, tmp_path / "out")
            == done
            == hosted.read_manifests(tmp_path / "out")
        )
        assert len(started(server)) == 2 and len(sent(server, "files")) == 4
    manifest = json.loads((tmp_path / "out/north/manifest.json").read_text())
    assert (
        manifest["model"].startswith("ft:embedded:org:culturepark-north:")
        and manifest == done["north"]
    )
    assert set(manifest) == {
        "kind",
        "model",
        "base",
        "base_url",
        "method",
        "corpus_hash",
        "rows",
        "trained_tokens",
        "hyperparameters",
        "job",
        "created",
        "usd_estimate",
    }
    assert (
        manifest["rows"] == {"train": 12, "validation": 3}
        and manifest["hyperparameters"]["n_epochs"] == 2
        and manifest["usd_estimate"] == pytest.approx(made.estimate_usd(made.parts[0]))
    )
    assert (tmp_path / "out/south/curves.csv").read_text().startswith("step,train_loss")
    assert len(said) == len(set(said)) and ("north", "The job has successfully completed") in said


async def test_preferences_of_all_cultures_in_one_file_make_one_model(tmp_path):
    (tmp_path / "train.jsonl").write_bytes(lines(map(pair, range(10))))
    with Server() as server:
        made = hosted.plan(tmp_path, BASE, method="dpo", beta=0.3, base_url=server.url)
        done = await hosted.tune(made, tmp_path / "out")
    assert set(done) == {"pooled"} and done["pooled"]["hyperparameters"]["beta"] == 0.3
    assert started(server)[0]["method"]["type"] == "dpo"


async def test_a_tuned_model_takes_its_seat(park, corpus, tmp_path):
    with Server() as server:
        made = hosted.plan(corpus, BASE, base_url=server.url)
        tuned = (await hosted.tune(made, tmp_path / "out"))["north"]["model"]
        how = {"base_url": server.url, "dialogues": 1, "turns": 2, **TEA}
        await asyncio.to_thread(cp.run, "whole", model=f"openai/{tuned}", **how)
        before = len(server.seen)
        await asyncio.to_thread(
            cp.run, "seated", model=BASE, seats={"north": f"openai/{tuned}"}, **how
        )
        asked = [s["model"] for s in server.seen[before:]]
    assert {s["model"] for s in server.seen[4 + 2 : before]} == {tuned} and {
        tuned,
        "embedded",
    } == set(asked)


async def test_a_job_that_fails_is_told_in_the_services_words_and_the_others_go_on(
    corpus, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        "culturepark.training.hosted.uploads.explain_refusal", lambda row, method: None
    )  # a client that checks nothing
    train = corpus / "north/train.jsonl"
    good = train.read_bytes()
    train.write_bytes(good + lines([{"messages": chat(1)["messages"][:2]}]))
    with Server() as server:
        with pytest.raises(
            RunFailed, match=r"north: job ftjob-\w+ failed: .*Line 13: the last message must be"
        ) as caught:
            await hosted.tune(hosted.plan(corpus, BASE, base_url=server.url), tmp_path / "out")
        assert "south" not in str(caught.value) and set(
            hosted.read_manifests(tmp_path / "out")
        ) == {"south"}
        train.write_bytes(good)
        done = await hosted.tune(hosted.plan(corpus, BASE, base_url=server.url), tmp_path / "out")
        assert set(done) == {"north", "south"} and len(started(server)) == 3


async def test_other_settings_are_refused_where_a_job_was_started(corpus, tmp_path):
    with Server() as server:
        await hosted.submit(hosted.plan(corpus, BASE, base_url=server.url), tmp_path / "out")
        with pytest.raises(InputError, match=r"hyperparameters was .*3.*, is .*5.*another --name"):
            await hosted.tune(
                hosted.plan(corpus, BASE, base_url=server.url, epochs=5), tmp_path / "out"
            )
        made = hosted.plan(corpus, BASE, base_url=server.url)
        (corpus / "north/train.jsonl").write_bytes(lines(chat(n) for n in range(30, 50)))
        with pytest.raises(InputError, match="has changed since the plan was made"):
            await hosted.tune(made, tmp_path / "other")
        assert len(started(server)) == 2 and not (tmp_path / "other/north").exists()
        with hosted._lock_folder(tmp_path / "out"), pytest.raises(Locked):
            await hosted.follow(made, tmp_path / "out")


# ----------------------------------------------------- killed, faulty, cancelled


async def test_killed_after_a_job_was_made_and_before_it_was_written_down_no_second_is_started(
    corpus, tmp_path, front
):
    with Server() as behind:
        killed = []

        def alter(method, path, ahead):
            if method == "POST" and path == "/fine_tuning/jobs" and not killed:
                ahead()
                killed.append(os.kill(process.pid, signal.SIGKILL))
                return None, b""
            return None

        (corpus / "south/train.jsonl").unlink()
        url = front(behind, alter).url
        process = child(corpus, url, tmp_path / "out")
        process.communicate()
        assert killed and hosted.read_states(tmp_path / "out")["north"].step == "starting"
        done = await hosted.tune(hosted.plan(corpus, BASE, base_url=url), tmp_path / "out")
        assert (
            done["north"]["model"] and len(started(behind)) == 1 and len(sent(behind, "files")) == 2
        )


async def test_killed_between_two_uploads_what_is_there_is_not_sent_again(corpus, tmp_path, front):
    with Server() as behind:
        killed = []

        def alter(method, path, ahead):
            if method == "POST" and path == "/files" and not killed:
                ahead()
                killed.append(os.kill(process.pid, signal.SIGKILL))
                return None, b""
            return None

        (corpus / "south/train.jsonl").unlink()
        url = front(behind, alter).url
        process = child(corpus, url, tmp_path / "out")
        process.communicate()
        assert hosted.read_states(tmp_path / "out")["north"].step == "uploading" and not started(
            behind
        )
        await hosted.tune(hosted.plan(corpus, BASE, base_url=url), tmp_path / "out")
        assert len(started(behind)) == 1 and len(sent(behind, "files")) == 2


async def test_another_process_goes_on_following_and_tells_only_what_is_new(corpus, tmp_path):
    said = []
    with Server(tune_seconds=2.0) as server:
        process = child(corpus, server.url, tmp_path / "out")
        for line in process.stdout:
            if "Step" in line:
                break
        process.kill()
        process.communicate()
        made = hosted.plan(corpus, BASE, base_url=server.url)
        assert not hosted.list_pending(made, tmp_path / "out")
        done = await hosted.follow(made, tmp_path / "out", lambda culture, text: said.append(text))
        assert len(done) == 2 and len(started(server)) == 2 and len(sent(server, "files")) == 4
    assert said and not [text for text in said if text.startswith(("Created", "Validating"))]


async def test_lost_folders_cost_nothing_the_same_job_is_taken_over(corpus, tmp_path, caplog):
    with Server() as server:
        made = hosted.plan(corpus, BASE, base_url=server.url)
        first = await hosted.tune(made, tmp_path / "out")
        again = await hosted.tune(made, tmp_path / "another")
        assert first["north"]["model"] == again["north"]["model"] and len(started(server)) == 2
        assert "has the same data and settings and is taken over" in caplog.text
        await hosted.tune(
            hosted.plan(corpus, BASE, base_url=server.url, seed=2), tmp_path / "third"
        )
        assert len(started(server)) == 4


async def test_one_request_in_five_fails_and_all_comes_home_once(corpus, tmp_path):
    with Server(
        faults={"429": 0.04, "500": 0.08, "reset": 0.08}, seed=4, tune_seconds=0.5
    ) as server:
        done = await hosted.tune(hosted.plan(corpus, BASE, base_url=server.url), tmp_path / "out")
        assert len(done) == 2 and {"500", "reset"} <= set(server.counts["faults"])
        with openai.OpenAI(api_key=KEY, base_url=server.url, max_retries=20) as client:
            assert (
                len(list(client.fine_tuning.jobs.list())) == 2
                and len(list(client.files.list(purpose="fine-tune"))) == 4
            )


@pytest.mark.parametrize("status", [503, None])
async def test_a_job_whose_making_was_not_heard_of_is_found_and_not_made_twice(
    corpus, tmp_path, front, status
):
    met = []

    def alter(method, path, ahead):
        if method == "POST" and path == "/fine_tuning/jobs" and len(met) < 2:
            met.append(ahead())
            return status, {"error": {"message": "busy"}}
        return None

    with Server() as behind:
        made = hosted.plan(corpus, BASE, base_url=front(behind, alter).url)
        assert len(await hosted.tune(made, tmp_path / "out")) == 2 and len(started(behind)) == 2


async def test_a_service_that_keeps_no_notes_and_tells_no_events_is_followed_all_the_same(
    corpus, tmp_path, front
):
    met = []

    def alter(method, path, ahead):
        if path.endswith("events?limit=100"):
            return 404, {"error": {"message": "no such path"}}
        status, body = ahead()
        if method == "POST" and path == "/fine_tuning/jobs" and not met:
            met.append(path)
            return None, b""
        return (
            (status, body.replace(b'"culturepark":', b'"other":'))
            if "fine_tuning" in path
            else (status, body)
        )

    with Server() as behind:
        made = hosted.plan(corpus, BASE, base_url=front(behind, alter).url)
        assert len(await hosted.tune(made, tmp_path / "out")) == 2 and len(started(behind)) == 2


async def test_jobs_are_cancelled_and_the_same_call_starts_others(corpus, tmp_path):
    out = tmp_path / "out"
    with Server(tune_seconds=60) as server:
        made = hosted.plan(corpus, BASE, base_url=server.url)
        await hosted.submit(made, out)
        assert not hosted.list_pending(made, out)
        assert (
            await hosted.cancel(out)
            == {"north": "cancelled", "south": "cancelled"}
            == await hosted.cancel(out)
        )
        assert len(hosted.list_pending(made, out)) == 2
        with pytest.raises(RunFailed, match=r"north: job ftjob-.* was cancelled"):
            await hosted.follow(made, out)
        await hosted.submit(made, out)
        assert [s["metadata"]["culturepark"][-2:] for s in started(server)] == [
            ".1",
            ".1",
            ".2",
            ".2",
        ]
    with pytest.raises(InputError, match="no job was ever started in"):
        await hosted.cancel(tmp_path / "nowhere")


async def test_a_wrong_key_and_an_address_without_the_service_are_told_and_no_key_is_written(
    corpus, tmp_path, front
):
    with (
        Server(key="another") as server,
        pytest.raises(ModelError, match="refused the key") as caught,
    ):
        await hosted.tune(hosted.plan(corpus, BASE, base_url=server.url), tmp_path / "out")
    assert KEY not in str(caught.value)
    with Server() as behind:
        nothing = front(behind, lambda *_: (404, {"error": {"message": f"Not Found for {KEY}"}}))
        with pytest.raises(ModelError, match="no fine-tuning service at this address") as caught:
            await hosted.tune(hosted.plan(corpus, BASE, base_url=nothing.url), tmp_path / "other")
        assert KEY not in str(caught.value)
        await hosted.tune(hosted.plan(corpus, BASE, base_url=behind.url), tmp_path / "third")
        assert {s["headers"]["Authorization"] for s in behind.seen} == {f"Bearer {KEY}"}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 12 and not [path for path in files if KEY.encode() in path.read_bytes()]


# ----------------------------------------------------------------- the command


def run(*args, code=0):
    done = CliRunner().invoke(command, [str(a) for a in args], standalone_mode=False)
    assert (done.exit_code == 0) == (code == 0), (done.output, done.exception)
    return done


def test_the_command_tells_the_cost_asks_and_prints_how_models_are_seated(park, corpus):
    with Server() as server:
        how = (corpus, "-m", BASE, "--base-url", server.url, "--price", "4")
        refused = run(*how, code=2)
        assert (
            "there is no terminal to ask on; --yes agrees" in str(refused.exception)
            and "about $0.0" in refused.stderr
        )
        assert not server.seen
        done = json.loads(run(*how, "--yes", "--json").stdout)
        again = run(*how).stdout
    place = park / "outputs/corpus/models/hosted"
    assert (
        done["out"] == str(place)
        and json.loads((place / "north/manifest.json").read_text()) == done["models"]["north"]
    )
    tuned = done["models"]["north"]["model"]
    assert tuned.startswith("ft:embedded:org:corpus-north:")
    assert (
        f"culturepark run NAME --model {BASE} --seat north=openai/{tuned} --base-url {server.url}"
        in again
    )


def test_a_run_is_tuned_from_its_export_and_cancelled_by_its_name(park):
    with Server(tune_seconds=0.2) as server:
        cp.run("tea", dialogues=10, turns=6, formats=("openai",), by_culture=True, **TEA)
        done = json.loads(run("tea", "-m", BASE, "--base-url", server.url, "-y", "--json").stdout)
        assert (
            done["models"]["north"]["rows"]["train"] >= 10
            and (park / "outputs/tea/models/hosted/north/curves.csv").is_file()
        )
        assert json.loads(run("tea", "--cancel", "--json").stdout)["jobs"] == {"north": "succeeded"}
    few = run("tea", "-m", BASE, "--method", "dpo", code=2)
    assert (
        "a service takes at least 10" in str(few.exception)
        and (park / "outputs/tea/corpus/openai-dpo").is_dir()
    )
