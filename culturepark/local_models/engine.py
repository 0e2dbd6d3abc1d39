"""A base with any number of adapters, loaded once: answers what waits in batches, whichever adapter
each request is for.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal
from weakref import WeakValueDictionary

from culturepark.errors import InputError, ModelError
from culturepark.local_models import base, choices, libraries, machine, reading
from culturepark.local_models.chat import Opening, Talk, find_end, open_turns
from culturepark.local_models.local_model import LocalModel, check_mixable
from culturepark.local_models.machine import Machine
from culturepark.local_models.schemas import Guide, Guides

ROWS = 32  # requests of one batch, at most
# batches of places where options part that are worked on at once, so that like lengths stand
# together
SPREAD = 8
LINGER = 0.01  # seconds that a batch that is not full is waited for
SLICE, SLACK = (
    16_384,
    16,
)  # characters that are read at once to see whether a text fits, and tokens that cutting them adds
BASE = "__base__"  # PEFT's name for no adapter


class TooLong(InputError):
    """A prompt that leaves no room for an answer. Nothing is ever cut from a prompt."""


@dataclass(frozen=True)
class GenerationRequest:
    """One request: a prompt's tokens, who answers, and how.

    `temperature` 0 takes the likeliest token; `top_p` draws from the likeliest tokens that make up
    this share; one `seed` draws one answer, whatever shares the batch. `top` asks for
    log-probabilities, and for so many alternatives a token. `lead` are the spaces with which the
    chat template opens an answer; they are no part of its text. `schema` is a JSON schema to keep
    to, as text.
    """

    prompt: tuple[int, ...]
    adapter: str
    limit: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    top: int | None = None
    stop: tuple[str, ...] = ()
    lead: str = ""
    schema: str | None = None


@dataclass(frozen=True)
class Token:
    """A token that was said: its text, its log-probability (nats, of the model's own distribution),
    and the likeliest ones.
    """

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Generation:
    """An answer. `completion_tokens` counts the end of turn where one was said; `tokens` and it
    (`end`) are kept if asked for.
    """

    text: str
    finish: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int
    tokens: tuple[Token, ...] = ()
    end: Token | None = None


Heard = Callable[[str, tuple[Token, ...]], None]


@dataclass(frozen=True)
class OptionsRequest:
    """A question of how a model's own distribution over options is: the prompt's tokens, where its
    options part, who is asked.
    """

    prompt: tuple[int, ...]
    tree: tuple[choices.Fork, ...]
    count: int
    adapter: str
    future: Future[list[float]]


@dataclass(frozen=True)
class ReadRequest:
    """A question of how likely a model finds given tokens, with so many alternatives (`top`) per
    token.
    """

    prompt: tuple[int, ...]
    top: int
    adapter: str
    future: Future[list[Token]]


@dataclass
class RunningRequest:
    """One request at work: what was said so far, and whether that is all."""

    ask: GenerationRequest
    future: Future[Generation]
    said: list[int] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)
    done: bool = False
    finish: Literal["stop", "length"] = "length"
    heard: Heard | None = None
    told: tuple[int, int] = (0, 0)  # characters and tokens that were passed on
    guide: Guide | None = None
    end: Token | None = None

    def __post_init__(self) -> None:
        self.rng = Random(self.ask.seed)  # noqa: S311


class Engine:
    """A loaded base, its adapters, and a thread that answers. `batches` and `answered` count what
    was done.

    Requests of different adapters, temperatures and lengths share a batch (PEFT's mixed adapters);
    at most `rows` of them, and fewer where their caches would not fit the device's memory.
    """

    def __init__(self, root: str, found: Machine, rows: int = ROWS) -> None:
        with libraries.quiet():
            self.tokenizer, self.model = (
                base.load_tokenizer(root),
                base.load_model(root, found).eval(),
            )
        self.root, self.machine, self.rows = root, found, rows
        self.ends = _find_end_tokens(self.model, self.tokenizer)
        self.context = _measure_context(self.model.config, self.tokenizer)
        self.tokenizer.model_max_length = (
            2**31
        )  # or it warns of prompts that are refused here anyway
        self.room = _measure_room(self.model.config, found)
        self.batches = self.answered = 0
        self._adapters: dict[str, str] = {}
        self._waiting: deque[RunningRequest] = deque()
        self._weighing: deque[OptionsRequest] = deque()
        self._reading: deque[ReadRequest] = deque()
        self._guides: Guides | None = None
        self._guiding = threading.Lock()
        self._gate, self._busy, self._working = threading.Lock(), False, threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="culturepark-engine")

    # ------------------------------------------------------------- adapters

    def add(self, model: LocalModel) -> str:
        """Load a model's adapter unless it is there; return the name by which a request asks for
        it.
        """
        if model.adapter is None:
            return BASE
        with self._working:
            if model.hash not in self._adapters:
                name = f"a{len(self._adapters)}"
                self.model = attach_adapter(self.model, model, name)
                self._adapters[model.hash] = name
            return self._adapters[model.hash]

    # ------------------------------------------------------------- requests

    def tokens(self, talk: Talk) -> tuple[int, ...]:
        """Return a conversation as tokens, up to where the model speaks; InputError where the
        base's template refuses it.
        """
        return self.open_turn(talk).tokens

    def open_turn(self, talk: Talk) -> Opening:
        """Return a conversation up to where the model speaks; InputError where the base's template
        refuses it.
        """
        self._refuse_long("".join(message["content"] for message in talk))
        return open_turns(self.tokenizer, [talk])[0]

    def read_text(self, text: str) -> tuple[int, ...]:
        """Return a text as tokens, with those that the tokenizer itself puts before it; TooLong
        where it cannot fit.
        """
        self._refuse_long(text)
        return tuple(self.tokenizer(text)["input_ids"])

    def check_tokens(self, tokens: Sequence[int]) -> tuple[int, ...]:
        """Return token ids as they are; InputError for one that the model does not have."""
        odd = next((t for t in tokens if t >= self._vocabulary), None)
        if odd is not None:
            raise InputError(
                f"there is no token {odd}; the model has {self._vocabulary}, the first is 0"
            )
        return tuple(tokens)

    def write(self, tokens: Sequence[int]) -> str:
        """Return tokens as text, marks of the tokenizer's own included."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=False))

    def write_pieces(self, tokens: Sequence[int], text: str) -> list[str]:
        """Return what each token of `text` adds to it: nothing for half a character, and for marks
        that the text has not.
        """
        own = self.tokenizer.bos_token
        hidden = (
            bool(own) and tokens[:1] == (self.tokenizer.bos_token_id,) and not text.startswith(own)
        )
        pieces, begin, shown = list[str](), 0, ""
        for i in range(len(tokens)):
            whole = self.write(tokens[begin : i + 1])
            if whole.endswith("\ufffd"):
                pieces.append("")
                continue
            pieces.append(whole[len(shown) :])
            begin, shown = i, self.write(tokens[i : i + 1])
        return ["", *pieces[1:]] if hidden else pieces

    def check_schema(self, schema: str) -> None:
        """Raise InputError where answers cannot be held to a JSON schema."""
        self._guides_of_base().begin(schema)

    def _refuse_long(self, text: str) -> None:
        """Raise TooLong for a text that cannot fit; no more of it is read than tells that."""
        count = 0
        for at in range(0, len(text) if len(text) > SLICE else 0, SLICE):
            ids = self.tokenizer(text[at : at + SLICE], add_special_tokens=False)["input_ids"]
            count += max(0, len(ids) - SLACK)
            if count >= self.context:
                raise TooLong(
                    f"the prompt has more than {count} tokens, and the {self._describe_limit}"
                )

    @property
    def _describe_limit(self) -> str:
        return f"maximum context length is {self.context}"

    async def complete(
        self, talk: Talk, adapter: str = BASE, limit: int | None = None, **how: Any
    ) -> Generation:
        """Answer a conversation with an adapter that `add` named; `how` is as in an Ask. TooLong
        where the prompt does not fit.

        Without `limit`, or with one beyond the context, an answer may fill what the prompt leaves,
        and then ends as `length`.
        """
        return await asyncio.wrap_future(self.submit(self.ask(talk, adapter, limit, **how)))

    def ask(
        self, talk: Talk, adapter: str = BASE, limit: int | None = None, **how: Any
    ) -> GenerationRequest:
        """Return the request that `complete` would make."""
        opening = self.open_turn(talk)
        return self.ask_tokens(opening.tokens, adapter, limit, lead=opening.lead, **how)

    def ask_tokens(
        self, prompt: Sequence[int], adapter: str = BASE, limit: int | None = None, **how: Any
    ) -> GenerationRequest:
        """Return the request to go on where these tokens end; TooLong where they leave no room."""
        left = self.context - len(prompt)
        if left < 1:
            raise TooLong(f"the prompt has {len(prompt)} tokens, and the {self._describe_limit}")
        return GenerationRequest(tuple(prompt), adapter, min(limit or left, left), **how)

    async def read(self, prompt: Sequence[int], adapter: str = BASE, top: int = 0) -> list[Token]:
        """Return how likely an adapter finds each token of a text but the first, and the `top`
        likeliest in its place.
        """
        if len(prompt) > self.context:
            raise TooLong(f"the prompt has {len(prompt)} tokens, and the {self._describe_limit}")
        future: Future[list[Token]] = Future()
        self._enqueue(self._reading, ReadRequest(tuple(prompt), top, adapter, future))
        return await asyncio.wrap_future(future)

    async def weigh(self, talk: Talk, options: Sequence[str], adapter: str = BASE) -> list[float]:
        """Return an adapter's distribution over the options with which its answer may begin, as
        `choices.distribution` does.

        TooLong where prompt and options do not fit; InputError where options cannot be told apart.
        """
        opening = self.open_turn(talk)
        prompt, answers = opening.tokens, choices.tokenize_options(self.tokenizer, opening, options)
        if (most := len(prompt) + max(map(len, answers))) > self.context:
            raise TooLong(f"prompt and options have {most} tokens, and the {self._describe_limit}")
        future: Future[list[float]] = Future()
        self._enqueue(
            self._weighing,
            OptionsRequest(prompt, choices.find_forks(answers), len(options), adapter, future),
        )
        return await asyncio.wrap_future(future)

    async def stream(
        self, ask: GenerationRequest
    ) -> AsyncGenerator[tuple[str, tuple[Token, ...]] | Generation, None]:
        """Yield an answer piece by piece, each with its tokens where these were asked for, and the
        whole of it last.
        """
        loop, queue = (
            asyncio.get_running_loop(),
            asyncio.Queue[tuple[str, tuple[Token, ...]] | None](),
        )

        def hear(piece: tuple[str, tuple[Token, ...]] | None) -> None:
            with suppress(RuntimeError):  # the loop has ended: nobody listens
                loop.call_soon_threadsafe(queue.put_nowait, piece)

        future = self.submit(ask, lambda text, tokens: hear((text, tokens)))
        future.add_done_callback(lambda _: hear(None))
        try:
            while (piece := await queue.get()) is not None:
                yield piece
            yield future.result()
        finally:
            future.cancel()

    def submit(self, ask: GenerationRequest, heard: Heard | None = None) -> Future[Generation]:
        """Let a request wait for the next batch. A future that is cancelled is left out, or ends at
        its next token.

        `heard` is told each new piece of text and its tokens, in the engine's thread.
        """
        row = RunningRequest(ask, Future(), heard=heard, guide=self._guide(ask))
        self._enqueue(self._waiting, row)
        return row.future

    def _guide(self, ask: GenerationRequest) -> Guide | None:
        """Return what holds a request's answer to its schema; InputError where it cannot be kept or
        llguidance is missing.
        """
        if ask.schema is None:
            return None
        return self._guides_of_base().begin(ask.schema)

    def _guides_of_base(self) -> Guides:
        with self._guiding:
            self._guides = self._guides or Guides(self.tokenizer, self._vocabulary, self.ends)
            return self._guides

    @property
    def _vocabulary(self) -> int:
        return int(self.model.get_output_embeddings().weight.shape[0])

    def _enqueue(self, queue: deque[Any], what: Any) -> None:
        with self._gate:
            queue.append(what)
            if not self._busy:
                self._busy = True
                self._thread.submit(self._work)

    # ------------------------------------------------------------ the thread

    def _work(self) -> None:
        """Answer until nothing waits."""
        while True:
            if max(len(self._waiting), len(self._weighing), len(self._reading)) < self.rows:
                time.sleep(LINGER)  # those just answered ask again in a moment
            with self._gate:
                batch, weighed, read = self._next_batch(), self._heaviest(), self._next_read()
                if not batch and not weighed and not read:
                    self._busy = False
                    return
            with self._working:
                if batch:
                    self._answer(batch)
                if weighed:
                    self._weigh(weighed)
                if read:
                    self._read(read)

    def _heaviest(self) -> list[OptionsRequest]:
        """Return the next questions of distributions, as many as fill a few batches of places where
        options part.
        """
        requests, places = list[OptionsRequest](), 0
        while self._weighing and (
            not requests or places + len(self._weighing[0].tree) <= SPREAD * self.rows
        ):
            one = self._weighing.popleft()
            if not one.future.cancelled():
                requests.append(one)
                places += len(one.tree)
        return requests

    def _weigh(self, requests: Sequence[OptionsRequest]) -> None:
        try:
            distributions = choices.weigh_forks(
                self.model,
                self.tokenizer,
                [w.prompt for w in requests],
                [w.tree for w in requests],
                [w.count for w in requests],
                names=[w.adapter for w in requests] if self._adapters else None,
                rows=self.rows,
            )
        except Exception as error:
            for one in requests:
                with suppress(InvalidStateError):
                    one.future.set_exception(error)
            return
        for one, shares in zip(requests, distributions, strict=True):
            with suppress(InvalidStateError):
                one.future.set_result(shares)

    def _next_read(self) -> list[ReadRequest]:
        """Return the next texts to be read, as many as there are rows and memory for."""
        requests, longest = list[ReadRequest](), 0
        while self._reading and len(requests) < self.rows:
            longest = max(longest, len(self._reading[0].prompt))
            if requests and longest * (len(requests) + 1) > self.room:
                break
            one = self._reading.popleft()
            if not one.future.cancelled():
                requests.append(one)
        return requests

    def _read(self, requests: Sequence[ReadRequest]) -> None:
        try:
            rows = reading.read_rows(
                self.model,
                self.tokenizer,
                [r.prompt for r in requests],
                max(r.top for r in requests),
                [r.adapter for r in requests] if self._adapters else None,
            )
            answers = [self._tokens_read(r, row) for r, row in zip(requests, rows, strict=True)]
        except Exception as error:
            _fail_rows(requests, error)
            return
        for one, tokens in zip(requests, answers, strict=True):
            with suppress(InvalidStateError):
                one.future.set_result(tokens)

    def _tokens_read(self, one: ReadRequest, row: Sequence[reading.Read]) -> list[Token]:
        return [
            self._token(token, logprob, likeliest[: one.top])
            for token, (logprob, likeliest) in zip(one.prompt[1:], row, strict=True)
        ]

    def _token(self, token: int, logprob: float, likeliest: Sequence[tuple[int, float]]) -> Token:
        decode = self.tokenizer.decode
        return Token(
            decode([token]), logprob, tuple((decode([other]), x) for other, x in likeliest)
        )

    def _next_batch(self) -> list[RunningRequest]:
        """Return the next batch: the first of those that wait, as many as there are rows and memory
        for.
        """
        batch, longest = list[RunningRequest](), 0
        while self._waiting and len(batch) < self.rows:
            ask = self._waiting[0].ask
            longest = max(longest, len(ask.prompt) + ask.limit)
            if batch and longest * (len(batch) + 1) > self.room:
                break
            row = self._waiting.popleft()
            if not row.future.cancelled():
                batch.append(row)
        return batch

    def _answer(self, batch: list[RunningRequest]) -> None:
        """Answer a batch; one that does not fit the device's memory after all is halved."""
        import torch

        try:
            self._generate(batch)
        except torch.OutOfMemoryError as error:
            if len(batch) == 1:
                _fail_rows(batch, error)
                return
            self.room = max(1, self.room // 2)
            for half in (batch[::2], batch[1::2]):
                self._answer([self._restart(row) for row in half])
        except Exception as error:
            _fail_rows(batch, error)

    def _restart(self, row: RunningRequest) -> RunningRequest:
        """Return a request that begins anew; what was passed on of it is not passed on again."""
        return RunningRequest(
            row.ask, row.future, heard=row.heard, told=row.told, guide=self._guide(row.ask)
        )

    def _generate(self, batch: list[RunningRequest]) -> None:
        import torch
        from transformers import GenerationConfig

        longest, device = max(len(row.ask.prompt) for row in batch), self.model.device
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor(
            [[pad] * (longest - len(r.ask.prompt)) + list(r.ask.prompt) for r in batch],
            device=device,
        )
        mask = torch.tensor(
            [[0] * (longest - len(r.ask.prompt)) + [1] * len(r.ask.prompt) for r in batch],
            device=device,
        )
        config = GenerationConfig(
            do_sample=False,
            max_new_tokens=max(r.ask.limit for r in batch),
            pad_token_id=pad,
            use_cache=True,
        )
        mixed = {"adapter_names": [row.ask.adapter for row in batch]} if self._adapters else {}
        with torch.inference_mode():
            self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=config,
                logits_processor=_build_processors(_build_sampler(self, batch)),
                stopping_criteria=_build_stopping(batch),
                **mixed,
            )
        self.batches += 1
        for row in batch:
            with suppress(InvalidStateError):  # cancelled meanwhile
                row.future.set_result(self._build_generation(row))
                self.answered += 1

    def take(
        self, row: RunningRequest, token: int, log: tuple[float, list[tuple[int, float]]] | None
    ) -> None:
        """Let a row say a token, with its log-probability and the likeliest tokens' where they were
        asked for.
        """
        row.said.append(token)
        ended = token in self.ends
        if log is not None and ended:
            row.end = self._token(token, *log)
        elif log is not None:
            row.tokens.append(self._token(token, *log))
        if (
            ended
            or self._follow(row, token)
            or (row.ask.stop and self._cut_at_stop(row) is not None)
        ):
            row.done, row.finish = True, "stop"
        elif len(row.said) >= row.ask.limit or row.future.cancelled():
            row.done = True
        if row.heard is not None:
            self._pass_on(row, row.heard)

    def _follow(self, row: RunningRequest, token: int) -> bool:
        """Let a row's schema follow a token, and say whether the answer is whole."""
        with _failing(row):
            return row.guide is not None and row.guide.take(token)
        return True

    def _pass_on(self, row: RunningRequest, heard: Heard) -> None:
        """Pass on what is new and will stay: no half characters, nothing that may be the beginning
        of a stop text.
        """
        cut = self._cut_at_stop(row)
        text = self._decode(row) if cut is None else cut
        if not row.done:
            text = text.rstrip("\ufffd")
            text = text[: len(text) - max((len(s) - 1 for s in row.ask.stop), default=0)]
        characters, tokens = row.told
        if len(text) > characters or row.done:
            heard(text[characters:], tuple(row.tokens[tokens:]))
            row.told = len(text), len(row.tokens)

    def _decode(self, row: RunningRequest) -> str:
        tokens = [t for t in row.said if t not in self.ends]
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True)).removeprefix(
            row.ask.lead
        )

    def _cut_at_stop(self, row: RunningRequest) -> str | None:
        """Return what a row said before the first of its stop texts; None where none was said."""
        text = self._decode(row)
        ends = [at for stop in row.ask.stop if (at := text.find(stop)) >= 0]
        return text[: min(ends)] if ends else None

    def _build_generation(self, row: RunningRequest) -> Generation:
        text = self._cut_at_stop(row)
        answer = self._decode(row) if text is None else text
        return Generation(
            answer, row.finish, len(row.ask.prompt), len(row.said), tuple(row.tokens), row.end
        )


