"""Tuned models at work: one base, many adapters, mixed batches; served, seated, merged, handed
over.
"""

import asyncio
import json
import shutil
from concurrent.futures import Future

import httpx
import openai
import pytest
from click.testing import CliRunner
from conftest import TEA

import culturepark as cp
from culturepark.cli.serve import merge as merge_verb
from culturepark.cli.serve import serve as serve_verb
from culturepark.errors import InputError, ModelError
from culturepark.llm import load
from culturepark.local_models import (
    base,
    choices,
    engine,
    libraries,
    local_model,
    machine,
    manifest,
    vllm,
)
from culturepark.local_models.merge import merge_adapter
from culturepark.records import Message, Request
from culturepark.serving.local_answers import LocalAnswers
from culturepark.serving.model_server import ModelServer

NAMES = ("arabic", "german", "korean")
TALK = [
    {"role": "system", "content": "You are from Korea."},
    {"role": "user", "content": "Is tea good?"},
]
ASK = {"messages": TALK, "max_tokens": 12, "temperature": 0}


def adapter(root, folder, seed, rank=4, kind="adapter", **more):
    """Write an adapter with random weights that change much, as tuning would, and its manifest."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    with libraries.quiet():
        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=rank,
            lora_alpha=8 * rank,
            target_modules="all-linear",
            init_lora_weights=False,
            **more,
        )
        get_peft_model(
            base.load_model(str(root), machine.find_machine("cpu")), config
        ).save_pretrained(folder)
    manifest.write(
        manifest.Manifest(
            kind=kind,
            name=folder.name,
            base=str(root),
            base_hash=base.compute_fingerprint(str(root)),
            objective="sft",
            corpus="tea",
            corpus_hash="00",
            rows={"train": 8},
            settings={"rank": rank},
            machine="cpu",
            versions=manifest.list_versions(),
            created=manifest.format_now(),
        ),
        folder,
    )
    return folder


@pytest.fixture(scope="module")
def models(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "sft"
    for seed, name in enumerate(NAMES, 1):
        adapter(small, folder / name, seed, rank=4 * seed)
    return folder


@pytest.fixture(scope="module")
def answer(models):
    return LocalAnswers([str(models)]).load()


@pytest.fixture(scope="module")
def server(answer):
    with ModelServer(answer) as running:
        yield running


@pytest.fixture
def client(server):
    with openai.OpenAI(api_key="any", base_url=server.url, max_retries=0) as made:
        yield made


@pytest.fixture
def eng(answer):
    return answer.engines[0]


def asks(eng, answer, **how):
    """One request to each model."""
    return [
        engine.GenerationRequest(eng.tokens(TALK), answer._loaded[n][1], **{"limit": 12, **how})
        for n in answer.names
    ]


def wait(futures):
    return [f.result(60) for f in futures]


def plainly(root, folder=None):
    """Base and adapter as anybody would load them."""
    from peft import PeftModel

    with libraries.quiet():
        whole = base.load_model(str(root), machine.find_machine("cpu")).eval()
        return PeftModel.from_pretrained(whole, folder).eval() if folder else whole


# ----------------------------------------------------------------- the engine


def test_one_base_is_loaded_for_all_and_bears_its_own_name(answer):
    assert answer.names == ("small", *NAMES) and len(answer.engines) == 1


def test_a_mixed_batch_says_what_each_model_says_alone_and_adapters_differ(eng, answer):
    before = eng.batches
    together = wait([eng.submit(a) for a in asks(eng, answer)])
    assert eng.batches == before + 1
    alone = [eng.submit(a).result(60) for a in asks(eng, answer)]
    assert [m.text for m in together] == [m.text for m in alone] and len(
        {m.text for m in alone}
    ) == 4


def test_rows_of_other_lengths_temperatures_and_limits_share_a_batch_and_change_nothing(
    eng, answer
):
    long = [*TALK[:1], {"role": "user", "content": "Is tea with seven guests good? " * 4}]
    some = [
        *asks(eng, answer, temperature=0.8, seed=7),
        *asks(eng, answer, limit=3),
        *asks(eng, answer, temperature=1.2, top_p=0.5, seed=1),
        engine.GenerationRequest(eng.tokens(long), engine.BASE, 30),
    ]
    before = eng.batches
    together = wait([eng.submit(a) for a in some])
    assert eng.batches == before + 1
    assert [m.text for m in together] == [eng.submit(a).result(60).text for a in some]
    assert max(m.completion_tokens for m in together[4:8]) == 3 and {
        m.finish for m in together
    } == {"stop", "length"}


def test_logprobs_are_those_of_a_plain_forward_pass(eng, answer, models):
    import torch

    for ask, name in zip(asks(eng, answer, top=3), answer.names, strict=True):
        made = eng.submit(ask).result(60)
        plain, ids = plainly(eng.root, models / name if name in NAMES else None), list(ask.prompt)
        for token in made.tokens:
            with torch.inference_mode():
                logs = plain(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
            likeliest = int(logs.argmax())
            assert token.logprob == pytest.approx(float(logs[likeliest]), abs=1e-4)
            assert (
                token.top[0] == (eng.tokenizer.decode([likeliest]), pytest.approx(token.logprob))
                and len(token.top) == 3
            )
            ids.append(likeliest)


def test_draws_follow_temperature_and_top_p():
    import torch

    scores = torch.tensor([[0.5, 0.3, 0.2]]).log()
    ask = engine.GenerationRequest((), engine.BASE, 1, temperature=1.0)
    shares = [i / 1000 for i in range(1000)]
    drawn = (
        engine.draw_tokens(scores.expand(1000, 3), [ask] * 1000, shares)
        .bincount(minlength=3)
        .tolist()
    )
    assert drawn == pytest.approx([500, 300, 200], abs=2)
    narrow = engine.GenerationRequest((), engine.BASE, 1, temperature=1.0, top_p=0.6)
    assert engine.draw_tokens(
        scores.expand(1000, 3), [narrow] * 1000, shares
    ).bincount().tolist() == pytest.approx([625, 375], abs=2)


async def test_twenty_at_once_are_few_batches(eng, answer):
    before = eng.batches
    names = [answer._loaded[n][1] for n in answer.names]
    made = await asyncio.gather(
        *(eng.complete(TALK, names[i % 4], 8, temperature=1.0, seed=i) for i in range(20))
    )
    assert len(made) == 20 and eng.batches - before <= 2


async def test_a_request_that_is_given_up_is_left_out_and_the_engine_goes_on(eng):
    gone: Future = eng.submit(
        engine.GenerationRequest(eng.tokens(TALK), engine.BASE, 200, temperature=1.0)
    )
    gone.cancel()
    assert (await eng.complete(TALK, limit=4)).completion_tokens <= 4


async def test_a_stream_comes_as_it_is_said(eng):
    pieces = [
        piece
        async for piece in eng.stream(
            eng.ask(TALK, limit=12, temperature=1.0, seed=3, stop=("zebra",))
        )
    ]
    assert len(pieces) > 3 and "".join(p[0] for p in pieces[:-1]) == pieces[-1].text


async def test_an_answer_may_fill_the_context_and_a_prompt_that_does_is_refused(eng):
    filled = eng.context - len(eng.tokens([{"role": "user", "content": ""}])) - 2
    talk = [{"role": "user", "content": "\n" * filled}]
    assert len(eng.tokens(talk)) == eng.context - 2
    made = await eng.complete(talk, limit=50)
    assert made.prompt_tokens + made.completion_tokens <= eng.context
    with pytest.raises(engine.TooLong, match="maximum context length"):
        await eng.complete([{"role": "user", "content": "\n" * (filled + 2)}])


# ----------------------------------------------------------------- the server


def test_the_openai_client_lists_the_models_and_chats_with_each(client):
    assert [m.id for m in client.models.list()] == ["small", *NAMES]
    made = [client.chat.completions.create(model=n, **ASK) for n in ("small", *NAMES)]
    assert len({m.choices[0].message.content for m in made}) == 4
    assert all(
        m.usage.completion_tokens <= 12 and m.choices[0].finish_reason in ("stop", "length")
        for m in made
    )


def test_log_probabilities_come_with_their_alternatives(client):
    made = client.chat.completions.create(
        model="korean", logprobs=True, top_logprobs=2, **ASK
    ).choices[0]
    first = made.logprobs.content[0]
    assert (
        first.logprob <= 0
        and first.token == first.top_logprobs[0].token
        and len(first.top_logprobs) == 2
    )
    assert client.chat.completions.create(model="korean", **ASK).choices[0].logprobs is None


@pytest.mark.parametrize("logprobs", [False, True])
def test_a_stream_says_the_same(client, logprobs):
    whole = client.chat.completions.create(model="german", logprobs=logprobs, **ASK).choices[0]
    chunks = list(
        client.chat.completions.create(
            model="german",
            stream=True,
            stream_options={"include_usage": True},
            logprobs=logprobs,
            **ASK,
        )
    )
    assert (
        "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        == whole.message.content
    )
    logs = [
        t.logprob
        for c in chunks
        if c.choices and c.choices[0].logprobs
        for t in c.choices[0].logprobs.content
    ]
    assert logs == pytest.approx(
        [t.logprob for t in whole.logprobs.content] if logprobs else [], abs=1e-4
    )
    assert (
        chunks[-1].usage.completion_tokens > 0
        and chunks[-2].choices[0].finish_reason == whole.finish_reason
    )


def test_a_stop_text_ends_the_answer_before_it(client):
    whole = client.chat.completions.create(model="german", **ASK).choices[0].message.content
    cut = client.chat.completions.create(model="german", stop=[whole[3:6]], **ASK).choices[0]
    assert (cut.message.content, cut.finish_reason) == (whole[: whole.index(whole[3:6])], "stop")


def test_an_unknown_model_is_told_the_nearest_and_what_does_not_fit_is_refused(client, eng):
    with pytest.raises(openai.NotFoundError, match="Did you mean 'korean'"):
        client.chat.completions.create(**{**ASK, "model": "koreen"})
    with pytest.raises(openai.BadRequestError, match="maximum context length") as caught:
        client.chat.completions.create(
            model="korean", messages=[{"role": "user", "content": "tea " * eng.context}]
        )
    assert caught.value.code == "context_length_exceeded"
    for wrong in (
        {"top_p": 0},
        {"tools": [{}]},
        {"top_logprobs": 3},
        {"stop": [""]},
        {"presence_penalty": 1},
    ):
        with pytest.raises(openai.BadRequestError, match=next(iter(wrong))):
            client.chat.completions.create(model="korean", **ASK, **wrong)


def test_nothing_that_would_be_made_up_is_served(server):
    for path in ("/embeddings", "/files", "/fine_tuning/jobs", "/batches"):
        assert (
            httpx.post(server.url + path, json={"model": "korean", "input": "tea"}).status_code
            == 404
        )


# ---------------------------------------------------------------- at the table


def test_a_tuned_model_takes_its_seat_and_the_journal_names_it(park, models):
    run = cp.start(
        "grad",
        seats={"north": str(models / "korean")},
        turns=2,
        dialogues=12,  # the tiny base seldom says a whole sentence, and one is enough
        modes=("cross",),
        **TEA,
    )
    cp.simulate(run)
    with run.open_store(write=False) as journal:
        said = journal.select("SELECT DISTINCT model FROM calls WHERE role = 'delegate'")
    assert (
        said == [(local_model.find_model(models / "korean").identity,)] and "korean" in said[0][0]
    )


async def test_eight_seats_of_one_base_load_it_once_and_a_reply_is_honest(models, eng):
    seats = [load(str(models / NAMES[i % 3])) for i in range(8)]
    request = Request("delegate", (Message("user", "Is tea good?"),), temperature=0.0, max_tokens=4)
    made = await asyncio.gather(*(s.complete(request) for s in seats))
    assert {s._engine for s in seats} == {eng} and len({r.text for r in made}) == 3
    assert {r.status for r in made} <= {"ok", "truncated", "empty"} and all(
        r.reason for r in made if r.status != "ok"
    )
    long = await seats[0].complete(Request("delegate", (Message("user", "tea " * eng.context),)))
    assert long.status == "failed" and "context" in long.reason


def test_other_weights_under_the_same_path_are_another_model(models, small, tmp_path):
    folder = tmp_path / "arabic"
    shutil.copytree(models / "arabic", folder)
    before = load(str(folder)).identity
    assert before == load(str(models / "arabic")).identity
    adapter(small, folder, seed=9)
    assert load(str(folder)).identity != before


def test_a_base_is_seated_by_its_name_and_what_is_not_there_is_told_with_the_nearest(
    models, small, tmp_path, monkeypatch
):
    assert load(f"local/{small}").identity.startswith("local/small@")
    with pytest.raises(InputError, match="Did you mean 'korean'"):
        load(str(models / "koraen"))
    monkeypatch.chdir(models.parent)
    with pytest.raises(InputError, match="outputs"):
        load("outputs/first/models/sft/arabic")
    with pytest.raises(
        InputError, match=r"no tuned model at .*manifest\.json.*arabic, german, korean"
    ):
        load(str(models))


def broken(models, tmp_path, name):
    folder = tmp_path / name
    shutil.copytree(models / "arabic", folder)
    return folder


def test_damaged_pickled_and_unfitting_adapters_are_told_and_the_base_is_as_it_was(
    models, small, tmp_path
):
    cut, pickled, other = (broken(models, tmp_path, n) for n in ("cut", "pickled", "other"))
    (cut / local_model.ADAPTER).write_bytes((cut / local_model.ADAPTER).read_bytes()[:-99])
    held = engine.Engine(str(small), machine.find_machine("cpu"))
    before = held.submit(engine.GenerationRequest(held.tokens(TALK), engine.BASE, 6)).result(60)
    with pytest.raises(ModelError, match=r"cannot load the adapter at .*cut"):
        held.add(local_model.find_model(cut))
    assert (
        held.submit(engine.GenerationRequest(held.tokens(TALK), engine.BASE, 6)).result(60)
        == before
    )
    (pickled / local_model.ADAPTER).rename(pickled / "adapter_model.bin")
    with pytest.raises(ModelError, match="pickled"):
        local_model.find_model(pickled)
    (other / manifest.FILE).write_text(
        (other / manifest.FILE).read_text().replace(base.compute_fingerprint(str(small)), "0" * 16)
    )
    with pytest.raises(ModelError, match="was tuned on the base"):
        local_model.find_model(other)


def test_an_adapter_that_cannot_share_a_base_and_a_reward_model_are_refused(small, tmp_path):
    odd = adapter(small, tmp_path / "odd", 1, use_dora=True)
    with pytest.raises(ModelError, match=r"use_dora.*culturepark merge"):
        LocalAnswers([str(odd)]).load()
    with pytest.raises(InputError, match="reward model"):
        local_model.find_model(adapter(small, tmp_path / "judge", 1, kind="reward"))


def test_models_of_one_name_are_told_apart_by_the_folder_they_are_in(models, small, tmp_path):
    again = adapter(small, tmp_path / "dpo" / "korean", 5)
    made = LocalAnswers([str(models), str(again), str(small)])
    assert made.names == ("arabic", "german", "sft-korean", "dpo-korean", "small")


# ------------------------------------------------------------------- handing over


@pytest.mark.parametrize("more", [{}, {"use_dora": True}])
def test_a_merged_model_is_what_base_and_adapter_were_and_needs_no_peft(small, tmp_path, more):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = adapter(small, tmp_path / "korean", 3, **more)
    made = merge_adapter(folder, tmp_path / "whole")
    tokenizer = AutoTokenizer.from_pretrained(made)
    ids = torch.tensor(choices.tokenize_prompts(tokenizer, [TALK]))
    plain = AutoModelForCausalLM.from_pretrained(made, use_safetensors=True).eval()
    held = plainly(small, folder)
    with torch.inference_mode():
        assert torch.allclose(plain(ids).logits, held(ids).logits, atol=1e-4)
    assert manifest.read(made).kind == "model" and not [
        p for p in made.iterdir() if "adapter" in p.name
    ]
    assert LocalAnswers([str(made)]).names == ("korean",)


def test_a_quantised_base_and_a_taken_folder_are_not_merged_into(models, small, tmp_path):
    with pytest.raises(InputError, match="not empty"):
        merge_adapter(models / "korean", models)
    with pytest.raises(InputError, match="nothing to merge"):
        merge_adapter(small, tmp_path / "new")
    rounded = tmp_path / "rounded"
    shutil.copytree(small, rounded)
    config = json.loads((rounded / "config.json").read_text())
    (rounded / "config.json").write_text(
        json.dumps({**config, "quantization_config": {"quant_method": "gptq", "bits": 4}})
    )
    folder = broken(models, tmp_path, "korean")
    told = manifest.read(folder).model_copy(update={"base": str(rounded), "base_hash": ""})
    manifest.write(told, folder)
    with pytest.raises(ModelError, match="stored quantised"):
        merge_adapter(folder, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_vllm_command_names_base_adapters_and_the_least_rank_it_takes(models, small):
    made = (
        CliRunner()
        .invoke(serve_verb, [str(models), "--vllm"], catch_exceptions=False)
        .output.strip()
    )
    assert (
        made == f"vllm serve {small} --served-model-name small --host 127.0.0.1 --port 8000"
        " --generation-config vllm --enable-lora --max-loras 3 --max-lora-rank 16"
        f" --lora-modules arabic={models}/arabic german={models}/german korean={models}/korean"
    )
    assert vllm.build_commands(local_model.name_models([local_model.find_model(small)])) == [
        made.partition(" --enable-lora")[0]
    ]


def test_the_verb_merge_says_what_comes_next(models, tmp_path):
    made = (
        CliRunner()
        .invoke(merge_verb, [str(models / "german"), str(tmp_path / "g")], catch_exceptions=False)
        .output
    )
    assert (
        "convert_hf_to_gguf.py" in made
        and "german.gguf" in made
        and (tmp_path / "g" / "model.safetensors").is_file()
    )
