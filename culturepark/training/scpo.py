"""Culturally steerable reward models (SCPO): what each variant learns from, and the runs that train
and judge them.

Oh et al. 2026, arXiv 2606.18606, §3. A global reward model, trained on every country's pairs, gives
each pair of a country reference rewards r⁺ (chosen) and r⁻ (rejected). The filter keeps what it
does not find clear already, the weight takes down what it finds far off; a country's model starts
from the global one and learns from what is left.

Where the released code goes wrong this does not: rewards are told without dropout, by models that
have not seen the user, in the very text that is trained on, with all earlier turns; splits hold
users apart and keep countries in proportion; who is in a minority is said by the data, or else by
models that are not judged, in one way for training and test.
"""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from culturepark.atomic import discard, write_text
from culturepark.errors import CardError, InputError, Locked, NotFound, RunFailed, nearest
from culturepark.local_models import base, machine, manifest, rewards
from culturepark.local_models.libraries import quiet, writing
from culturepark.local_models.machine import Machine
from culturepark.local_models.rewards import Result
from culturepark.records import Preference, Record, digest, stream
from culturepark.surveys.votes import (
    Votes,
    read_votes,
    slugify,
    split_by_user,
    split_into_folds,
)
from culturepark.toml import explain
from culturepark.training import reward

# What each variant of the paper's table leaves in: (filter?, weight: "", "weight" or "inverse").
# `global` is not trained further, `full` learns from all pairs alike, `tuned` is filter+weight with
# τ and β chosen on validation users.
LEARNS: dict[str, tuple[bool, str]] = {
    "full": (False, ""),
    "filter": (True, ""),
    "weight": (False, "weight"),
    "inverse": (False, "inverse"),
    "filter+weight": (True, "weight"),
    "tuned": (True, "weight"),
}
VARIANTS = ("global", "full", "filter", "weight", "inverse", "filter+weight")
TAUS, BETAS = (0.6, 0.7, 0.8, 0.9), (0.5, 1.1, 2.0)
MOST = 80.0  # the largest exponent of an inverse weight: e^80 is a float32 still
RATES = {"full": 1e-5, "lora": 1e-4}
TINY = {"full": 1e-3, "lora": 4e-3}  # the offline base is small and learns at larger steps
Tell = Callable[[str, dict[str, Any]], None]


class Terms(Record):
    """Everything that determines a run save its data, countries, variants, seeds and shares.

    `tau` (0 to 1) and `beta` (in units of reward) are the filter's and the weight's. `reference`:
    `trained` makes a global reward model of the base on all countries' training pairs, `base` takes
    the base, a reward model already, for it. `lr` is the largest step size, `batch` the pairs a
    step; a country's model takes `steps` steps or, where that is None, as many as `epochs` passes
    over the country's pairs have, whatever its variant leaves of them; so does the global one with
    `global_lr` and `global_epochs`. `length` is the most tokens of a conversation, its beginning
    cut. `held` is the share of users held out, `folds` how many parts the reference rewards are
    cross-fitted in. `rank` and `alpha` shape adapters (method `lora`).
    """

    base: str
    method: Literal["full", "lora"] = "full"
    reference: Literal["trained", "base"] = "trained"
    tau: Annotated[float, Field(gt=0, le=1)] = 0.7
    beta: Annotated[float, Field(gt=0)] = 1.10
    lr: Annotated[float, Field(gt=0)] | None = None
    batch: Annotated[int, Field(gt=0)] = 8
    steps: Annotated[int, Field(gt=0)] | None = None
    epochs: Annotated[float, Field(gt=0)] = 3.0
    global_lr: Annotated[float, Field(gt=0)] | None = None
    global_epochs: Annotated[float, Field(gt=0)] = 2.0
    length: Annotated[int, Field(ge=16)] = 512
    held: Annotated[float, Field(gt=0, lt=1)] = 0.15
    folds: Annotated[int, Field(ge=2)] = 2
    rank: Annotated[int, Field(gt=0, le=1024)] = 16
    alpha: Annotated[float, Field(gt=0)] = 32
    device: str | None = None

    @property
    def rate(self) -> float:
        """The largest step size of a country's model."""
        return self.lr or (TINY if self.base == base.TINY else RATES)[self.method]