# ------------------------------------------------------------------- drawing


def draw_tokens(scores: Any, asks: Sequence[GenerationRequest], shares: Sequence[float]) -> Any:
    """Return a token a row, by its own temperature and top-p. `shares`, from 0 to 1, say where in
    the distribution each falls.

    `scores` are logits, shape (rows, vocabulary). What a row draws depends on its own logits and
    share alone.
    """
    import torch

    chosen = scores.argmax(-1)
    warm = [i for i, ask in enumerate(asks) if ask.temperature > 0]
    for narrow in (False, True):
        rows = [i for i in warm if (asks[i].top_p < 1) is narrow]
        if not rows:
            continue
        heat = scores.new_tensor([max(asks[i].temperature, 1e-4) for i in rows])[:, None]
        places, order = (scores[rows] / heat).softmax(-1), None
        if narrow:
            places, order = places.sort(-1, descending=True)
            kept = (
                places.cumsum(-1) - places
                < scores.new_tensor([asks[i].top_p for i in rows])[:, None]
            )
            places = places * kept
        sums = places.double().cumsum(-1) if scores.device.type != "mps" else places.cumsum(-1)
        aims = (
            torch.tensor([shares[i] for i in rows], dtype=sums.dtype, device=sums.device)[:, None]
            * sums[:, -1:]
        )
        picks = torch.searchsorted(sums, aims, right=True).clamp(max=scores.shape[-1] - 1)
        # Rounding may point behind the last token that can be drawn.
        picks = torch.where(places.gather(-1, picks) > 0, picks, places.argmax(-1, keepdim=True))
        chosen[rows] = (picks if order is None else order.gather(-1, picks))[:, 0]
    return chosen


