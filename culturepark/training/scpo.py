"""Culturally steerable reward models (SCPO): what each variant learns from, and the runs that train
and judge them.

Oh et al. 2026, arXiv 2606.18606, §3. A global reward model, trained on every country's pairs, gives
each pair of a country reference rewards r⁺ (chosen) and r⁻ (rejected). The filter keeps the pairs
that it does not find clear already, the weight lowers those that it finds far off; a country's
model starts from the global one and learns from the rest.

Unlike the released code, references are computed without dropout, by models that have not seen the
user, from the same text as in training, with all earlier turns; splits separate users and keep
countries in proportion; minorities come from the data, or else from models that are not judged, in
the same way for training and test.
"""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, ValidationError

from culturepark.atomic import discard, write_text
from culturepark.errors import CardError, InputError, Locked, NotFound, RunFailed, nearest
from culturepark.local_models import base, machine, manifest, rewards
from culturepark.local_models.libraries import quiet, writing
from culturepark.local_models.machine import Machine
from culturepark.local_models.rewards import RewardResult
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

# What each variant of the paper's table uses: (filter?, weight: "", "weight" or "inverse").
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
MOST = 80.0  # the largest exponent of an inverse weight: e^80 still is a float32
RATES = {"full": 1e-5, "lora": 1e-4}
TINY = {"full": 1e-3, "lora": 4e-3}  # the offline base is small and learns at larger steps
Tell = Callable[[str, dict[str, Any]], None]


