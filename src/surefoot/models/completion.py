"""One continuation of a prompt: how it is drawn, and what comes back.

Owns: the translation of the runtime's streamed pieces. Pure but for a flag that is asked after each piece.
"""

import threading
from dataclasses import dataclass
from typing import Any

from surefoot.models.clerk import CONTEXT_TOKENS
from surefoot.models.errors import GrammarIgnored


class ContextExceeded(Exception):
    """The prompt is longer than the context.

    Attributes:
        prompt_tokens: How long it is.
    """

    def __init__(self, prompt_tokens: int) -> None:
        super().__init__(f"the prompt has {prompt_tokens} tokens, the context {CONTEXT_TOKENS}")
        self.prompt_tokens = prompt_tokens


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn; `temperature` 0 takes the likeliest."""

    temperature: float = 0.0
    top_p: float = 0.95
    top_k: int = 40
    seed: int = 0


GREEDY = Sampling()


@dataclass(frozen=True, slots=True)
class Completion:
    """What was generated.

    Attributes:
        text: The text.
        prompt_tokens: Tokens of the prompt, cached ones included.
        cached_tokens: How many of those the prompt cache spared.
        tokens: Generated tokens.
        is_cut: Whether the token limit ended it.
        logprob: Sum of the natural log-probabilities of the tokens, before any grammar; 0 unless asked for.
        first: The likeliest first tokens with their log-probabilities; empty unless asked for.
    """

    text: str
    prompt_tokens: int
    cached_tokens: int
    tokens: int
    is_cut: bool
    logprob: float = 0.0
    first: tuple[tuple[str, float], ...] = ()


class Collector:
    """Receives the pieces of one completion; returning True stops it. Must not raise: the runtime swallows that."""

    def __init__(self, gone: threading.Event) -> None:
        self._gone = gone
        self._last: dict[str, Any] = {}
        self._logprob = 0.0
        self._first: tuple[tuple[str, float], ...] = ()
        self._error: dict[str, Any] | None = None
        self.texts: list[str] = []

    def __call__(self, piece: dict[str, Any]) -> bool:
        """Take one piece in; return whether to stop."""
        if "error" in piece:
            self._error = piece["error"]
            return True
        self._last = piece
        choice = piece["choices"][0]
        if choice["text"]:
            self.texts.append(choice["text"])
        if found := choice.get("logprobs"):
            for token in found["content"]:
                if token["token"]:  # the end-of-text token has no text, and is not part of what was asked
                    self._logprob += token["logprob"]
                if not self._first:
                    self._first = tuple((each["token"], each["logprob"]) for each in token["top_logprobs"])
        return self._gone.is_set()

    def result(self) -> Completion:
        """Return all pieces together.

        Raises:
            ContextExceeded: The prompt was too long.
            GrammarIgnored: The runtime refused the request, which is the grammar's fault.
        """
        if self._error is not None:
            if "n_prompt_tokens" in self._error:
                raise ContextExceeded(self._error["n_prompt_tokens"])
            raise GrammarIgnored(f"xllamacpp refused the request: {self._error.get('message')}", hint="report this")
        usage = self._last.get("usage", {})
        return Completion(
            text="".join(self.texts),
            prompt_tokens=usage.get("prompt_tokens", 0),
            cached_tokens=usage.get("prompt_tokens_details", {}).get("cached_tokens", 0),
            tokens=usage.get("completion_tokens", 0),
            is_cut=self._last.get("choices", [{}])[0].get("finish_reason") == "length",
            logprob=self._logprob,
            first=self._first,
        )