PRESETS: dict[str, dict[str, Any]] = {
    "scpo": {
        "base": "OpenAssistant/reward-model-deberta-v3-base",
        "reference": "base",
        "method": "full",
        "lr": 1e-6,
        "batch": 8,
        "steps": 1024,
        "length": 512,
        "tau": 0.7,
        "beta": 1.10,
        "held": 0.15,
    },
}


def terms(preset: str | None = None, **given: Any) -> Terms:
    """Return the terms of a preset with what was said beside it; CardError names each mistake,
    InputError a preset there is not.
    """
    if preset is not None and preset not in PRESETS:
        raise InputError(f"no preset {preset!r} for scpo. {nearest(preset, PRESETS)}")
    data = {
        **(PRESETS[preset] if preset else {}),
        **{k: v for k, v in given.items() if v is not None},
    }
    if "base" not in data:
        raise InputError(
            "which base? Give --base with a folder, a hub name, or `tiny` (built here, no"
            " download), or --preset scpo"
        )
    try:
        return Terms.model_validate(data)
    except ValidationError as error:
        raise CardError([f"scpo: {line}" for line in explain(error, Terms)]) from error


# ---------------------------------------------------------------- formulas


def kept(plus: Any, minus: Any, tau: float) -> Any:
    """Return which pairs the filter keeps: σ(r⁺ − r⁻) < τ (arXiv 2606.18606, §3); tensors of shape
    (pairs,), the result boolean.

    Compared as r⁺ − r⁻ < log(τ / (1 − τ)), which neither overflows, as exp(r⁺) / (exp(r⁺) +
    exp(r⁻)) does, nor rounds to 1.
    """
    return plus - minus < (math.inf if tau >= 1 else math.log(tau / (1 - tau)))


def weight(plus: Any, minus: Any, beta: float) -> Any:
    """Return min(exp((r⁺ − r⁻) / β), 1) (arXiv 2606.18606, §3), shape (pairs,): 1 where the
    reference agrees, less the more it does not.
    """
    return ((plus - minus) / beta).clamp(max=0).exp()


def inverse(plus: Any, minus: Any, beta: float) -> Any:
    """Return the ablation's inverse weight, 1 / w = max(exp((r⁻ − r⁺) / β), 1), shape (pairs,):
    more the less the reference agrees.

    As in the authors' released trainer (there with β = 1), which takes a quotient of exponentials;
    here the exponent is bounded, so that every weight is finite.
    """
    return ((minus - plus) / beta).clamp(min=0, max=MOST).exp()


def weighed(variant: str, plus: Any, minus: Any, tau: float, beta: float) -> tuple[Any, Any]:
    """Return which pairs a variant learns from (boolean) and every pair's weight, both of shape
    (pairs,).
    """
    filters, how = LEARNS[variant]
    weights = {
        "": lambda: (plus - minus).new_ones(plus.shape),
        "weight": lambda: weight(plus, minus, beta),
        "inverse": lambda: inverse(plus, minus, beta),
    }[how]()
    return (kept(plus, minus, tau) if filters else kept(plus, minus, 1.0)), weights


# -------------------------------------------------------------------- runs


@dataclass
class Job:
    """A run at work: its data, terms, folder, machine, tokenizer and the texts tokenised so far."""

    votes: Votes
    terms: Terms
    folder: Path
    machine: Machine
    held: rewards.Texts
    tell: Tell


@dataclass
class World:
    """Training and held-out pairs of one seed, the global model's folder, and what models that have
    not seen a user say of pairs.
    """

    seed: int
    split: Literal["test", "validation"]
    train: Sequence[Preference] = field(repr=False)
    test: Sequence[Preference] = field(repr=False)
    start: str = ""
    references: dict[str, tuple[float, float]] = field(default_factory=dict, repr=False)
    minority: frozenset[str] = frozenset()