def _build_sampler(engine: Engine, batch: Sequence[RunningRequest]) -> Any:
    """Return what draws each row's next token and writes it down; `generate` then takes it as the
    only one there is.
    """
    from transformers import LogitsProcessor

    most = max((row.ask.top or 0 for row in batch), default=0)
    wanting = [i for i, row in enumerate(batch) if row.ask.top is not None]
    asks = [row.ask for row in batch]

    class Drawer(LogitsProcessor):
        """Draws."""

        def __call__(self, input_ids: Any, scores: Any) -> Any:
            scores = scores.float()
            masked = _mask_logits(scores, batch)
            chosen = draw_tokens(
                masked,
                asks,
                [row.rng.random() if row.ask.temperature > 0 else 0.0 for row in batch],
            )
            logs = _read_logprobs(scores[wanting], chosen[wanting], most) if wanting else []
            by_row = dict(zip(wanting, logs, strict=True))
            for i, token in enumerate(chosen.tolist()):
                if not batch[i].done:
                    single, likeliest = by_row.get(i, (0.0, []))
                    engine.take(
                        batch[i],
                        token,
                        (single, likeliest[: batch[i].ask.top]) if i in by_row else None,
                    )
            return scores.new_full(scores.shape, float("-inf")).scatter_(1, chosen[:, None], 0.0)

    return Drawer()


