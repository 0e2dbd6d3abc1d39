"""AutoGen AgentChat: a RoundRobinGroupChat of two AssistantAgents a dialogue; one
OpenAIChatCompletionClient for all.

Its SDK posts through the HTTP client that it offers for concurrency: with the default one a turn
costs a multiple.
"""

from __future__ import annotations

import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path


def main() -> None:
    """Hold the dialogues as group chats that end after the planned number of turns."""
    os.environ["AUTOGEN_DISABLE_RUNTIME_TRACING"] = "true"
    from autogen_agentchat.agents import AssistantAgent  # type: ignore[import-not-found]
    from autogen_agentchat.teams import RoundRobinGroupChat  # type: ignore[import-not-found]
    from autogen_core.models import ModelFamily, ModelInfo  # type: ignore[import-not-found]
    from autogen_ext.models.openai import OpenAIChatCompletionClient  # type: ignore[import-not-found]
    from openai import DefaultAioHttpClient

    from benchmarks.peers import gauge

    def prepare(given: gauge.Task, closing: AsyncExitStack) -> gauge.Hold:
        client = OpenAIChatCompletionClient(
            model=gauge.MODEL,
            base_url=given.url,
            api_key="none",
            temperature=gauge.TEMPERATURE,
            max_tokens=gauge.MAX_TOKENS,
            http_client=DefaultAioHttpClient(),
            model_info=ModelInfo(
                vision=False,
                function_calling=False,
                json_output=False,
                structured_output=False,
                family=ModelFamily.UNKNOWN,
            ),
        )
        closing.push_async_callback(client.close)
        systems = gauge.systems()

        async def hold(turns: int) -> list[str]:
            agents = [
                AssistantAgent(name, model_client=client, system_message=system)
                for name, system in zip(gauge.NAMES, systems, strict=True)
            ]
            result = await RoundRobinGroupChat(agents, max_turns=turns).run(task=gauge.OPENING)
            return [message.content for message in result.messages[1:]]

        return hold

    gauge.work("autogen", "autogen-agentchat", prepare)


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[2])  # this folder's names are also the packages' own
    main()
