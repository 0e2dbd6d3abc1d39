"""What people already use, at work against `culturepark serve`: each client itself, skipped where
it is not installed.
"""

import importlib.util
from enum import Enum

import pytest
from pydantic import BaseModel, Field

from culturepark.local_models import base, libraries, machine
from culturepark.serving.local_answers import LocalAnswers
from culturepark.serving.model_server import ModelServer

guided = pytest.mark.skipif(
    importlib.util.find_spec("llguidance") is None,
    reason="llguidance is not here: pip install 'culturepark[serve]'",
)


def installed(name):
    """Return a client, or skip the test and say what is missing."""
    return pytest.importorskip(
        name, reason=f"{name} is not here: pip install 'culturepark[clients]'"
    )


class Side(Enum):
    """An answer."""

    AGREE = "Agree"
    DISAGREE = "Disagree"


class Opinion(BaseModel):
    """What somebody thinks."""

    side: Side
    guests: int = Field(ge=1, le=9)


@pytest.fixture(scope="module")
def answer(small):
    return LocalAnswers([str(small)]).load()


@pytest.fixture(scope="module")
def plain(small):
    """The base as anybody would load it, whatever adapters the one that is served bears."""
    with libraries.quiet():
        return base.load_model(str(small), machine.find_machine("cpu")).eval()


@pytest.fixture(scope="module")
def url(answer):
    with ModelServer(answer) as running:
        yield running.url


@pytest.mark.parametrize("batch", [1, 3])
def test_lm_evaluation_harness_reads_the_log_probabilities_of_continuations(
    url, answer, plain, small, batch
):
    installed("lm_eval")
    from lm_eval.api.instance import Instance
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    model = LocalCompletionsAPI(
        base_url=f"{url}/completions",
        model="small",
        tokenizer=str(small),
        tokenizer_backend="huggingface",
        batch_size=batch,
        num_concurrent=1,
    )
    pairs = [
        ("Is tea good?", " Agree."),
        ("Is tea good?", " Disagree."),
        ("Is rye bad?", " I cannot say."),
    ]
    made = model.loglikelihood(
        [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)], disable_tqdm=True
    )
    engine = answer.engines[0]
    for (context, said), (logprob, greedy) in zip(pairs, made, strict=True):
        assert logprob == pytest.approx(
            sum(logprobs(plain, engine.tokenizer, context, said)), abs=1e-3
        ) and greedy in (
            True,
            False,
        )


def logprobs(model, tokenizer, context, said):
    import torch

    begun, whole = (
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in (context, context + said)
    )
    with torch.inference_mode():
        logs = model(torch.tensor([whole])).logits[0].log_softmax(-1)
    return [float(logs[i - 1, whole[i]]) for i in range(len(begun), len(whole))]


@pytest.mark.parametrize("backend", ["huggingface", "None"])
def test_lm_evaluation_harness_lets_texts_go_on_until_a_stop_text(url, small, backend):
    installed("lm_eval")
    from lm_eval.api.instance import Instance
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    model = LocalCompletionsAPI(
        base_url=f"{url}/completions",
        model="small",
        tokenizer=str(small),
        tokenizer_backend=backend,
        eos_string="<end>",
        batch_size=1,
    )
    wish = ("Is tea good?", {"until": ["zebra", "\n\n"], "max_gen_toks": 8})
    (text,) = model.generate_until([Instance("generate_until", {}, wish, 0)], disable_tqdm=True)
    assert isinstance(text, str)


@pytest.mark.filterwarnings("ignore")  # litellm's own, when it is first loaded
def test_litellm_completes_texts_and_chats(url, monkeypatch):
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # or it looks for prices elsewhere
    litellm = installed("litellm")
    where = {"api_base": url, "api_key": "none", "max_tokens": 5, "temperature": 0}
    made = litellm.text_completion(
        model="text-completion-openai/small", prompt="Is tea good?", echo=True, **where
    )
    assert made.choices[0].text.startswith("Is tea good?") and made.usage.completion_tokens <= 5
    chat = litellm.completion(
        model="hosted_vllm/small", messages=[{"role": "user", "content": "Tea?"}], n=2, **where
    )
    assert len(chat.choices) == 2


@guided
def test_the_openai_client_parses_an_answer_into_its_model(url):
    import openai

    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        made = client.chat.completions.parse(
            model="small",
            messages=[{"role": "user", "content": "Tea?"}],
            response_format=Opinion,
            seed=1,
        )
    assert isinstance(made.choices[0].message.parsed, Opinion)


@guided
def test_langchain_asks_for_structured_output(url):
    langchain = installed("langchain_openai")
    model = langchain.ChatOpenAI(model="small", base_url=url, api_key="none", max_retries=0, seed=1)
    assert isinstance(
        model.with_structured_output(Opinion, method="json_schema").invoke("Tea?"), Opinion
    )
    text = langchain.OpenAI(
        model="small", base_url=url, api_key="none", max_retries=0, max_tokens=5
    )
    assert isinstance(text.invoke("Is tea good?"), str)


@guided
def test_instructor_gets_its_model_by_schema(url):
    instructor = installed("instructor")
    import openai

    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as raw:
        client = instructor.from_openai(raw, mode=instructor.Mode.JSON_SCHEMA)
        made = client.chat.completions.create(
            model="small",
            messages=[{"role": "user", "content": "Tea?"}],
            response_model=Opinion,
            max_retries=0,
            seed=1,
        )
    assert isinstance(made, Opinion)


@guided
async def test_pydantic_ai_gets_its_native_output(url):
    installed("pydantic_ai")
    from pydantic_ai import Agent, NativeOutput
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    model = OpenAIChatModel("small", provider=OpenAIProvider(base_url=url, api_key="none"))
    made = await Agent(model, output_type=NativeOutput(Opinion), model_settings={"seed": 1}).run(
        "Tea?"
    )
    assert isinstance(made.output, Opinion)


def test_a_client_that_asks_for_tools_is_refused_in_one_clear_sentence(url):
    import openai

    tool = {
        "type": "function",
        "function": {"name": "look", "parameters": {"type": "object", "properties": {}}},
    }
    with (
        openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client,
        pytest.raises(openai.BadRequestError, match="'tools'"),
    ):
        client.chat.completions.create(
            model="small", messages=[{"role": "user", "content": "Tea?"}], tools=[tool]
        )