def _mask_logits(scores: Any, batch: Sequence[RunningRequest]) -> Any:
    """Return the logits with what would leave a row's schema taken out; the log-probabilities stay
    the model's own.
    """
    guided = [i for i, row in enumerate(batch) if row.guide is not None and not row.done]
    if not guided:
        return scores
    masked = scores.clone()
    for i in guided:
        with _failing(batch[i]):
            masked[i] = batch[i].guide.narrow(scores[i])  # type: ignore[union-attr]
    return masked


@contextmanager
def _failing(row: RunningRequest) -> Iterator[None]:
    """Let a schema that cannot be kept after all fail its own request and no other of the batch."""
    try:
        yield
    except InputError as error:
        row.done = True
        with suppress(InvalidStateError):
            row.future.set_exception(error)


def _read_logprobs(
    scores: Any, chosen: Any, most: int
) -> list[tuple[float, list[tuple[int, float]]]]:
    """Return each row's log-probability of the chosen token, and its likeliest tokens with
    theirs.
    """
    logs = scores.log_softmax(-1)
    single = logs.gather(-1, chosen[:, None])[:, 0].tolist()
    if not most:
        return [(x, []) for x in single]
    values, tokens = logs.topk(min(most, logs.shape[-1]), -1)
    return [
        (x, list(zip(t, v, strict=True)))
        for x, t, v in zip(single, tokens.tolist(), values.tolist(), strict=True)
    ]