class Terms(Record):
    """Everything that determines a run but its data, countries, variants, seeds and shares.

    `tau` (0 to 1) is the filter's threshold, `beta` (in units of reward) the weight's temperature.
    `reference`: `trained` trains the base on all countries' training pairs as the global reward
    model, `base` uses the base, which must be a reward model, as it is. `lr` is the largest step
    size, `batch` the pairs per step; a country's model takes `steps` steps or, if that is None, as
    many as `epochs` passes over all the country's pairs have, whatever its variant uses of them;
    likewise the global model with `global_lr` and `global_epochs`. `length` is the maximum number
    of tokens of a conversation, whose beginning is cut. `held` is the share of users held out,
    `folds` the number of parts for cross-fitting reference rewards. `rank` and `alpha` shape
    adapters (method `lora`).
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


def build_terms(preset: str | None = None, **settings: Any) -> Terms:
    """Return the terms of a preset, with `settings` replacing its own.

    Raises CardError with every mistake, InputError for an unknown preset.
    """
    if preset is not None and preset not in PRESETS:
        raise InputError(f"no preset {preset!r} for scpo. {nearest(preset, PRESETS)}")
    data = {
        **(PRESETS[preset] if preset else {}),
        **{k: v for k, v in settings.items() if v is not None},
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


def select_pairs(plus: Any, minus: Any, tau: float) -> Any:
    """Return which pairs the filter keeps: σ(r⁺ − r⁻) < τ (arXiv 2606.18606, §3); tensors of shape
    (pairs,), the result boolean.

    The comparison is r⁺ − r⁻ < log(τ / (1 − τ)), which neither overflows, as exp(r⁺) / (exp(r⁺) +
    exp(r⁻)) does, nor rounds to 1.
    """
    return plus - minus < (math.inf if tau >= 1 else math.log(tau / (1 - tau)))


def compute_weight(plus: Any, minus: Any, beta: float) -> Any:
    """Return min(exp((r⁺ − r⁻) / β), 1) (arXiv 2606.18606, §3), shape (pairs,): 1 where the
    reference agrees, smaller the more it disagrees.
    """
    return ((plus - minus) / beta).clamp(max=0).exp()


def compute_inverse_weight(plus: Any, minus: Any, beta: float) -> Any:
    """Return the ablation's inverse weight, 1 / w = max(exp((r⁻ − r⁺) / β), 1), shape (pairs,):
    larger the more the reference disagrees.

    As in the authors' released trainer (there with β = 1), which takes a quotient of exponentials;
    here the exponent is bounded, so that every weight is finite.
    """
    return ((minus - plus) / beta).clamp(min=0, max=MOST).exp()


def select_and_weigh(
    variant: str, plus: Any, minus: Any, tau: float, beta: float
) -> tuple[Any, Any]:
    """Return which pairs a variant learns from (boolean) and all weights, both of
    shape (pairs,).
    """
    filters, how = LEARNS[variant]
    weights = {
        "": lambda: (plus - minus).new_ones(plus.shape),
        "weight": lambda: compute_weight(plus, minus, beta),
        "inverse": lambda: compute_inverse_weight(plus, minus, beta),
    }[how]()
    return (select_pairs(plus, minus, tau) if filters else select_pairs(plus, minus, 1.0)), weights


# -------------------------------------------------------------------- runs


@dataclass
class SteeringRun:
    """A run in progress: its data, terms, folder, machine and the conversations
    tokenised so far.
    """

    votes: Votes
    terms: Terms
    folder: Path
    machine: Machine
    texts: rewards.Texts
    tell: Tell


@dataclass
class SeedData:
    """Training and held-out pairs of one seed.

    `start` is the folder of the global model, `references` maps a training pair to (r⁺, r⁻),
    `minority` holds the ids of held-out pairs on a minority's side.
    """

    seed: int
    split: Literal["test", "validation"]
    train: Sequence[Preference] = field(repr=False)
    test: Sequence[Preference] = field(repr=False)
    start: str = ""
    references: dict[str, tuple[float, float]] = field(default_factory=dict, repr=False)
    minority: frozenset[str] = frozenset()


class Unit(NamedTuple):
    """One model to judge."""

    country: str
    variant: str
    share: float
    tau: float
    beta: float


def run(
    data: str | Path | Votes,
    out: str | Path,
    terms: Terms,
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
) -> list[RewardResult]:
    """Train and judge every variant for every country, seed and share of its training pairs; return
    one result per model.

    Results are kept below `out` and never computed twice. With `taus` and `betas` the results of
    `sweep` come first, and each country's `tuned` variant is added. `keep` names a variant whose
    models (of the first seed) stay in `out`, one folder per country. Raises InputError if `out`
    holds another run's results, RunFailed if a filter leaves nothing to learn from.
    """
    if unknown := [v for v in (*variants, *filter(None, (keep,))) if v not in (*VARIANTS, "tuned")]:
        raise NotFound("variant", unknown[0], "scpo", VARIANTS)
    if wrong := [s for s in shares if not 0 < s <= 1]:
        raise InputError(f"a share of the pairs is above 0 and at most 1, not {wrong[0]}")
    with _open_run(data, out, terms, fresh, tell) as job:
        names = job.votes.find_countries(countries)
        swept = _run_sweep(job, names, seeds, taus, betas) if taus and betas else []
        results = list(swept)
        for seed in seeds:
            seed_data = _prepare_seed(job, seed, *split_by_user(job.votes.pairs, terms.held, seed))
            # A seed's own validation users: another seed's may be test users of this one.
            own = [r for r in swept if r.seed == seed]
            for unit in _list_units(job, names, variants, shares, own):
                stays = unit.variant == keep and seed == seeds[0] and unit.share == max(shares)
                place = job.folder / slugify(unit.country) if stays else None
                results.append(_judge_unit(job, seed_data, unit, place))
        return results


def sweep(
    data: str | Path | Votes,
    out: str | Path,
    terms: Terms,
    *,
    countries: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
    taus: Sequence[float] = TAUS,
    betas: Sequence[float] = BETAS,
    tell: Tell = lambda what, how: None,
) -> list[RewardResult]:
    """Judge filter+weight with every τ and β on users held out of the training users; test users
    are not used.
    """
    with _open_run(data, out, terms, False, tell) as job:
        return _run_sweep(job, job.votes.find_countries(countries), seeds, taus, betas)


def choose_tau_and_beta(results: Sequence[RewardResult], votes: Votes) -> tuple[float, float]:
    """Return the τ and β with the best accuracy on validation pairs; of equals the first.

    The results must be of one seed: validation users of one seed may be test users of another.
    """
    home = {p.id: p.country for p in votes.pairs}
    right: dict[tuple[float, float], list[int]] = {}
    for r in results:
        right.setdefault((r.tau, r.beta), []).extend(
            int(m > 0) for i, m in r.margins.items() if home[i] == r.country
        )
    return max(right, key=lambda at: sum(right[at]) / len(right[at]))


def _list_units(
    job: SteeringRun,
    countries: Sequence[str],
    variants: Sequence[str],
    shares: Sequence[float],
    swept: Sequence[RewardResult],
) -> Iterator[Unit]:
    if "tuned" in variants and not swept:
        raise InputError(
            "the variant `tuned` needs a sweep: --sweep chooses its τ and β on validation users"
        )
    for country in countries:
        terms = job.terms.tau, job.terms.beta
        own = [r for r in swept if r.country == country]
        best = choose_tau_and_beta(own, job.votes) if own else terms
        for variant in dict.fromkeys((*variants, *(["tuned"] if swept else []))):
            for share in sorted(set(shares)) if variant != "global" else (1.0,):
                yield Unit(country, variant, share, *(best if variant == "tuned" else terms))


def _run_sweep(
    job: SteeringRun,
    countries: Sequence[str],
    seeds: Sequence[int],
    taus: Sequence[float],
    betas: Sequence[float],
) -> list[RewardResult]:
    results = []
    for seed in seeds:
        train, _ = split_by_user(job.votes.pairs, job.terms.held, seed)
        seed_data = _prepare_seed(
            job, seed, *split_by_user(train, job.terms.held, seed, "validation"), "validation"
        )
        for country in countries:
            tried = [
                _try_tau_and_beta(job, seed_data, country, tau, beta)
                for tau in taus
                for beta in betas
            ]
            if not (judged := [r for r in tried if r is not None]):
                raise RunFailed(
                    f"{country}: no τ of {', '.join(map(str, taus))} keeps a pair; sweep higher"
                    " ones"
                )
            results += judged
    return results


def _try_tau_and_beta(
    job: SteeringRun, seed_data: SeedData, country: str, tau: float, beta: float
) -> RewardResult | None:
    try:
        return _judge_unit(job, seed_data, Unit(country, "filter+weight", 1.0, tau, beta))
    except RunFailed as error:
        job.tell("skipped", {"country": country, "tau": tau, "beta": beta, "why": str(error)})
        return None


@contextmanager
def _open_run(
    data: str | Path | Votes, out: str | Path, terms: Terms, fresh: bool, tell: Tell
) -> Iterator[SteeringRun]:
    from filelock import FileLock, Timeout

    votes, folder = data if isinstance(data, Votes) else read_votes(data), Path(out)
    device = machine.find_machine(terms.device)
    if others := _list_foreign_files(folder):
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
            _claim_folder(folder, terms, votes, fresh)
            # Weights stay in float32 and are computed with in the machine's format: 16 bits would
            # lose small steps.
            texts = rewards.Texts(rewards.load_tokenizer(terms.base), terms.length)
            texts.add(votes.pairs)
            tell(
                "read",
                {
                    "pairs": len(votes.pairs),
                    "cut": texts.cut,
                    "texts": len(texts.ids),
                    **votes.skipped,
                },
            )
            gc.freeze()  # so that the trainer's garbage collection need not walk the data each time
            yield SteeringRun(votes, terms, folder, device, texts, tell)
    except Timeout as error:
        raise Locked(f"another process is at work in {folder}") from error
    finally:
        gc.unfreeze()


def _list_foreign_files(folder: Path) -> list[str]:
    """Return the files in a folder that no run of SCPO wrote."""
    if not folder.is_dir() or (folder / "scpo.json").is_file():
        return []
    return sorted(p.name for p in folder.iterdir() if p.name not in (".lock", "results"))


def _claim_folder(folder: Path, terms: Terms, votes: Votes, fresh: bool) -> None:
    """Write what the folder holds; raises InputError if it holds another run's results.

    τ, β and the device may differ.
    """
    path = folder / "scpo.json"
    if fresh:
        _clear_folder(folder)
    settings = terms.model_dump(exclude={"tau", "beta", "device"}) | {
        "the base": base.compute_fingerprint(terms.base),
        "the data": votes.hash,
    }
    if path.is_file():
        was = json.loads(path.read_text(encoding="utf-8"))
        if differing := [k for k, v in settings.items() if was.get(k) != v]:
            raise InputError(
                f"{folder} was made with different settings: {', '.join(differing)} changed. Give"
                " another --name, or --fresh to delete its results"
            )
    _write_json(path, settings)


def _clear_folder(folder: Path) -> None:
    """Delete a run's results and models."""
    for old in [
        p
        for p in folder.iterdir()
        if p.is_dir() and ((p / manifest.FILE).is_file() or p.name.startswith("."))
    ]:
        discard(old)
    for result in (folder / "results").glob("*.json"):
        result.unlink()
    (folder / "scpo.json").unlink(missing_ok=True)