def run(
    data: str | Path | Votes,
    out: str | Path,
    told: Terms,
    *,
    countries: Sequence[str] = (),
    variants: Sequence[str] = VARIANTS,
    seeds: Sequence[int] = (0,),
    shares: Sequence[float] = (1.0,),
    taus: Sequence[float] = (),
    betas: Sequence[float] = (),
    keep: str = "",
    fresh: bool = False,
    tell: Tell = lambda what, how: None,
) -> list[Result]:
    """Train and judge every variant for every country, seed and share of its training pairs; return
    one result a model.

    Results lie below `out` and are not made again. With `taus` and `betas` the results of `sweep`
    come first and each country's `tuned` variant is added. `keep` names a variant whose models (of
    the first seed) stay in `out`, a folder a country. InputError where `out` holds another run's
    results, RunFailed where a filter leaves nothing to learn from.
    """
    if unknown := [v for v in (*variants, *filter(None, (keep,))) if v not in (*VARIANTS, "tuned")]:
        raise NotFound("variant", unknown[0], "scpo", VARIANTS)
    if wrong := [s for s in shares if not 0 < s <= 1]:
        raise InputError(f"a share of the pairs is above 0 and at most 1, not {wrong[0]}")
    with _job(data, out, told, fresh, tell) as job:
        chosen = job.votes.find_countries(countries)
        tried = _sweep(job, chosen, seeds, taus, betas) if taus and betas else []
        # Each seed by its own validation users: another seed's may be test users of this one.
        swept = dict.fromkeys((r.seed, r.country) for r in tried)
        best = {
            at: tuned([r for r in tried if (r.seed, r.country) == at], job.votes) for at in swept
        }
        made = []
        for seed in seeds:
            world = _world(job, seed, *split_by_user(job.votes.pairs, told.held, seed))
            for country, variant, share in _units(chosen, variants, shares, bool(best)):
                at = best[seed, country] if variant == "tuned" else (told.tau, told.beta)
                place = (
                    _place(job, country)
                    if variant == keep and seed == seeds[0] and share == max(shares)
                    else None
                )
                made.append(_unit(job, world, country, variant, share, *at, place))
        return tried + made


def sweep(
    data: str | Path | Votes,
    out: str | Path,
    told: Terms,
    *,
    countries: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
    taus: Sequence[float] = TAUS,
    betas: Sequence[float] = BETAS,
    tell: Tell = lambda what, how: None,
) -> list[Result]:
    """Judge filter+weight with every τ and β on users held out of the training users; the test
    users take no part.
    """
    with _job(data, out, told, False, tell) as job:
        return _sweep(job, job.votes.find_countries(countries), seeds, taus, betas)


def tuned(results: Sequence[Result], votes: Votes) -> tuple[float, float]:
    """Return the τ and β with the best accuracy on validation pairs; among equals the first that
    was tried.

    Give it the results of one seed: validation users of one seed may be test users of another.
    """
    home = {p.id: p.country for p in votes.pairs}
    right: dict[tuple[float, float], list[int]] = {}
    for r in results:
        right.setdefault((r.tau, r.beta), []).extend(
            int(m > 0) for i, m in r.margins.items() if home[i] == r.country
        )
    return max(right, key=lambda at: sum(right[at]) / len(right[at]))


def _units(
    countries: Sequence[str], variants: Sequence[str], shares: Sequence[float], best: bool
) -> Iterator[tuple[str, str, float]]:
    for country in countries:
        for variant in dict.fromkeys((*variants, *(("tuned",) if best else ()))):
            if variant == "tuned" and not best:
                raise InputError(
                    "the variant `tuned` needs a sweep: --sweep chooses its τ and β on validation"
                    " users"
                )
            for share in sorted(set(shares)) if variant != "global" else (1.0,):
                yield country, variant, share


def _sweep(
    job: Job,
    countries: Sequence[str],
    seeds: Sequence[int],
    taus: Sequence[float],
    betas: Sequence[float],
) -> list[Result]:
    made = []
    for seed in seeds:
        train, _ = split_by_user(job.votes.pairs, job.terms.held, seed)
        world = _world(
            job, seed, *split_by_user(train, job.terms.held, seed, "validation"), "validation"
        )
        for country in countries:
            there = [_tried(job, world, country, tau, beta) for tau in taus for beta in betas]
            if not (done := [r for r in there if r is not None]):
                raise RunFailed(
                    f"{country}: no τ of {', '.join(map(str, taus))} keeps a pair; sweep higher"
                    " ones"
                )
            made += done
    return made