def _build_processors(processor: Any) -> Any:
    from transformers import LogitsProcessorList

    return LogitsProcessorList([processor])


def _build_stopping(batch: Sequence[RunningRequest]) -> Any:
    """Return what ends the rows that have said all."""
    import torch
    from transformers import StoppingCriteria, StoppingCriteriaList

    class Ended(StoppingCriteria):
        """Says which rows have ended."""

        def __call__(self, input_ids: Any, scores: Any, **more: Any) -> Any:
            return torch.tensor([row.done for row in batch], device=input_ids.device)

    return StoppingCriteriaList([Ended()])


def _fail_rows(batch: Sequence[RunningRequest | ReadRequest], error: Exception) -> None:
    for row in batch:
        with suppress(InvalidStateError):
            row.future.set_exception(error)


# ------------------------------------------------------------------- loading

_held: WeakValueDictionary[tuple[str, ...], Engine] = WeakValueDictionary()
_last: list[Engine] = []  # kept from one stage of a run to the next: its base is loaded once
_loading = threading.Lock()


def share_engine(model: LocalModel, hardware: Machine | None = None, rows: int = ROWS) -> Engine:
    """Return the engine of a model's base with its adapter added; an engine that this process uses
    already is shared.
    """
    hardware = hardware or machine.find_machine()
    key = (model.root, model.base_hash, hardware.device, hardware.dtype, hardware.attention)
    with _loading:
        engine = _held.get(key) or Engine(model.root, hardware, rows)
        engine.rows = max(engine.rows, rows)
        _held[key], _last[:] = engine, [engine]
    engine.add(model)
    return engine


