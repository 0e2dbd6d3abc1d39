"""Serves models of this machine, each under its name: chat and text completions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from culturepark.serving.http_server import CHAT, TEXT, HttpServer
from culturepark.serving.limits import ServerLimits
from culturepark.serving.local_answers import Answer, LocalAnswers
from culturepark.serving.requests import check_chat_request, check_text_request

if TYPE_CHECKING:
    from aiohttp.web import AbstractRouteDef, Request, StreamResponse


class ModelServer(HttpServer):
    """An OpenAI-compatible server of `answers`, whose models are loaded.

    >>> with ModelServer(LocalAnswers(["outputs/first/models/sft"]).load()) as server: ...
    """

    def __init__(
        self,
        answers: LocalAnswers,
        *,
        key: str | None = None,
        port: int = 0,
        limits: ServerLimits | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(key=key, port=port, limits=limits, tell=tell)
        self._answers = answers

    @property
    def models(self) -> Sequence[str]:
        """The names of the models, bases first."""
        return self._answers.names

    def routes(self) -> Sequence[AbstractRouteDef]:
        """Return the routes of chat and text completions."""
        from aiohttp import web

        return [web.post(CHAT, self._complete_chat), web.post(TEXT, self._complete_text)]

    async def _complete_chat(self, request: Request) -> StreamResponse:
        return await self._answer(request, check_chat_request, self._answers.complete_chat)

    async def _complete_text(self, request: Request) -> StreamResponse:
        return await self._answer(request, check_text_request, self._answers.complete_text)

    async def _answer(
        self,
        request: Request,
        check: Callable[[Any, Sequence[str]], None],
        complete: Callable[[int, Mapping[str, Any]], Awaitable[Answer]],
    ) -> StreamResponse:
        body = await self.read_json(request)
        with self.count_in_flight():
            self.counts["requests"] += 1
            check(body, self.models)
            answer = await complete(self.counts["requests"], body)
            if isinstance(answer, AsyncIterator):
                return await self.stream_events(request, answer)
            self.count_tokens(answer)
            return self.respond(answer)