def _write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value))


# ---------------------------------------------------------- global models


def _prepare_seed(
    job: SteeringRun,
    seed: int,
    train: Sequence[Preference],
    test: Sequence[Preference],
    part: Literal["test", "validation"] = "test",
) -> SeedData:
    """Return a seed's pairs with its global model, reference rewards and minorities."""
    seed_data = SeedData(seed, part, train, test)
    seed_data.start = (
        _train_global(job, seed_data) if job.terms.reference == "trained" else job.terms.base
    )
    has_minorities = any(p.minority is not None for p in job.votes.pairs)
    path = job.folder / "results" / f"references.{part}.{seed}.json"
    if path.is_file():
        stored = json.loads(path.read_text(encoding="utf-8"))
    else:
        stored = _compute_references(job, seed_data, judge=not has_minorities)
        _write_json(path, stored)
    seed_data.references = {k: (v[0], v[1]) for k, v in stored["references"].items()}
    seed_data.minority = (
        frozenset(p.id for p in test if p.minority)
        if has_minorities
        else frozenset(k for k, m in stored["judged"].items() if m < 0)
    )
    return seed_data


def _train_global(job: SteeringRun, seed_data: SeedData) -> str:
    """Return the folder of the global reward model, trained on every country's pairs if it does not
    exist.
    """
    folder = (
        job.folder / f"global-{'' if seed_data.split == 'test' else 'validation-'}{seed_data.seed}"
    )
    if not (folder / manifest.FILE).is_file():
        model, last = _train_on_all(job, seed_data.train, seed_data.seed)
        whole = model.merge_and_unload() if job.terms.method == "lora" else model
        reward.save_reward_model(
            whole,
            job.texts.tokenizer,
            folder,
            _build_manifest(job, folder.name, job.terms.base, seed_data, {"loss": last}),
        )
        job.tell("global", {"seed": seed_data.seed, "split": seed_data.split, "loss": last})
    return str(folder)