def attach_adapter(whole: Any, model: LocalModel, name: str, *, alone: bool = False) -> Any:
    """Return a base with one more adapter on it; ModelError where the adapter is damaged or does
    not fit the base.

    `alone`: it will share the base with no other, so it may be of any kind.
    """
    from peft import LoraConfig, PeftModel, PeftModelForCausalLM

    folder = model.adapter
    if folder is None:
        return whole
    if not alone:
        check_mixable(folder)
    bare, model_with_adapters, odd = not isinstance(whole, PeftModel), whole, ["nothing was read"]
    try:
        with libraries.quiet(), libraries.explain_damage(f"cannot load the adapter at {folder}"):
            if bare:
                config = LoraConfig.from_pretrained(str(folder), inference_mode=True)
                model_with_adapters = PeftModelForCausalLM(whole, config, adapter_name=name)
            loaded = model_with_adapters.load_adapter(
                str(folder), adapter_name=name, is_trainable=False
            )
        odd = [*loaded.missing_keys, *loaded.unexpected_keys]
    finally:
        if odd:
            _detach(model_with_adapters, name, bare)
    if odd:
        raise ModelError(
            f"the adapter at {folder} does not fit {model.title}: of {len(odd)} weights one side"
            f" has none, {odd[0]} first"
        )
    return model_with_adapters.eval()


