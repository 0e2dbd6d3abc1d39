"""A model that says what it is told to: the public test double."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from culturepark.records import Reply, Request


class Scripted:
    """Answers with the given lines in order (the last repeats), or with whatever a function
    returns.

    >>> model = Scripted(["Hello.", Reply(status="failed", reason="busy")])
    """

    def __init__(
        self,
        script: Iterable[str | Reply] | Callable[[Request], str | Reply],
        identity: str = "scripted",
    ) -> None:
        self.identity = identity
        self.requests: list[Request] = []
        if callable(script):
            self._answer = script
        else:
            lines = list(script)
            if not lines:
                raise ValueError("a script needs at least one line")
            self._answer = lambda _: lines[min(len(self.requests), len(lines)) - 1]

    async def complete(self, request: Request) -> Reply:
        """Record the request and return the script's next reply."""
        self.requests.append(request)
        answer = self._answer(request)
        return (
            Reply(status="ok", text=answer, model=self.identity)
            if isinstance(answer, str)
            else answer
        )
