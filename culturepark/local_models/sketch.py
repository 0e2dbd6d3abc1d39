"""A small untrained base, built in a moment: what a reward model on it gets right it learnt from
its pairs.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from culturepark.local_models.libraries import TEMPLATE


def sketch_base(
    folder: Path,
    texts: Iterable[str],
    width: int = 32,
    vocabulary: int = 4_000,
    seed: int = 0,
    dropout: float = 0.0,
) -> Path:
    """Write a base of one small untrained layer with a tokenizer learnt from `texts`, and return
    its folder.

    It knows nothing: what a reward model on it gets right it learnt from the pairs it was given.
    `width` is its hidden size.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    marks = ["<pad>", "<end>", "<|system|>", "<|user|>", "<|assistant|>"]
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer, raw.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoders.ByteLevel(),
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=marks,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    raw.train_from_iterator(sorted(set(texts)), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token=marks[1], pad_token=marks[0], model_max_length=512
    )
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(seed)
    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        attention_dropout=dropout,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