def _tried(job: Job, world: World, country: str, tau: float, beta: float) -> Result | None:
    try:
        return _unit(job, world, country, "filter+weight", 1.0, tau, beta)
    except RunFailed as failed:
        job.tell("skipped", {"country": country, "tau": tau, "beta": beta, "why": str(failed)})
        return None


@contextmanager
def _job(
    data: str | Path | Votes, out: str | Path, told: Terms, fresh: bool, tell: Tell
) -> Iterator[Job]:
    from filelock import FileLock, Timeout

    votes, folder = data if isinstance(data, Votes) else read_votes(data), Path(out)
    found = machine.look(told.device)
    if others := _others(folder):
        raise InputError(
            f"{folder} holds other things ({', '.join(others[:3])}) and no scpo.json; give another"
            " --name"
        )
    (folder / "results").mkdir(parents=True, exist_ok=True)
    try:
        with (
            FileLock(folder / ".lock").acquire(blocking=False),
            quiet(),
            writing(f"the models in {folder}"),
        ):
            _claim(folder, told, votes, fresh)
            # Weights are held in float32 and computed with in the machine's format: small steps
            # would be lost in 16 bits.
            held = rewards.Texts(rewards.tokenizer(told.base), told.length)
            held.add(votes.pairs)
            tell(
                "read",
                {
                    "pairs": len(votes.pairs),
                    "cut": held.cut,
                    "texts": len(held.ids),
                    **votes.skipped,
                },
            )
            # what was read stays; the trainer collects once a model, and need not walk it each time
            gc.freeze()
            yield Job(votes, told, folder, found, held, tell)
    except Timeout as error:
        raise Locked(f"another process is at work in {folder}") from error
    finally:
        gc.unfreeze()


def _others(folder: Path) -> list[str]:
    """Return what is in a folder that is not this verb's."""
    if not folder.is_dir() or (folder / "scpo.json").is_file():
        return []
    return sorted(p.name for p in folder.iterdir() if p.name not in (".lock", "results"))


def _claim(folder: Path, told: Terms, votes: Votes, fresh: bool) -> None:
    """Write down what the folder is for; InputError where it is for something else (τ, β and device
    may differ).
    """
    path = folder / "scpo.json"
    if fresh:
        _clear(folder)
    settings = told.model_dump(exclude={"tau", "beta", "device"}) | {
        "the base": base.fingerprint(told.base),
        "the data": votes.hash,
    }
    if path.is_file():
        was = json.loads(path.read_text(encoding="utf-8"))
        if changed := [k for k, v in settings.items() if was.get(k) != v]:
            raise InputError(
                f"{folder} was made otherwise: {', '.join(changed)} changed. Give another --name,"
                " or --fresh to throw it away"
            )
    _write(path, settings)


def _clear(folder: Path) -> None:
    """Throw away a run's results and models."""
    for old in [
        p
        for p in folder.iterdir()
        if p.is_dir() and ((p / manifest.FILE).is_file() or p.name.startswith("."))
    ]:
        discard(old)
    for result in (folder / "results").glob("*.json"):
        result.unlink()
    (folder / "scpo.json").unlink(missing_ok=True)


def _write(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value))


# ---------------------------------------------------------- global models


def _world(
    job: Job,
    seed: int,
    train: Sequence[Preference],
    test: Sequence[Preference],
    part: Literal["test", "validation"] = "test",
) -> World:
    """Return a seed's pairs with the global model trained, reference rewards and minorities
    told.
    """
    world = World(seed, part, train, test)
    world.start = _global(job, world) if job.terms.reference == "trained" else job.terms.base
    told = any(p.minority is not None for p in job.votes.pairs)
    path = job.folder / "results" / f"references.{part}.{seed}.json"
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
    else:
        found = _references(job, world, judge=not told)
        _write(path, found)
    world.references = {k: (v[0], v[1]) for k, v in found["references"].items()}
    world.minority = (
        frozenset(p.id for p in test if p.minority)
        if told
        else frozenset(k for k, m in found["judged"].items() if m < 0)
    )
    return world


