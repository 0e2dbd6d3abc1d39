"""One prefix for whatever a base's chat template writes: trained, weighed and sampled prompts are
the same tokens.
"""

import shutil
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culturepark.errors import InputError, ModelError
from culturepark.local_models import (
    base,
    chat,
    choices,
    engine,
    libraries,
    local_model,
    machine,
    vllm,
)
from culturepark.training import preference, rows, shares

SYSTEM, QUESTION, ANSWER = (
    "You are from Peru.",
    "Is it good to drink tea?",
    "Agree. I think that tea is good.",
)
TALK = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
LONG = [*TALK, {"role": "assistant", "content": "Disagree."}, {"role": "user", "content": "Why?"}]

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%"
    " endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# The last answer of a finished conversation opens with an empty block of thoughts, that of the
# prompt does not.
THINKS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m.content.split('</think>')[-1].lstrip('\n') + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SWITCH = THINKS.replace(
    "assistant\n' }}{% endif %}",
    "assistant\n' }}{% if enable_thinking is defined and not enable_thinking %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}",
)
LLAMA = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header|>' + m.role + '<|end_header|>\n\n' +"
    " (strftime_now('%d %b %Y') + '\n' if m.role == 'system' else '') + m.content | trim +"
    " '<|eot|>' }}{% endfor %}{% if add_generation_prompt %}{{"
    " '<|start_header|>assistant<|end_header|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not"
    " supported') }}{% endif %}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2"
    " == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}{{ '<start_of_turn>' +"
    " ('model' if m.role == 'assistant' else m.role) + '\n' + m.content | trim + '<end_of_turn>\n'"
    " }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content +"
    " '[/INST]' }}{% elif m.role == 'system' %}{{ raise_exception('Only user and assistant roles"
    " are supported!') }}{% else %}{{ ' ' + m.content | trim + eos_token }}{% endif %}{% endfor %}"
)
SILENT = CHATML.replace(
    "{{ '<|im_start|>' + m", "{% if m.role != 'system' %}{{ '<|im_start|>' + m"
).replace("{% endfor %}", "{% endif %}{% endfor %}")
NO_END = (
    "{% for m in messages %}{{ '\n### ' + m.role + '\n' + m.content }}{% endfor %}{{ '\n###"
    " assistant\n' if add_generation_prompt }}"
)
SHAPES = {
    "chatml": CHATML,
    "thinks": THINKS,
    "switch": SWITCH,
    "llama": LLAMA,
    "gemma": GEMMA,
    "mistral": MISTRAL,
    "silent": SILENT,
    "no-end": NO_END,
}
MARKS = [
    "<s>",
    "<|im_start|>",
    "<|im_end|>",
    "<|start_header|>",
    "<|end_header|>",
    "<|eot|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "[INST]",
    "[/INST]",
]
ENDS = {
    "chatml": "<|im_end|>",
    "thinks": "<|im_end|>",
    "switch": "<|im_end|>",
    "llama": "<|eot|>",
    "gemma": "<end_of_turn>",
    "mistral": "<end>",
    "silent": "<|im_end|>",
    "no-end": "<end>",
}


@pytest.fixture(scope="module")
def marked(small, tmp_path_factory):
    """The small base with the marks of all shapes among its tokens."""
    folder = tmp_path_factory.mktemp("bases") / "marked"
    with libraries.quiet():
        tokenizer, model = (
            base.load_tokenizer(str(small)),
            base.load_model(str(small), machine.find_machine("cpu")),
        )
        tokenizer.add_special_tokens({"bos_token": "<s>", "additional_special_tokens": MARKS[1:]})
        model.resize_token_embeddings(len(tokenizer))
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=SHAPES)
def shape(request, marked, tmp_path_factory):
    folder = shutil.copytree(marked, tmp_path_factory.mktemp("bases") / request.param)
    (folder / "chat_template.jinja").write_text(SHAPES[request.param])
    return request.param, engine.Engine(str(folder), machine.find_machine("cpu"))