def _train_on_all(job: SteeringRun, pairs: Sequence[Preference], seed: int) -> tuple[Any, float]:
    """Return a reward model of the base, trained on pairs of equal weight, and its last loss."""
    t = job.terms
    how = reward.RewardRecipe(
        math.ceil(t.global_epochs * len(pairs) / t.batch),
        t.batch,
        t.global_lr or t.rate,
        seed,
        t.method,
        t.rank,
        t.alpha,
    )
    model = rewards.load_model(t.base, job.texts.tokenizer, _use_float32(job), seed)
    return reward.train_reward_model(
        model, job.texts, pairs, [1.0] * len(pairs), how, job.machine, job.folder / ".work"
    )


def _use_float32(job: SteeringRun) -> Machine:
    from dataclasses import replace

    return replace(job.machine, dtype="float32")


def _compute_references(job: SteeringRun, seed_data: SeedData, judge: bool) -> dict[str, Any]:
    """Return r⁺ and r⁻ of the training pairs and, for `judge`, r⁺ − r⁻ of the held-out ones, from
    models that have not seen the user.

    The global model has learnt its training pairs and finds them clear; therefore the rewards of
    each fold of users come from a model trained on the other folds (cross-fitting). For held-out
    pairs the mean of these models is taken; none of them is judged.
    """
    references: dict[str, tuple[float, float]] = {}
    margins = dict.fromkeys((p.id for p in seed_data.test), 0.0)
    if job.terms.reference == "base":
        model = rewards.load_model(
            job.terms.base, job.texts.tokenizer, _use_float32(job), seed_data.seed
        )
        if not rewards.has_reward_head(model.config.architectures):
            raise InputError(
                f"{job.terms.base!r} is no reward model yet, so its rewards mean nothing;"
                " --reference trained trains one from it"
            )
        references = rewards.compute_rewards(model, job.texts, seed_data.train)
    if job.terms.reference == "trained" or judge:
        parts = split_into_folds(seed_data.train, job.terms.folds, seed_data.seed)
        for i, part in enumerate(parts):
            model, last = _train_on_all(
                job,
                [p for other in parts if other is not part for p in other],
                1_000 * (seed_data.seed + 1) + i,
            )
            if job.terms.reference == "trained":
                references |= rewards.compute_rewards(model, job.texts, part)
            if judge:
                for key, (plus, minus) in rewards.compute_rewards(
                    model, job.texts, seed_data.test
                ).items():
                    margins[key] += (plus - minus) / len(parts)
            job.tell("reference", {"seed": seed_data.seed, "fold": i, "loss": last})
    return {"references": references, "judged": margins if judge else {}}


# ---------------------------------------------------------------- countries


