"""The local model in another process, as a Pydantic AI model: what workers use that get killed.

Owns: the client of `server`. What always holds: one attempt per request (who retries, retries above); the same errors
as `LocalModel`; a process that can't be reached is `ModelConnectionError` (in older versions of Pydantic AI its base,
`ModelAPIError`). Cancelling closes the connection, and the server stops working for it.
"""

from urllib.parse import urlsplit

import httpx
from pydantic import ValidationError
from pydantic_ai import exceptions
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.settings import ModelSettings, merge_model_settings

from surefoot.models.clerk import TIMEOUT_S, ClerkModel, api_error
from surefoot.models.wire import REQUEST_PATH, Ask, Failure, Settings, load_response

CONNECT_TIMEOUT_S = 5.0
_SLACK_S = 5.0  # the server reports its own timeout a little before the client gives up


class RemoteLocalModel(ClerkModel):
    """The model served by `python -m surefoot.models.server`.

    Args:
        base_url: Where it listens, e.g. "http://127.0.0.1:8123".
        settings: Defaults for every request.
    """

    def __init__(self, base_url: str, *, settings: ModelSettings | None = None) -> None:
        super().__init__(settings=settings)
        parts = urlsplit(base_url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"expected http://HOST:PORT, found {base_url!r}")
        self._base_url = base_url.rstrip("/")

    @property
    def base_url(self) -> str:
        """Where the model is served."""
        return self._base_url

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Answer as `LocalModel` does, after the requests that came earlier."""
        settings = Settings.of(merge_model_settings(self.settings, model_settings))
        body = Ask(messages=messages, settings=settings, parameters=model_request_parameters).model_dump_json()
        answer = await self._post(body.encode(), (settings.timeout or TIMEOUT_S) + _SLACK_S)
        if answer.status_code == httpx.codes.OK:
            return load_response(answer.content)
        try:
            failure = Failure.model_validate_json(answer.content)
        except ValidationError:
            failure = Failure(kind="ModelServerError", message=f"HTTP {answer.status_code} {answer.text[:200]}")
        if failure.kind == "UserError":
            raise exceptions.UserError(failure.message)
        raise api_error(failure.kind, failure.message)

    async def _post(self, body: bytes, timeout_s: float) -> httpx.Response:
        timeout = httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S)
        # A client per request: runs come and go with their event loops. Loopback: no proxies, no certificates to load.
        async with httpx.AsyncClient(timeout=timeout, trust_env=False, verify=False) as client:
            try:
                return await client.post(
                    self._base_url + REQUEST_PATH, content=body, headers={"content-type": "application/json"}
                )
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                hint = "start it with: python -m surefoot.models.server"
                raise api_error("ModelConnectionError", f"nothing listens at {self._base_url}; {hint}") from error
            except httpx.TimeoutException as error:
                raise api_error("ModelTimeoutError", f"no answer from {self._base_url} in {timeout_s:g} s") from error
            except httpx.TransportError as error:
                said = str(error) or type(error).__name__
                raise api_error("ModelConnectionError", f"the connection to {self._base_url} broke: {said}") from error