def _detach(model: Any, name: str, bare: bool) -> None:
    """Take off an adapter that could not be loaded, so that the base speaks as before."""
    if name in getattr(model, "peft_config", {}):
        model.unload() if bare else model.delete_adapter(name)


def _find_end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return the tokens that end a turn, and let nothing of the base's own settings shape how
    tokens are drawn.
    """
    from transformers import GenerationConfig

    own = model.generation_config.eos_token_id
    ends = {
        *(own if isinstance(own, list) else [own]),
        tokenizer.eos_token_id,
        find_end(tokenizer),
    } - {None}
    model.generation_config = GenerationConfig(pad_token_id=tokenizer.pad_token_id)
    return frozenset(ends)


def _measure_context(config: Any, tokenizer: Any) -> int:
    """Return how many tokens prompt and answer may have together."""
    text = config.get_text_config()
    longest = getattr(text, "max_position_embeddings", None) or tokenizer.model_max_length
    return int(min(longest, 2**31))


def _measure_room(config: Any, hardware: Machine) -> int:
    """Return how many tokens' keys and values fit half of the memory that is left."""
    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or getattr(text, "num_attention_heads", 1)
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    bytes_each = (
        2 * text.num_hidden_layers * heads * size * (4 if hardware.dtype == "float32" else 2)
    )
    now = machine.find_machine(hardware.device, hardware.dtype, hardware.attention)
    return max(1, int(now.memory * 0.5 / bytes_each))