def _global(job: Job, world: World) -> str:
    """Train the global reward model on every country's training pairs, unless it is there; return
    its folder.
    """
    folder = job.folder / f"global-{'' if world.split == 'test' else 'validation-'}{world.seed}"
    if not (folder / manifest.FILE).is_file():
        model, last = _fitted(job, world.train, world.seed)
        whole = model.merge_and_unload() if job.terms.method == "lora" else model
        reward.keep(
            whole,
            job.held.tokenizer,
            folder,
            _about(job, folder.name, job.terms.base, world, {"loss": last}),
        )
        job.tell("global", {"seed": world.seed, "split": world.split, "loss": last})
    return str(folder)


def _fitted(job: Job, pairs: Sequence[Preference], seed: int) -> tuple[Any, float]:
    """Return the base as a reward model trained on pairs, all alike, and its last loss."""
    t = job.terms
    drill = reward.Drill(
        math.ceil(t.global_epochs * len(pairs) / t.batch),
        t.batch,
        t.global_lr or t.rate,
        seed,
        t.method,
        t.rank,
        t.alpha,
    )
    model = rewards.load(t.base, job.held.tokenizer, _whole(job), seed)
    return reward.train(
        model, job.held, pairs, [1.0] * len(pairs), drill, job.machine, job.folder / ".work"
    )


def _whole(job: Job) -> Machine:
    from dataclasses import replace

    return replace(job.machine, dtype="float32")


def _references(job: Job, world: World, judge: bool) -> dict[str, Any]:
    """Return r⁺ and r⁻ of the training pairs and, for `judge`, r⁺ − r⁻ of the held-out ones, from
    models that have not seen the user.

    The global model has learnt its training pairs and finds them clear; so each fold of users is
    told its rewards by a model that was trained on the others (cross-fitting). On held-out pairs
    these models, which are none of those judged, agree by their mean.
    """
    found: dict[str, tuple[float, float]] = {}
    judged = dict.fromkeys((p.id for p in world.test), 0.0)
    if job.terms.reference == "base":
        model = rewards.load(job.terms.base, job.held.tokenizer, _whole(job), world.seed)
        if not rewards.trained(model.config.architectures):
            raise InputError(
                f"{job.terms.base!r} is no reward model yet, so its rewards mean nothing;"
                " --reference trained makes one of it"
            )
        found = rewards.rewards(model, job.held, world.train)
    if job.terms.reference == "trained" or judge:
        parts = split_into_folds(world.train, job.terms.folds, world.seed)
        for i, part in enumerate(parts):
            model, last = _fitted(
                job,
                [p for other in parts if other is not part for p in other],
                1_000 * (world.seed + 1) + i,
            )
            if job.terms.reference == "trained":
                found |= rewards.rewards(model, job.held, part)
            if judge:
                for key, (plus, minus) in rewards.rewards(model, job.held, world.test).items():
                    judged[key] += (plus - minus) / len(parts)
            job.tell("reference", {"seed": world.seed, "fold": i, "loss": last})
    return {"references": found, "judged": judged if judge else {}}


# ---------------------------------------------------------------- countries


