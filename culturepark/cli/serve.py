"""The verbs `serve` and `merge`: tuned models at work over OpenAI's protocol, and made whole to be
handed over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from culturepark.cli.flags import as_json, server_flags
from culturepark.cli.progress import say
from culturepark.cli.terminal import echo

if TYPE_CHECKING:
    from culturepark.serving.limits import ServerLimits
    from culturepark.serving.local_answers import LocalAnswers

PORT = 8000  # vLLM's, so that `hosted_vllm/NAME` finds either


@click.command()
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@click.option(
    "--rows",
    type=click.IntRange(1),
    default=32,
    show_default=True,
    metavar="N",
    help="Requests answered in one batch, at most.",
)
@click.option("--device", metavar="cuda|mps|cpu")
@click.option("--dtype", metavar="bfloat16|float16|float32")
@click.option("--attention", metavar="flash_attention_2|sdpa|eager")
@server_flags(PORT, request=8)
@click.option(
    "--vllm", is_flag=True, help="Print the vLLM command for the same models, and serve nothing."
)
@as_json
def serve(
    models: tuple[str, ...],
    port: int,
    rows: int,
    vllm: bool,
    as_json: bool,
    key_env: str | None,
    max_request: int,
    idle: float,
    **where: Any,
) -> None:
    """Serve tuned models on this machine over OpenAI's protocol, each under its name, beside their
    base.

    A MODEL is the folder of a tuned model, or of several (outputs/first/models/sft), `tiny`, the
    folder of a base, or a base's hub name. Adapters of one base share it, and a batch. Chat and
    text completions (streamed too), several answers, JSON mode and schemas, log-probabilities of
    answers and of given texts, and the models' list. What it cannot do, it refuses.
    """
    from culturepark.local_models import vllm as production

    if vllm:
        from culturepark.local_models.local_model import find_models, name_models

        lines = production.build_commands(name_models(find_models(models)), port or PORT)
        say({"vllm": lines}, as_json, "\n".join(lines))
        return
    from culturepark.serving.limits import MIB, ServerLimits

    limits = ServerLimits(request=max_request * MIB, idle=idle)
    _serve_models(models, port, rows, key_env, where, as_json, limits)


def _serve_models(
    models: tuple[str, ...],
    port: int,
    rows: int,
    key_env: str | None,
    where: dict[str, Any],
    as_json: bool,
    limits: ServerLimits,
) -> None:
    from culturepark.keys import named_key
    from culturepark.local_models import machine
    from culturepark.serving.local_answers import LocalAnswers
    from culturepark.serving.model_server import ModelServer

    key = named_key("--key-env", key_env)
    device = machine.find_machine(where["device"], where["dtype"], where["attention"])
    answers = LocalAnswers(models, device, rows).load()
    with ModelServer(answers, key=key, port=port, limits=limits, tell=warn) as server:
        value = {"url": server.url, "models": list(answers.names), "machine": str(device)}
        say(
            value,
            as_json,
            f"{server.url} answers as {', '.join(answers.names)} on {device}. Ctrl-C stops"
            f" it.\n{_format_command(answers, server.url)}",
        )
        server.wait()


def warn(message: str) -> None:
    """Say on the error stream that a limit was reached."""
    echo(message, err=True)


def _format_command(answers: LocalAnswers, url: str) -> str:
    """Return the command by which these models take their seats."""
    address = "" if url == f"http://127.0.0.1:{PORT}/v1" else f" --base-url {url}"
    base = next((n for n, m in answers.models.items() if not m.adapter), answers.names[0])
    seats = "".join(f" --seat {n}=hosted_vllm/{n}" for n, m in answers.models.items() if m.adapter)
    return f"culturepark run NAME --model hosted_vllm/{base}{seats}{address}"


@click.command()
@click.argument("model", metavar="MODEL")
@click.argument("folder", metavar="FOLDER")
@as_json
def merge(model: str, folder: str, as_json: bool) -> None:
    """Merge the adapter in the folder MODEL into its base and write the whole model, in
    safetensors, to FOLDER.
    """
    from culturepark.local_models.merge import hand_over, merge_adapter

    whole = merge_adapter(model, folder)
    lines = hand_over(whole)
    say(
        {"model": str(whole), "next": lines},
        as_json,
        "\n".join([f"{whole}: a whole model. From here:", *(f"  {line}" for line in lines)]),
    )
