"""Reward models (SCPO): the loss against the paper's formula, the six variants on real and on
simulated votes, sweep and curve.
"""

from __future__ import annotations

import math
import os
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from culturepark.evaluation import steered
from culturepark.local_models.libraries import quiet
from culturepark.local_models.sketch import sketch_base
from culturepark.surveys import votes
from culturepark.surveys.votes import Votes
from culturepark.training import reward, scpo

DATA = Path(os.environ.get("CULTUREPARK_DATA", Path(__file__).parents[2] / "shared" / "data"))
CREHATE = DATA / "preference" / "crehate_five_countries.csv"
# Set on the training users of seed 0 alone, for `global` and `full`, and so that the whole takes
# minutes; τ and β are the paper's.
SIMULATED: dict[str, Any] = {
    "batch": 32,
    "length": 96,
    "lr": 3e-3,
    "epochs": 4.0,
    "global_epochs": 4.0,
}
REAL: dict[str, Any] = {"batch": 32, "length": 64, "lr": 1e-3, "epochs": 1.0, "global_epochs": 2.0}


def main() -> None:
    """Print every part with the seconds it took; one core."""
    import torch

    torch.set_num_threads(1)
    formula()
    with tempfile.TemporaryDirectory() as folder:
        known(Path(folder))
        real(Path(folder))


def formula(pairs: int = 4_096) -> None:
    """Print how far loss and gradients are from the paper's formula, worked out in plain Python
    (float64).
    """
    import torch

    rng = random.Random(0)
    plus, minus, chosen, rejected = ([rng.gauss(0, 3) for _ in range(pairs)] for _ in range(4))
    print(f"\n-- loss and gradients against the formula, {pairs} pairs, largest difference")
    for name, dtype in (("float64", torch.float64), ("float32", torch.float32)):
        p, m, c, r = (torch.tensor(x, dtype=dtype) for x in (plus, minus, chosen, rejected))
        c, r = c.requires_grad_(), r.requires_grad_()
        stays, weights = scpo.select_and_weigh("filter+weight", p, m, 0.7, 1.10)
        found = reward.compute_loss(c[stays], r[stays], weights[stays])
        found.backward()
        loss, slopes = _plain(plus, minus, chosen, rejected, 0.7, 1.10)
        assert c.grad is not None and r.grad is not None
        apart = [abs(a - b) for a, b in zip(c.grad.tolist(), slopes, strict=True)] + [
            abs(a + b) for a, b in zip(r.grad.tolist(), slopes, strict=True)
        ]
        print(f"{name}: loss {abs(found.item() - loss):.1e}, gradients {max(apart):.1e}")


def _plain(
    plus: Sequence[float],
    minus: Sequence[float],
    chosen: Sequence[float],
    rejected: Sequence[float],
    tau: float,
    beta: float,
) -> tuple[float, list[float]]:
    """Return −mean(w · log σ(c − r)) over the pairs with σ(r⁺ − r⁻) < τ, and its slope in each
    c.
    """
    keep = [1 / (1 + math.exp(m - p)) < tau for p, m in zip(plus, minus, strict=True)]
    w = [
        min(math.exp((p - m) / beta), 1) if k else 0.0
        for p, m, k in zip(plus, minus, keep, strict=True)
    ]
    sigma = [1 / (1 + math.exp(r - c)) for c, r in zip(chosen, rejected, strict=True)]
    count = sum(keep)
    return -sum(a * math.log(s) for a, s in zip(w, sigma, strict=True)) / count, [
        -a * (1 - s) / count for a, s in zip(w, sigma, strict=True)
    ]


def known(folder: Path) -> None:
    """Print what each variant finds of simulated minorities, the sweep on validation users, and the
    data-efficiency curve.
    """
    data = votes.simulate_votes(users=40)
    told = scpo.build_terms(base=_sketch(data, folder / "a"), device="cpu", **SIMULATED)
    share = sum(bool(p.minority) for p in data.pairs) / len(data.pairs)
    print(
        f"\n-- simulated: {len(data.pairs)} pairs, {len(data.countries())} countries,"
        f" {100 * share:.0f}% a minority's, 3 seeds"
    )
    _table(data, folder / "known", told, seeds=(0, 1, 2))
    began = time.perf_counter()
    made = scpo.run(
        data,
        folder / "known",
        told,
        variants=("full", "filter+weight"),
        taus=(0.7, 0.9, 0.97),
        betas=(1.1, 4.0),
    )
    tried, tested = ([r for r in made if r.split == part] for part in ("validation", "test"))
    print("\n-- simulated, filter+weight by τ and β: accuracy on validation users, seed 0")
    print(steered.build_grid(tried, data))
    print(
        "chosen, τ/β: "
        + ", ".join(f"{r.country} {r.tau:g}/{r.beta:g}" for r in tested if r.variant == "tuned")
    )
    print(
        steered.build_table(steered.measure_steering(tested, data), tested)
        + f"\n({time.perf_counter() - began:.0f} s)"
    )
    print("\n-- simulated, accuracy by the share of a country's pairs, 2 seeds")
    _table(
        data,
        folder / "known",
        told,
        seeds=(0, 1),
        variants=("full", "filter+weight"),
        shares=(0.1, 0.25, 0.5, 1.0),
    )


def real(folder: Path) -> None:
    """Print what each variant makes of CREHate; a sentence where the file is not there."""
    if not CREHATE.is_file():
        print(f"\n-- CREHate: skipped, no {CREHATE}; CULTUREPARK_DATA says where it is")
        return
    data = votes.read_votes(CREHATE)
    told = scpo.build_terms(base=_sketch(data, folder / "b"), device="cpu", **REAL)
    share = sum(bool(p.minority) for p in data.pairs) / len(data.pairs)
    print(
        f"\n-- CREHate: {len(data.pairs)} pairs, 5 countries, {100 * share:.0f}% a minority's, 5"
        " seeds; posts are split and redrawn"
    )
    _table(data, folder / "real", told, seeds=range(5))


def _sketch(data: Votes, folder: Path) -> str:
    """Return a small untrained base whose tokenizer is learnt from the training users of seed 0."""
    train, _ = votes.split_by_user(data.pairs, 0.15, 0)
    with quiet():
        return str(
            sketch_base(
                folder,
                {t for p in train for t in (p.chosen, p.rejected, *(m.content for m in p.history))},
            )
        )


def _table(data: Votes, out: Path, told: scpo.Terms, **how: Any) -> None:
    began = time.perf_counter()
    made = scpo.run(data, out, told, **how)
    print(steered.build_table(steered.measure_steering(made, data), made))
    print(f"({len(made)} models, {time.perf_counter() - began:.0f} s)")


if __name__ == "__main__":
    main()