@pytest.mark.parametrize("talk", [TALK, LONG], ids=["one turn", "three turns"])
def test_trained_weighed_and_sampled_prompts_are_the_same_tokens(shape, talk):
    _, held = shape
    row = {"prompt": talk, "completion": [{"role": "assistant", "content": ANSWER}]}
    trained = rows.tokenize_completions(held.tokenizer, [row], 999)
    start = trained["labels"][0].count(-100)
    prompt = trained["input_ids"][0][:start]
    assert (
        prompt == list(held.ask(talk).prompt) == choices.tokenize_prompts(held.tokenizer, [talk])[0]
    )
    assert trained["labels"][0] == [-100] * start + trained["input_ids"][0][start:]


def test_pairs_judged_answers_and_shares_are_learnt_after_the_same_prompt(shape):
    _, held = shape
    other = [{"role": "assistant", "content": "Disagree."}]
    pair = {"prompt": TALK, "chosen": [{"role": "assistant", "content": ANSWER}], "rejected": other}
    judged = {"prompt": TALK, "completion": other, "label": False}
    place = {"prompt": TALK, "options": ["Agree", "Disagree"], "shares": [0.5, 0.5]}
    prompt = list(held.ask(TALK).prompt)
    dpo, kto = (
        preference.build_dataset(held.tokenizer, [row], 999, 1)[0] for row in (pair, judged)
    )
    assert (
        dpo["prompt_ids"]
        == kto["prompt_ids"]
        == prompt
        == shares.find_places(held.tokenizer, [place])[0].ids
    )
    assert dpo["chosen_input_ids"] == prompt + dpo["chosen_ids"]
    assert dpo["chosen_labels"] == [-100] * len(prompt) + dpo["chosen_ids"]


def test_a_completion_is_the_answer_and_the_token_at_which_sampling_stops(shape):
    name, held = shape
    prompt, said = chat.tokenize_answers(held.tokenizer, [TALK], [ANSWER])[0]
    assert held.tokenizer.decode(said).lstrip(" ") == ANSWER + ENDS[name]
    assert said[-1] in held.ends and prompt.count(held.tokenizer.bos_token_id) <= 1


def test_options_begin_as_the_answer_that_holds_them_does(shape):
    _, held = shape
    opening = held.open_turn(TALK)
    (agree,) = choices.tokenize_options(held.tokenizer, opening, ["Agree"])
    _, said = chat.tokenize_answers(held.tokenizer, [TALK], ["Agree."])[0]
    assert agree == tuple(said[: len(agree)]) and len(said) == len(agree) + 1


