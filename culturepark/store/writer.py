"""What a run keeps: its scenes, turns, calls, opinions and samples, the budget's reservations and
batches of calls.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import fields
from functools import cached_property
from typing import Any

from culturepark.records import Dialogue, Fault, Opinion, Reply, Sample, Scene, Turn
from culturepark.store.connection import Connection
from culturepark.store.reasons import REFINED, write_outcome

COLUMNS = {"option_probs": "shares"}  # of a reply's fields, where the table names them otherwise


class RunStore(Connection):
    """One run's store, for writing and for what the run itself looks up while it works."""

    @cached_property
    def _reply_columns(self) -> dict[str, str]:
        """The columns of a call by the fields of its reply; a store from before one of them was
        kept, which is only read, lacks it.
        """
        kept = {name for _, name, *_ in self.iterate("PRAGMA table_info(calls)")}
        columns = {field.name: COLUMNS.get(field.name, field.name) for field in fields(Reply)}
        return {field: column for field, column in columns.items() if column in kept}

    def open_scene(self, scene: Scene) -> None:
        """Note that a dialogue is to be held; a known one is left as it is."""
        self.write(
            f"INSERT OR IGNORE INTO {self.choose_shard(scene.id)}.scenes"
            " VALUES (?, ?, ?, ?, ?, 'open', '', NULL)",
            (scene.id, scene.ordinal, scene.culture, scene.question, scene.model_dump_json()),
        )

    def add_turn(self, dialogue: str, turn: Turn) -> None:
        """Keep one turn. A turn is written once: a second one in its place is an error."""
        self.write(
            f"INSERT INTO {self.choose_shard(dialogue)}.turns VALUES (?, ?, ?)",
            (dialogue, turn.n, turn.model_dump_json()),
        )

    def end_scene(self, dialogue: str, status: str, reason: str) -> None:
        """Say that a dialogue has ended, and why."""
        self.write(
            f"UPDATE {self.choose_shard(dialogue)}.scenes SET status = ?, reason = ? WHERE id = ?",
            (status, reason, dialogue),
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
                json.dumps(reply.option_probs) if reply.option_probs else "",
                reply.reasoning,
            ),
        )

    def mark_unparsed(self, key: str, why: str) -> None:
        """Note that the answer of a call cannot be read, so that it is not taken for one when the
        run goes on.
        """
        self.write(
            "UPDATE calls SET status = 'unparsed', reason = ? WHERE id = (SELECT MAX(id) FROM calls"
            " WHERE key = ?)",
            (why, key),
        )

    def add_opinions(
        self, scene: Scene, opinions: Iterable[tuple[Opinion, str | None]], failure: str = ""
    ) -> None:
        """Keep what came of refining one dialogue, each opinion with its mark, and the `failure`
        that kept it from its end, if any. Done again after a kill, it overwrites itself with the
        same.
        """
        shard = self.choose_shard(scene.id)
        for opinion, mark in opinions:
            self.write(
                f"INSERT OR REPLACE INTO {shard}.opinions VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
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
        self.write(
            f"UPDATE {shard}.scenes SET refined = ? WHERE id = ?",
            (write_outcome(failure), scene.id),
        )

    def drop_opinion(self, opinion: Opinion) -> None:
        """Overwrite an opinion that a later comparison has dropped."""
        self.write(
            f"UPDATE {self.choose_shard(opinion.dialogue)}.opinions"
            " SET dropped = ?, opinion = ? WHERE id = ?",
            (opinion.dropped, opinion.model_dump_json(), opinion.id),
        )

    def write_samples(self, samples: Iterable[Sample]) -> int:
        """Make these the corpus, in one transaction; return how many they are.

        The beginning that stands there already is left as it is: a corpus that grew is appended to.
        """
        self.commit()
        count, kept = 0, self.iterate("SELECT rank, sample FROM samples ORDER BY rank")
        same = True
        for count, sample in enumerate(samples, 1):
            text = sample.model_dump_json(exclude_defaults=True)
            if same and next(kept, None) == (count, text):
                continue
            if same:
                kept.close()
                self.write("DELETE FROM samples WHERE rank >= ?", (count,), wait=True)
                same = False
            row = (count, sample.id, sample.culture, sample.question, sample.split, text)
            self.write("INSERT INTO samples VALUES (?, ?, ?, ?, ?, ?)", row, wait=True)
        kept.close()
        self.write("DELETE FROM samples WHERE rank > ?", (count,), wait=True)
        self.commit()
        return count

    # --------------------------------------------------------------- budget

    def sum_spent(self) -> tuple[float, int]:
        """Return USD and tokens of all calls so far, and of every call that was sent and never
        heard of again.
        """
        ((usd, tokens),) = self.iterate(
            "SELECT TOTAL(usd), CAST(TOTAL(tokens) AS INTEGER) FROM (SELECT usd,"
            " COALESCE(prompt_tokens, 0) + COALESCE(completion_tokens, 0) AS tokens FROM calls"
            " UNION ALL SELECT usd, tokens FROM holds)"
        )
        return float(usd), int(tokens)

    def reserve(self, usd: float, tokens: int, key: str) -> int:
        """Write, at once, what a call that is about to be sent can cost at most; return the
        reservation's number.
        """
        self.write("INSERT INTO holds VALUES (NULL, ?, ?, ?)", (usd, tokens, key), wait=True)
        ((number,),) = self.iterate("SELECT last_insert_rowid()")
        self.commit()
        return int(number)

    def read_reservations(self) -> dict[str, tuple[int, float, int]]:
        """Return the reservations of calls that can still be answered (those with a key): number,
        USD and tokens by key.
        """
        return {
            key: (number, usd, tokens)
            for number, usd, tokens, key in self.iterate("SELECT * FROM holds WHERE key != ''")
        }

    def release(self, reservation: int) -> None:
        """Delete a reservation, in one transaction with the call that is written next."""
        self.write("DELETE FROM holds WHERE id = ?", (reservation,), wait=True)

    def reduce(self, reservation: int, usd: float, tokens: int) -> None:
        """Reduce a reservation, in one transaction with the call that is written next."""
        self.write(
            "UPDATE holds SET usd = ?, tokens = ?, key = '' WHERE id = ?",
            (usd, tokens, reservation),
            wait=True,
        )

    # -------------------------------------------------------------- batches

    def set_batch(
        self, name: str, endpoint: str, remote_id: str | None, status: str, keys: Iterable[str]
    ) -> None:
        """Write, at once, the status of a batch of calls; `keys` are the calls in it."""
        self.write(
            "INSERT OR REPLACE INTO waves VALUES (?, ?, ?, ?, ?)",
            (name, endpoint, remote_id, status, " ".join(keys)),
            wait=True,
        )
        self.commit()

    def read_batches(self, endpoint: str) -> list[tuple[str, str | None, str, list[str]]]:
        """Return the unfinished batches of an endpoint: id, the provider's id, status, keys."""
        rows = self.iterate(
            "SELECT id, batch, status, keys FROM waves WHERE line = ? AND status != 'done' ORDER BY"
            " rowid",
            endpoint,
        )
        return [(wave, batch, status, keys.split()) for wave, batch, status, keys in rows]

    # -------------------------------------------------------------- reading

    def find_answer(self, key: str) -> Reply | None:
        """Return the answer that this run got for a call; None where it got none."""
        return self._find_reply(key, "AND status = 'ok'")

    def find_reply(self, key: str) -> Reply | None:
        """Return the last reply to a call, whatever came of it; an answer that could not be read
        comes back as the text it is.
        """
        return self._find_reply(key)

    def _find_reply(self, key: str, only: str = "") -> Reply | None:
        columns = ", ".join(self._reply_columns.values())
        for row in self.select(
            f"SELECT {columns} FROM calls WHERE key = ? {only} ORDER BY id DESC LIMIT 1", key
        ):
            reply: dict[str, Any] = dict(zip(self._reply_columns, row, strict=True))
            try:
                faults, probs = reply["faults"], reply.get("option_probs")
                reply["option_probs"] = tuple(json.loads(probs)) if probs else ()
                reply["faults"] = tuple(map(Fault.model_validate, json.loads(faults or "[]")))
            except (ValueError, TypeError) as error:
                raise self.explain_unreadable("call", error) from error
            if reply["status"] == "unparsed":
                reply |= {"status": "ok", "reason": ""}
            return Reply(**reply)
        return None

    def find_status(self, dialogue: str) -> str | None:
        """Return a dialogue's status, None when it was never opened."""
        rows = self.select("SELECT status FROM scenes WHERE id = ?", dialogue)
        return str(rows[0][0]) if rows else None

    def is_refined(self, dialogue: str) -> bool:
        """Say whether a dialogue has been refined to its end."""
        query = f"SELECT 1 FROM scenes WHERE id = ? AND refined = '{REFINED}'"
        return bool(self.select(query, dialogue))

    def read_turns(self, dialogue: str) -> tuple[Turn, ...]:
        """Return a dialogue's turns in order."""
        rows = self.iterate("SELECT turn FROM turns WHERE dialogue = ? ORDER BY n", dialogue)
        return tuple(self.parse(Turn, t) for (t,) in rows)

    def find_dialogue(self, dialogue: str) -> Dialogue | None:
        """Return a dialogue as far as it has come."""
        for scene, status, reason in self.iterate(
            "SELECT scene, status, reason FROM scenes WHERE id = ?", dialogue
        ):
            return Dialogue(
                scene=self.parse(Scene, scene),
                turns=self.read_turns(dialogue),
                status=status,
                reason=reason,
            )
        return None

    def find_opinion(self, opinion: str) -> Opinion | None:
        """Return one opinion by its id."""
        rows = self.iterate("SELECT opinion FROM opinions WHERE id = ?", opinion)
        return next((self.parse(Opinion, o) for (o,) in rows), None)

    @property
    def keeps_reasoning(self) -> bool:
        """Whether there is a place for what models thought; in a store from before that, which is
        only read, there is none.
        """
        return "reasoning" in self._reply_columns
