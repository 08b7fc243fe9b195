"""What travels between a worker and the model process: one request, then one response or one failure, as JSON.

Owns: the shape of the bodies. What always holds: a request carries all the model needs and nothing that could be
executed. Both ends are of one installation, so there is no version to negotiate.
"""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter, ModelResponse
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.settings import ModelSettings, ToolOrOutput

REQUEST_PATH = "/request"
HEALTH_PATH = "/health"

FailureKind = Literal[
    "ModelContextWindowExceededError", "ModelTimeoutError", "ModelServerError", "ModelOverloadedError", "UserError"
]


class Settings(BaseModel):
    """The settings that the local model follows; others do not travel."""

    model_config = ConfigDict(extra="ignore")

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop_sequences: list[str] | None = None
    timeout: float | None = None
    tool_choice: Literal["none", "required", "auto"] | list[str] | ToolOrOutput | None = None

    @classmethod
    def of(cls, settings: ModelSettings | None) -> Self:
        """Return what of these settings travels; a timeout that is not a number of seconds does not."""
        known = {name: value for name, value in (settings or {}).items() if name in cls.model_fields}
        if not isinstance(known.get("timeout"), int | float):
            known.pop("timeout", None)
        return cls.model_validate(known)

    def to_model_settings(self) -> ModelSettings:
        """Return the settings as Pydantic AI has them."""
        found = ModelSettings()
        for name in type(self).model_fields:
            if (value := getattr(self, name)) is not None:
                found[name] = value  # type: ignore[literal-required]  # the names are the same by construction
        return found


class Ask(BaseModel):
    """One request."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    messages: list[ModelMessage]
    settings: Settings
    parameters: ModelRequestParameters


class Failure(BaseModel):
    """Why there is no response.

    Attributes:
        kind: The class of Pydantic AI's error that the worker is to raise.
        message: What happened, for a person.
    """

    kind: FailureKind
    message: str


def dump_response(response: ModelResponse) -> bytes:
    """Return the body of a response."""
    return ModelMessagesTypeAdapter.dump_json([response])


def load_response(body: bytes) -> ModelResponse:
    """Return the response in a body.

    Raises:
        ValueError: It is not one.
    """
    (message,) = ModelMessagesTypeAdapter.validate_json(body)
    if not isinstance(message, ModelResponse):
        raise ValueError(f"expected a response, found a {message.kind}")
    return message
