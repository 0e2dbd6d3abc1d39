"""Providers that speak OpenAI's protocol, and what a model's name says about where it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from culturepark.registry import Registry, is_path


@dataclass(frozen=True)
class Provider:
    """A provider that speaks OpenAI's protocol: its address, and the environment variables of its
    key and another address.

    `local`: a server of one's own, which needs no key; `start` is the command that starts it.
    """

    url: str
    key: str
    address: str = ""
    local: bool = False
    start: str = ""


PROVIDERS: Registry[Provider] = Registry(
    "provider",
    {
        "openai": Provider("https://api.openai.com/v1", "OPENAI_API_KEY", "OPENAI_BASE_URL"),
        "hosted_vllm": Provider(
            "http://localhost:8000/v1",
            "HOSTED_VLLM_API_KEY",
            "HOSTED_VLLM_API_BASE",
            local=True,
            start="vllm serve MODEL",
        ),
        "ollama": Provider(
            "http://localhost:11434/v1",
            "OLLAMA_API_KEY",
            "OLLAMA_API_BASE",
            local=True,
            start="ollama serve",
        ),
        "llamacpp": Provider(
            "http://localhost:8080/v1",
            "LLAMACPP_API_KEY",
            "LLAMACPP_API_BASE",
            local=True,
            start="llama-server -m MODEL.gguf --port 8080",
        ),
        "transformers": Provider(
            "http://localhost:8000/v1",
            "TRANSFORMERS_API_KEY",
            "TRANSFORMERS_API_BASE",
            local=True,
            start="transformers serve",
        ),
        "lm_studio": Provider(
            "http://localhost:1234/v1",
            "LM_STUDIO_API_KEY",
            "LM_STUDIO_API_BASE",
            local=True,
            start="lms server start",
        ),
        "openrouter": Provider("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
        "together_ai": Provider("https://api.together.xyz/v1", "TOGETHERAI_API_KEY"),
        "groq": Provider("https://api.groq.com/openai/v1", "GROQ_API_KEY"),
        "deepseek": Provider("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
        "fireworks_ai": Provider("https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY"),
    },
    "culturepark.llm:Provider",
)


def local_place(name: str) -> str | None:
    """Return the folder or base that a name on this machine stands for; None where it is a
    provider's.
    """
    provider, _, rest = name.partition("/")
    if provider == "local" and rest:
        return rest
    if provider in PROVIDERS or provider == "litellm" or (is_path(provider) and rest):
        return None
    # A folder that is gone is told as such, not asked for at some provider.
    return (
        name
        if name.startswith((".", "/", "~")) or provider == "outputs" or Path(name).is_dir()
        else None
    )


def is_hosted(name: str) -> bool:
    """Say whether a name is that of a model at an endpoint: neither embedded, nor of this machine,
    nor Python's.
    """
    provider, slash, _ = name.partition("/")
    at_provider = ":" not in provider or is_path(provider)
    return bool(slash) and at_provider and local_place(name) is None


def find_provider(name: str) -> Provider | None:
    """Return the provider of a model's name, PROVIDER/NAME; None for one that only litellm knows,
    InputError for what cannot be imported.
    """
    provider, _, model = name.partition("/")
    own = is_path(provider) and model
    return PROVIDERS.load(provider) if provider in PROVIDERS or own else None
