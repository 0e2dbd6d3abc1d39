"""What a run keeps: its scenes, turns, calls, opinions and samples, the budget's holds and the waves
of batched calls.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import fields
from functools import cached_property
from itertools import groupby
from typing import Any, Literal

from culturepark.errors import JournalError
from culturepark.records import MARKS, Dialogue, Fault, Opinion, Reply, Sample, Scene, Turn
from culturepark.store.connection import Connection


class RunStore(Connection):
    """One run's store, for writing and for what the run itself looks up while it works."""

    @cached_property
    def _reply_columns(self) -> tuple[str, ...]:
        """The columns of a call that its reply is made of; a store from before one of them was
        kept, which is only read, lacks it.
        """
        kept = {name for _, name, *_ in self.iterate("PRAGMA table_info(calls)")}
        return tuple(field.name for field in fields(Reply) if field.name in kept)

    def open_scene(self, scene: Scene) -> None:
        """Note that a dialogue is to be held; a known one is left as it is."""
        self.write(
            "INSERT OR IGNORE INTO scenes VALUES (?, ?, ?, ?, ?, 'open', '', NULL)",
            (scene.id, scene.ordinal, scene.culture, scene.question, scene.model_dump_json()),
        )

    def add_turn(self, dialogue: str, turn: Turn) -> None:
        """Keep one turn. A turn is written once: a second one in its place is an error."""
        self.write("INSERT INTO turns VALUES (?, ?, ?)", (dialogue, turn.n, turn.model_dump_json()))

    def end_scene(self, dialogue: str, status: str, reason: str) -> None:
        """Say that a dialogue has ended, and why."""
        self.write(
            "UPDATE scenes SET status = ?, reason = ? WHERE id = ?", (status, reason, dialogue)
        )

    def add_call(self, key: str, subject: str, role: str, reply: Reply) -> None:
        """Keep one model call and what came of it."""
        faults = (
            "[" + ",".join(f.model_dump_json() for f in reply.faults) + "]" if reply.faults else ""
        )
        # By name: in a journal from before a column was kept, it stands at the end.
        self.write(
            "INSERT INTO calls (key, subject, role, model, status, reason, text, prompt_tokens,"
            " completion_tokens, cached_tokens, usd, ms, attempts, lost, faults, shares, reasoning)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                key,
                subject,
                role,
                reply.model,
                reply.status,
                reply.reason,
                reply.text,
                reply.prompt_tokens,
                reply.completion_tokens,
                reply.cached_tokens,
                reply.usd,
                round(reply.ms, 2),
                reply.attempts,
                reply.lost,
                faults,
                json.dumps(reply.shares) if reply.shares else "",
                reply.reasoning,
            ),
        )

    def unparsed(self, key: str, why: str) -> None:
        """Note that the answer of a call cannot be read, so that it is not taken for one when the
        run goes on.
        """
        self.write(
            "UPDATE calls SET status = 'unparsed', reason = ? WHERE id = (SELECT MAX(id) FROM calls"
            " WHERE key = ?)",
            (why, key),
        )

    def refined(
        self, scene: Scene, opinions: Iterable[tuple[Opinion, str | None]], outcome: str
    ) -> None:
        """Keep what came of refining one dialogue. Done again after a kill, it overwrites itself
        with the same.
        """
        for opinion, mark in opinions:
            self.write(
                "INSERT OR REPLACE INTO opinions VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    opinion.id,
                    opinion.dialogue,
                    opinion.n,
                    scene.seats[opinion.seat].culture,
                    scene.question,
                    opinion.dropped,
                    mark,
                    opinion.model_dump_json(),
                ),
            )
        self.write("UPDATE scenes SET refined = ? WHERE id = ?", (outcome, scene.id))

    def set_samples(self, samples: Iterable[Sample]) -> int:
        """Replace the corpus in one transaction; return how many samples it has."""
        self.commit()
        count = 0
        self.write("DELETE FROM samples", (), wait=True)
        for count, s in enumerate(samples, 1):
            row = (count, s.id, s.culture, s.question, s.split, s.model_dump_json())
            self.write("INSERT INTO samples VALUES (?, ?, ?, ?, ?, ?)", row, wait=True)
        self.commit()
        return count

    def drop(self, opinion: Opinion) -> None:
        """Overwrite an opinion that a later comparison has dropped."""
        self.write(
            "UPDATE opinions SET dropped = ?, opinion = ? WHERE id = ?",
            (opinion.dropped, opinion.model_dump_json(), opinion.id),
        )

    # --------------------------------------------------------------- ledger

    def spent(self) -> tuple[float, int]:
        """Return USD and tokens of all calls so far, and of every call that was sent and never
        heard of again.
        """
        ((usd, tokens),) = self.iterate(
            "SELECT TOTAL(usd), CAST(TOTAL(tokens) AS INTEGER) FROM (SELECT usd,"
            " COALESCE(prompt_tokens, 0) + COALESCE(completion_tokens, 0) AS tokens FROM calls"
            " UNION ALL SELECT usd, tokens FROM holds)"
        )
        return float(usd), int(tokens)

    def hold(self, usd: float, tokens: int, key: str) -> int:
        """Write down, at once, what a call that is about to be sent can cost at most; return the
        hold's number.
        """
        self.write("INSERT INTO holds VALUES (NULL, ?, ?, ?)", (usd, tokens, key), wait=True)
        ((number,),) = self.iterate("SELECT last_insert_rowid()")
        self.commit()
        return int(number)

    def held(self) -> dict[str, tuple[int, float, int]]:
        """Return the holds of calls that can still be answered (those with a key): number, USD and
        tokens by key.
        """
        return {
            key: (number, usd, tokens)
            for number, usd, tokens, key in self.iterate("SELECT * FROM holds WHERE key != ''")
        }

    def free(self, hold: int) -> None:
        """Forget a hold, in one transaction with the call that is written next."""
        self.write("DELETE FROM holds WHERE id = ?", (hold,), wait=True)

    def lower(self, hold: int, usd: float, tokens: int) -> None:
        """Lower a hold to what stays of it, in one transaction with the call that is written
        next.
        """
        self.write(
            "UPDATE holds SET usd = ?, tokens = ?, key = '' WHERE id = ?",
            (usd, tokens, hold),
            wait=True,
        )

    # ---------------------------------------------------------------- waves

    def set_wave(
        self, wave: str, line: str, batch: str | None, status: str, keys: Iterable[str]
    ) -> None:
        """Write down, at once, where a wave of batched calls stands; `keys` are the calls in it."""
        self.write(
            "INSERT OR REPLACE INTO waves VALUES (?, ?, ?, ?, ?)",
            (wave, line, batch, status, " ".join(keys)),
            wait=True,
        )
        self.commit()

    def waves(self, line: str) -> list[tuple[str, str | None, str, list[str]]]:
        """Return the waves of a line that are not done: id, the provider's batch, status, keys."""
        rows = self.iterate(
            "SELECT id, batch, status, keys FROM waves WHERE line = ? AND status != 'done' ORDER BY"
            " rowid",
            line,
        )
        return [(wave, batch, status, keys.split()) for wave, batch, status, keys in rows]

    # -------------------------------------------------------------- reading

    def known(self, key: str) -> Reply | None:
        """Return the answer that this run got for a call; None where it got none."""
        return self._reply(key, "AND status = 'ok'")

    def reply(self, key: str) -> Reply | None:
        """Return the last reply to a call, whatever came of it; an answer that could not be read
        comes back as the text it is.
        """
        return self._reply(key)

    def _reply(self, key: str, only: str = "") -> Reply | None:
        columns = ", ".join(self._reply_columns)
        for row in self.iterate(
            f"SELECT {columns} FROM calls WHERE key = ? {only} ORDER BY id DESC LIMIT 1", key
        ):
            told: dict[str, Any] = dict(zip(self._reply_columns, row, strict=True))
            try:
                told["shares"] = tuple(json.loads(told["shares"])) if told.get("shares") else ()
                told["faults"] = (
                    tuple(map(Fault.model_validate, json.loads(told["faults"])))
                    if told["faults"]
                    else ()
                )
            except (ValueError, TypeError) as error:
                raise self.explain_unreadable("call", error) from error
            return Reply(
                **told | ({"status": "ok", "reason": ""} if told["status"] == "unparsed" else {})
            )
        return None

    def status(self, dialogue: str) -> str | None:
        """Return a dialogue's status, None when it was never opened."""
        return next(
            (s for (s,) in self.iterate("SELECT status FROM scenes WHERE id = ?", dialogue)), None
        )

    def outcome(self, dialogue: str) -> str | None:
        """Return how refining a dialogue ended, None when it has not been refined."""
        return next(
            (r for (r,) in self.iterate("SELECT refined FROM scenes WHERE id = ?", dialogue)), None
        )

    def turns(self, dialogue: str) -> tuple[Turn, ...]:
        """Return a dialogue's turns in order."""
        rows = self.iterate("SELECT turn FROM turns WHERE dialogue = ? ORDER BY n", dialogue)
        return tuple(self.parse(Turn, t) for (t,) in rows)

    def marked_turns(self, by: Literal["culture", "model"]) -> list[dict[str, Any]]:
        """Return how many turns each culture or model has, how many of them are marked, and how
        many carry each mark.
        """
        column = {
            "culture": "(SELECT culture FROM scenes WHERE id = t.dialogue)",
            "model": (
                "COALESCE((SELECT model FROM calls WHERE key = json_extract(t.turn, '$.call') LIMIT"
                " 1), '')"
            ),
        }[by]
        sums = ", ".join(
            f"""TOTAL(INSTR(json_extract(t.turn, '$.marks'), '"{mark}"') > 0)""" for mark in MARKS
        )
        marked = "TOTAL(json_array_length(t.turn, '$.marks') > 0)"
        rows = self.iterate(
            f"SELECT {column}, COUNT(*), {marked}, {sums} FROM turns t GROUP BY 1 ORDER BY 1"
        )
        names = ("turns", "marked", *MARKS)
        return [
            {by: who} | dict(zip(names, map(int, counts), strict=True)) for who, *counts in rows
        ]

    def dialogue(self, dialogue: str) -> Dialogue | None:
        """Return a dialogue as far as it has come."""
        for scene, status, reason in self.iterate(
            "SELECT scene, status, reason FROM scenes WHERE id = ?", dialogue
        ):
            return Dialogue(
                scene=self.parse(Scene, scene),
                turns=self.turns(dialogue),
                status=status,
                reason=reason,
            )
        return None

    def scenes(self, where: str = "1", *values: Any) -> Iterator[Scene]:
        """Yield scenes in order, a page at a time, so that memory does not grow with the run."""
        after = ("", -1)
        while True:
            rows = list(
                self.iterate(
                    f"SELECT culture, ordinal, scene FROM scenes WHERE ({where}) AND (culture,"
                    " ordinal) > (?, ?) ORDER BY culture, ordinal LIMIT 200",
                    *values,
                    *after,
                )
            )
            for _, _, scene in rows:
                yield self.parse(Scene, scene)
            if len(rows) < 200:
                return
            after = rows[-1][:2]

    def opinions(self, dialogue: str) -> tuple[Opinion, ...]:
        """Return a dialogue's opinions, kept and dropped, in order."""
        rows = self.iterate("SELECT opinion FROM opinions WHERE dialogue = ? ORDER BY n", dialogue)
        return tuple(self.parse(Opinion, o) for (o,) in rows)

    def opinion(self, opinion: str) -> Opinion | None:
        """Return one opinion by its id."""
        rows = self.iterate("SELECT opinion FROM opinions WHERE id = ?", opinion)
        return next((self.parse(Opinion, o) for (o,) in rows), None)

    def rejected(self) -> Iterator[tuple[str, str, Opinion]]:
        """Yield culture, question and opinion of everything that was dropped, in order."""
        for culture, question, opinion in self.iterate(
            "SELECT o.culture, o.question, o.opinion FROM scenes s CROSS JOIN opinions o ON"
            " o.dialogue = s.id WHERE o.dropped != '' ORDER BY s.culture, s.ordinal, o.n"
        ):
            yield culture, question, self.parse(Opinion, opinion)

    def twins(self) -> list[tuple[str, str]]:
        """Return the ids of kept opinions that repeat an earlier one of the same culture and
        question, each with that one's.
        """
        seen = self.iterate(
            "SELECT id, first FROM (SELECT o.id AS id, FIRST_VALUE(o.id) OVER (PARTITION BY"
            " o.culture, o.question, o.mark ORDER BY s.ordinal, o.n) AS first FROM opinions o JOIN"
            " scenes s ON s.id = o.dialogue WHERE o.dropped = '') WHERE id != first"
        )
        return [(twin, first) for twin, first in seen]

    def kept(self) -> Iterator[tuple[Opinion, str]]:
        """Yield every kept opinion with its dialogue's scene (JSON), by culture, dialogue and
        place.
        """
        for opinion, scene in self.iterate(
            "SELECT o.opinion, s.scene FROM scenes s CROSS JOIN opinions o ON o.dialogue = s.id "
            "WHERE o.dropped = '' ORDER BY s.culture, s.ordinal, o.n"
        ):
            yield self.parse(Opinion, opinion), scene

    def samples(self, split: str | None = None) -> Iterator[Sample]:
        """Yield the corpus in order."""
        where, values = ("split = ?", (split,)) if split else ("1", ())
        for (sample,) in self.iterate(
            f"SELECT sample FROM samples WHERE {where} ORDER BY rank", *values
        ):
            yield self.parse(Sample, sample)

    def sample(self, sample: str) -> Sample | None:
        """Return one sample by its id, or by the beginning of it where only one has it."""
        pattern = sample.replace("%", "").replace("_", "") + "%"
        rows = list(self.iterate("SELECT sample FROM samples WHERE id LIKE ? LIMIT 2", pattern))
        return self.parse(Sample, rows[0][0]) if len(rows) == 1 else None

    def ranked(self, rank: int) -> Sample:
        """Return the sample that stands at this place of the corpus; JournalError where none
        does.
        """
        for (sample,) in self.iterate("SELECT sample FROM samples WHERE rank = ?", rank):
            return self.parse(Sample, sample)
        raise JournalError(f"{self.path} has no sample at rank {rank}")

    def asked(self, split: str) -> Iterator[list[tuple[int, str, int, str]]]:
        """Yield, a question of the split at a time, the rank, culture, answer and completion of its
        samples, by culture.
        """
        rows = self.iterate(
            "SELECT question, rank, culture, json_extract(sample, '$.answer'), json_extract(sample,"
            " '$.completion') FROM samples WHERE split = ? ORDER BY question, culture, rank",
            split,
        )
        for _, same in groupby(rows, key=lambda row: row[0]):
            yield [
                (rank, culture, answer, completion) for _, rank, culture, answer, completion in same
            ]

    @property
    def keeps_reasoning(self) -> bool:
        """Whether there is a place for what models thought; in a store from before that, which is
        only read, there is none.
        """
        return "reasoning" in self._reply_columns