def _unit(
    job: Job,
    world: World,
    country: str,
    variant: str,
    share: float,
    tau: float,
    beta: float,
    place: Path | None = None,
) -> Result:
    """Return one country's model judged; trained unless its result (and the model, where it is to
    stay) is there.
    """
    key = digest(world.split, world.seed, country, variant, share, tau, beta)
    path = job.folder / "results" / f"{slugify(country)}.{variant}.{world.seed}.{key}.json"
    if path.is_file() and (place is None or variant == "global" or _stays(place, key)):
        return Result.model_validate_json(path.read_text(encoding="utf-8"))
    own = portion(world, country, share)
    model, counts = _steered(job, world, country, variant, own, tau, beta)
    scores = rewards.rewards(model, job.held, world.test)
    made = Result(
        country=country,
        variant=variant,
        seed=world.seed,
        share=share,
        tau=tau,
        beta=beta,
        split=world.split,
        pairs=len(own),
        **counts,
        minority=tuple(p.id for p in world.test if p.country == country and p.id in world.minority),
        margins={i: plus - minus for i, (plus, minus) in scores.items()},
    )
    if place is not None and variant != "global":
        right = [made.margins[p.id] > 0 for p in world.test if p.country == country]
        about = _about(
            job,
            place.name,
            world.start,
            world,
            {"accuracy": sum(right) / len(right)},
            country=country,
            variant=variant,
            tau=tau,
            beta=beta,
            key=key,
        )
        reward.keep(
            model,
            job.held.tokenizer,
            place,
            about,
            Path(world.start) if Path(world.start).is_dir() else None,
        )
    _write(path, made.model_dump())
    job.tell(
        "judged",
        {
            "country": country,
            "variant": variant,
            "seed": world.seed,
            "share": share,
            "tau": tau,
            "beta": beta,
            "kept": made.kept,
        },
    )
    return made


def _stays(place: Path, key: str) -> bool:
    return (place / manifest.FILE).is_file() and manifest.read(place).settings.get("key") == key


def portion(world: World, country: str, share: float) -> list[Preference]:
    """Return a share of a country's training pairs; smaller shares lie within larger ones.
    InputError where a side has none.
    """
    own = [p for p in world.train if p.country == country]
    if not own or not any(p.country == country for p in world.test):
        raise InputError(
            f"{country} has too few users to hold some out: at least two with pairs are needed"
        )
    order = stream("scpo", "share", world.seed, country).sample(range(len(own)), len(own))
    return [own[i] for i in sorted(order[: max(1, round(share * len(own)))])]


def _steered(
    job: Job,
    world: World,
    country: str,
    variant: str,
    own: Sequence[Preference],
    tau: float,
    beta: float,
) -> tuple[Any, dict[str, Any]]:
    """Return a country's model, begun from the global one, and what it was trained with; RunFailed
    where its filter leaves nothing.
    """
    import torch

    t = job.terms
    model = rewards.load(world.start, job.held.tokenizer, _whole(job), world.seed)
    if variant == "global":
        return model, {"kept": 0, "mass": 0.0, "steps": 0, "loss": None}
    plus, minus = torch.tensor([world.references[p.id] for p in own], dtype=torch.float64).T
    stays, weights = weighed(variant, plus, minus, tau, beta)
    left = [
        (p, w) for p, stay, w in zip(own, stays.tolist(), weights.tolist(), strict=True) if stay
    ]
    if not left:
        raise RunFailed(
            f"{country}: the filter τ = {tau} keeps none of {len(own)} pairs; the global model"
            " finds all of them clear. Raise τ"
        )
    steps = t.steps or math.ceil(t.epochs * len(own) / t.batch)
    drill = reward.Drill(steps, t.batch, t.rate, world.seed, t.method, t.rank, t.alpha)
    model, last = reward.train(
        model,
        job.held,
        [p for p, _ in left],
        [w for _, w in left],
        drill,
        job.machine,
        job.folder / ".work",
    )
    return model, {"kept": len(left), "mass": sum(w for _, w in left), "steps": steps, "loss": last}


def _about(
    job: Job, name: str, start: str, world: World, scores: dict[str, float], **settings: Any
) -> dict[str, Any]:
    """Return what a kept model's manifest says."""
    t = job.terms
    return {
        "name": name,
        "base": base.title(start),
        "base_hash": base.fingerprint(start),
        "base_licence": base.licence(t.base),
        "objective": "scpo" if settings else "reward",
        "corpus": job.votes.title,
        "corpus_hash": job.votes.hash,
        "rows": {"train": len(world.train), world.split: len(world.test)},
        "machine": str(job.machine),
        "scores": scores,
        "settings": {
            **t.model_dump(mode="json", exclude_none=True),
            "seed": world.seed,
            **settings,
        },
    }


def _place(job: Job, country: str) -> Path:
    return job.folder / slugify(country)
