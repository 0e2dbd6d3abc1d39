"""Sotopia: an episode (`arun_one_episode`) a dialogue, two agents taking turns in its environment;
nothing is stored.

The server speaks prose, so the agent asks through Sotopia's own `agenerate` with its text parser,
not with the JSON one.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import AsyncExitStack, redirect_stdout
from pathlib import Path
from typing import Any


def main() -> None:
    """Hold the dialogues as episodes that end after the planned number of turns."""
    from benchmarks.peers import gauge

    os.environ["SOTOPIA_STORAGE_BACKEND"] = "local"
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    os.environ["AIOHTTP_CONNECTOR_LIMIT"] = str(gauge.CONNECTIONS)
    os.environ["CUSTOM_API_KEY"] = "none"
    os.environ["HOME"] = (
        sys.prefix
    )  # where its local store would go; the user's own home is left alone
    with redirect_stdout(sys.stderr):  # it greets when it is imported
        from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER
        from sotopia.agents import LLMAgent  # type: ignore[import-not-found]
        from sotopia.database import AgentProfile, EnvironmentProfile  # type: ignore[import-not-found]
        from sotopia.envs import ParallelSotopiaEnv  # type: ignore[import-not-found]
        from sotopia.envs.evaluators import Evaluator, RuleBasedTerminatedEvaluator  # type: ignore[import-not-found]
        from sotopia.generation_utils.generate import agenerate  # type: ignore[import-not-found]
        from sotopia.generation_utils.output_parsers import StrOutputParser  # type: ignore[import-not-found]
        from sotopia.messages import AgentAction, Observation  # type: ignore[import-not-found]
        from sotopia.server import arun_one_episode  # type: ignore[import-not-found]

    # By default every reply is drawn on the console.
    logging.getLogger("sotopia.generation").setLevel(logging.WARNING)
    systems = gauge.systems()

    class Silent(Evaluator):  # type: ignore[misc]
        """A judge of the ended episode that asks no model, since only the talk is measured."""

        prompt = ""

        def __call__(self, turn_number: int, messages: list[Any]) -> list[Any]:
            return []

        async def __acall__(self, turn_number: int, messages: list[Any]) -> list[Any]:
            return []

    class Speaker(LLMAgent):  # type: ignore[misc]
        """An agent that says what the model answers."""

        async def aact(self, obs: Observation) -> AgentAction:
            self.recv_message("Environment", obs)
            if obs.available_actions == ["none"]:
                return AgentAction(action_type="none", argument="")
            history = "\n".join(message.to_natural_language() for _, message in self.inbox)
            text = await agenerate(
                model_name=self.model_name,
                template="{history}\nYou are {agent}, at turn {turn}. What do you say?",
                input_values={
                    "history": history,
                    "agent": self.agent_name,
                    "turn": str(obs.turn_number),
                },
                output_parser=StrOutputParser(),
                temperature=gauge.TEMPERATURE,
            )
            return AgentAction(action_type="speak", argument=text)

    async def drain() -> None:
        # Cancelled in the middle of an entry, the log's worker goes on for ever, and its `flush`
        # does not wait for the last.
        if GLOBAL_LOGGING_WORKER._queue is not None:
            await GLOBAL_LOGGING_WORKER._queue.join()

    def prepare(given: gauge.Task, closing: AsyncExitStack) -> gauge.Hold:
        closing.push_async_callback(drain)
        model = f"custom/{gauge.MODEL}@{given.url}"
        people = [AgentProfile(first_name=name, last_name="", pk=name) for name in gauge.NAMES]
        scenario = EnvironmentProfile(scenario=gauge.OPENING, agent_goals=list(systems), pk="table")

        async def hold(turns: int) -> list[str]:
            table = ParallelSotopiaEnv(
                action_order="round-robin",
                model_name=model,
                evaluators=[
                    RuleBasedTerminatedEvaluator(max_turn_number=turns, max_stale_turn=turns)
                ],
                terminal_evaluators=[Silent()],
                env_profile=scenario,
            )
            agents = [Speaker(agent_profile=person, model_name=model) for person in people]
            messages = await arun_one_episode(table, agents)
            return [
                m.argument
                for _, _, m in messages
                if isinstance(m, AgentAction) and m.action_type == "speak"
            ]

        return hold

    gauge.work("sotopia", "sotopia", prepare)


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[2])  # this folder's names are also the packages' own
    main()
