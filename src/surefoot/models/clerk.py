"""What the local model in this process and the one in another have in common: name, profile, errors, streaming.

Owns: how the model presents itself to Pydantic AI. Importable without a runtime for the weights.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from pydantic_ai import exceptions
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models import CompletedStreamedResponse, Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.profiles import ModelProfile
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import RunContext

MODEL_NAME = "smollm2-135m"
SYSTEM = "local"
CONTEXT_TOKENS = 2048
"""Prompt and answer of one request together. SmolLM2 was trained on 8192, but more only slows a clerk down."""
TIMEOUT_S = 300.0  # of a request with all the waiting for others, unless the setting `timeout` says otherwise

PROFILE = ModelProfile(
    supports_json_schema_output=True,
    supports_json_object_output=True,
    supports_inline_system_prompts=True,
    supports_image_input=False,
    supports_document_input=False,
    supports_audio_file_input=False,
    supports_video_input=False,
    default_framing_announcement="never",  # 120 words that this model would take for the task
    context_window=CONTEXT_TOKENS,
)


class ClerkModel(Model[None]):
    """A model that is SmolLM2-135M, wherever it runs."""

    def __init__(self, *, settings: ModelSettings | None = None) -> None:
        super().__init__(settings=settings, profile=PROFILE)

    @property
    def model_name(self) -> str:
        """The name of the weights."""
        return MODEL_NAME

    @property
    def system(self) -> str:
        """The provider in traces: "local"."""
        return SYSTEM

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        """Stream a response in one piece: it is generated in full before the first event."""
        response = await self.request(messages, model_settings, model_request_parameters)
        _, parameters = self.prepare_request(model_settings, model_request_parameters)
        yield CompletedStreamedResponse(response, model_request_parameters=parameters, replay_events=True)


def api_error(kind: str, message: str) -> exceptions.ModelAPIError:
    """Return one of Pydantic AI's model errors by name; older versions have only their common base."""
    error: type[exceptions.ModelAPIError] = getattr(exceptions, kind, exceptions.ModelAPIError)
    return error(MODEL_NAME, f"{MODEL_NAME}: {message}")