def test_a_model_that_learnt_an_answer_says_it_from_the_sampled_prompt(shape):
    """Sixty steps on one row: what was trained is what sampling continues, its end included."""
    import torch

    _, held = shape
    prompt, said = chat.tokenize_answers(held.tokenizer, [TALK], ["Agree."])[0]
    kept = {name: weight.clone() for name, weight in held.model.state_dict().items()}
    optimiser, ids = (
        torch.optim.AdamW(held.model.parameters(), lr=4e-3),
        torch.tensor([prompt + said]),
    )
    labels = torch.tensor([[-100] * len(prompt) + said])
    for _ in range(60):
        held.model(ids, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    made = held.submit(held.ask(TALK, limit=20)).result(60)
    held.model.load_state_dict(kept)
    assert (made.text, made.finish) == ("Agree.", "stop")


@pytest.mark.parametrize(
    ("name", "held"),
    [("gemma", "user"), ("mistral", "user"), ("silent", "user"), ("llama", "system")],
)
def test_a_system_message_is_never_lost_and_stays_where_the_template_has_a_place_for_it(
    marked, name, held
):
    tokenizer = base.load_tokenizer(str(marked))
    tokenizer.chat_template = SHAPES[name]
    opening = chat.open_turns(tokenizer, [TALK])[0]
    assert SYSTEM in opening.text and opening.talk[0]["role"] == held


def test_a_template_that_writes_the_date_makes_one_prompt_on_any_day(marked):
    tokenizer = base.load_tokenizer(str(marked))
    tokenizer.chat_template = LLAMA
    assert (
        "system<|end_header|>\n\n26 Jul 2024\nYou are" in chat.open_turns(tokenizer, [TALK])[0].text
    )


def test_neighbours_of_one_role_are_joined_where_roles_must_alternate(marked):
    tokenizer = base.load_tokenizer(str(marked))
    tokenizer.chat_template = GEMMA
    talk = [TALK[1], {"role": "user", "content": "Say it briefly."}]
    assert f"{QUESTION}\n\nSay it briefly." in chat.open_turns(tokenizer, [talk])[0].text


BOMBS = [
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    (
        "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{%"
        " endfor %}{{ ns.x }}"
    ),
    "{{ 'a'.center(3 * 10 ** 9) }}",
    "{{ 'tea ' * 10 ** 6 }}" + CHATML,
]


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_template_that_takes_too_much_is_an_error_when_its_base_is_loaded(marked, tmp_path, bomb):
    folder = shutil.copytree(marked, tmp_path / "bomb")
    (folder / "chat_template.jinja").write_text(bomb)
    with pytest.raises(ModelError, match="chat template"):
        base.load_tokenizer(str(folder))


REFUSED = {
    "{{ raise_exception('Not today.') }}": "the chat template refuses these messages: Not today",
    "{{ 1 + 'a' }}": "the chat template refuses these messages",
    "{{ messages[0].content }}{{ messages[-1].content[:3] }}": "leaves out what the assistant says",
    "{{ messages[-1].content }}": "leaves out what the system says",
}


@pytest.mark.parametrize("template", REFUSED)
def test_a_template_that_cannot_be_honoured_is_one_clear_error(marked, template):
    tokenizer = base.load_tokenizer(str(marked))
    tokenizer.chat_template = template
    with pytest.raises(InputError, match=REFUSED[template]):
        chat.open_turns(tokenizer, [TALK])


def test_vllm_is_asked_to_open_answers_as_tuning_did(marked, tmp_path):
    for name in ("switch", "chatml"):
        folder = shutil.copytree(marked, tmp_path / name)
        (folder / "chat_template.jinja").write_text(SHAPES[name])
        command = vllm.build_commands(local_model.name_models([local_model.find_model(folder)]))[0]
        assert ("--default-chat-template-kwargs" in command) is (name == "switch")


def test_thoughts_in_an_answer_are_refused_where_the_template_takes_them_out(marked):
    tokenizer = base.load_tokenizer(str(marked))
    tokenizer.chat_template = THINKS
    with pytest.raises(InputError, match="thoughts in it"):
        chat.tokenize_answers(tokenizer, [TALK], ["<think>They may like it.</think>Agree."])


def test_a_base_without_a_template_begins_as_its_tokenizer_does(small, marked, tmp_path):
    from tokenizers.processors import TemplateProcessing

    folder = shutil.copytree(marked, tmp_path / "begins")
    tokenizer = base.load_tokenizer(str(folder))
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").unlink()
    ids = chat.open_turns(base.load_tokenizer(str(folder)), [TALK])[0].tokens
    assert ids[0] == tokenizer.bos_token_id and ids.count(tokenizer.bos_token_id) == 1


def test_words_after_a_prompt_keep_their_space_where_the_tokenizer_marks_it(tmp_path):
    """SentencePiece's way: a text's first word gets a mark of its own, which an answer after
    `[/INST]` must not get twice.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer, raw.decoder = (
        pre_tokenizers.Metaspace(prepend_scheme="first"),
        decoders.Metaspace(),
    )
    marks = ["<s>", "</s>", "[INST]", "[/INST]"]
    raw.train_from_iterator(
        [SYSTEM, QUESTION, ANSWER] * 9,
        trainers.BpeTrainer(special_tokens=marks, show_progress=False),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = MISTRAL
    prompt, said = chat.tokenize_answers(tokenizer, [TALK], [ANSWER])[0]
    assert tokenizer.convert_ids_to_tokens(said)[0].startswith("▁A")
    assert tokenizer.decode(prompt + said).endswith(f"[/INST] {ANSWER}</s>")


@given(
    st.lists(
        st.tuples(st.sampled_from(["system", "user", "assistant"]), st.text("ab ,.\n", min_size=1)),
        max_size=6,
    )
)
def test_joined_neighbours_alternate_and_lose_no_word(parts):
    joined = chat.join_neighbours([{"role": role, "content": text} for role, text in parts])
    roles = [m["role"] for m in joined]
    assert all(a != b for a, b in pairwise(roles))
    words = [word for _, text in parts for word in text.split()]
    assert [word for m in joined for word in m["content"].split()] == words