def _judge_unit(
    job: SteeringRun, seed_data: SeedData, unit: Unit, place: Path | None = None
) -> RewardResult:
    """Return the result of one model, trained unless its result exists.

    With a `place` the model is kept there, and trained if it is not there yet.
    """
    key = digest(seed_data.split, seed_data.seed, *unit)
    name = f"{slugify(unit.country)}.{unit.variant}.{seed_data.seed}.{key}.json"
    path = job.folder / "results" / name
    place = None if unit.variant == "global" else place
    if path.is_file() and (place is None or _is_kept(place, key)):
        return RewardResult.model_validate_json(path.read_text(encoding="utf-8"))
    own = select_share(seed_data, unit.country, unit.share)
    model, counts = _train_country(job, seed_data, unit, own)
    scores = rewards.compute_rewards(model, job.texts, seed_data.test)
    ids = [p.id for p in seed_data.test if p.country == unit.country]
    result = RewardResult(
        **unit._asdict(),
        **counts,
        seed=seed_data.seed,
        split=seed_data.split,
        pairs=len(own),
        minority=tuple(i for i in ids if i in seed_data.minority),
        margins={i: plus - minus for i, (plus, minus) in scores.items()},
    )
    if place is not None:
        accuracy = fmean(result.margins[i] > 0 for i in ids)
        about = _build_manifest(
            job,
            place.name,
            seed_data.start,
            seed_data,
            {"accuracy": accuracy},
            **unit._asdict() | {"key": key},
        )
        start = Path(seed_data.start)
        below = start if start.is_dir() else None
        reward.save_reward_model(model, job.texts.tokenizer, place, about, below)
    _write_json(path, result.model_dump())
    job.tell("judged", {**unit._asdict(), "seed": seed_data.seed, "kept": result.kept})
    return result


def _is_kept(place: Path, key: str) -> bool:
    return (place / manifest.FILE).is_file() and manifest.read(place).settings.get("key") == key


def select_share(seed_data: SeedData, country: str, share: float) -> list[Preference]:
    """Return a share of a country's training pairs; larger shares contain smaller ones.

    Raises InputError if the country has no training or no held-out pairs.
    """
    own = [p for p in seed_data.train if p.country == country]
    if not own or not any(p.country == country for p in seed_data.test):
        raise InputError(
            f"{country} has too few users to hold some out: at least two with pairs are needed"
        )
    order = stream("scpo", "share", seed_data.seed, country).sample(range(len(own)), len(own))
    return [own[i] for i in sorted(order[: max(1, round(share * len(own)))])]


def _train_country(
    job: SteeringRun, seed_data: SeedData, unit: Unit, own: Sequence[Preference]
) -> tuple[Any, dict[str, Any]]:
    """Return a country's model, trained from the global one, and counts of what it learned from.

    Raises RunFailed if the filter leaves nothing.
    """
    import torch

    t = job.terms
    model = rewards.load_model(
        seed_data.start, job.texts.tokenizer, _use_float32(job), seed_data.seed
    )
    if unit.variant == "global":
        return model, {"kept": 0, "mass": 0.0, "steps": 0, "loss": None}
    plus, minus = torch.tensor([seed_data.references[p.id] for p in own], dtype=torch.float64).T
    selected, weights = select_and_weigh(unit.variant, plus, minus, unit.tau, unit.beta)
    pairs = [p for p, stays in zip(own, selected.tolist(), strict=True) if stays]
    if not pairs:
        raise RunFailed(
            f"{unit.country}: the filter τ = {unit.tau} keeps none of {len(own)} pairs; the global"
            " model finds all of them clear. Raise τ"
        )
    weights = weights[selected].tolist()
    steps = t.steps or math.ceil(t.epochs * len(own) / t.batch)
    how = reward.RewardRecipe(steps, t.batch, t.rate, seed_data.seed, t.method, t.rank, t.alpha)
    work = job.folder / ".work"
    model, loss = reward.train_reward_model(
        model, job.texts, pairs, weights, how, job.machine, work
    )
    return model, {"kept": len(pairs), "mass": sum(weights), "steps": steps, "loss": loss}


def _build_manifest(
    job: SteeringRun,
    name: str,
    start: str,
    seed_data: SeedData,
    scores: dict[str, float],
    **settings: Any,
) -> dict[str, Any]:
    """Return the manifest of a model that is kept."""
    t = job.terms
    return {
        "name": name,
        "base": base.name_base(start),
        "base_hash": base.compute_fingerprint(start),
        "base_licence": base.read_licence(t.base),
        "objective": "scpo" if settings else "reward",
        "corpus": job.votes.title,
        "corpus_hash": job.votes.hash,
        "rows": {"train": len(seed_data.train), seed_data.split: len(seed_data.test)},
        "machine": str(job.machine),
        "scores": scores,
        "settings": {
            **t.model_dump(mode="json", exclude_none=True),
            "seed": seed_data.seed,
            **settings,
        },
    }
