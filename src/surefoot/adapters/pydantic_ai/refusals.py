"""Pydantic AI's own exceptions as data, so that they are the same on replay as when they were raised first.

    tools, output functions   ModelRetry, ToolFailed, CallDeferred, ApprovalRequired, a cancelled sub-agent
    model requests            errors of the provider, by their public class

Pydantic AI acts on these by their type (it asks the model again, falls back to another model), so they are recorded as
values and raised again, where any other exception comes back as `StepFailed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_ai import exceptions
from pydantic_ai.exceptions import (
    AgentRunError,
    ApprovalRequired,
    CallDeferred,
    FallbackExceptionGroup,
    ModelAPIError,
    ModelHTTPError,
    ModelRetry,
    ToolFailed,
    UnexpectedModelBehavior,
)
from pydantic_core import to_jsonable_python

from surefoot.effects.classify import REFUSED_THE_CALL
from surefoot.journal.texts import without_surrogates
from surefoot.runs import StepFailed
from surefoot.runs.errors import name_of

_RunCancelled: Any = getattr(exceptions, "RunCancelled", None)
_ToolRetryError: Any = exceptions.ToolRetryError

CONTROL: tuple[type[BaseException], ...] = (ModelRetry, ToolFailed, CallDeferred, ApprovalRequired, ValidationError,
                                            StepFailed, _ToolRetryError,
                                            *((_RunCancelled,) if _RunCancelled is not None else ()))  # fmt: skip
"""What a tool or an output function raises to say something to the framework; of `StepFailed`, what stands for one."""

DEFERRED = "call_deferred"
"""The kind of a call whose result is made elsewhere: it was done as far as this call goes."""

_BY_MESSAGE: dict[str, Any] = {"model_retry": ModelRetry, "tool_failed": ToolFailed}
_BY_METADATA: dict[str, Any] = {DEFERRED: CallDeferred, "approval_required": ApprovalRequired}
RETRIES = {**{error.__name__: kind for kind, error in _BY_MESSAGE.items()}, REFUSED_THE_CALL: "model_retry"}
"""The kinds of refusals by the names under which the ledger keeps them."""

_RETRY_NAMES = {name_of(error("")): kind for kind, error in _BY_MESSAGE.items()}


def refused(error: BaseException) -> dict[str, Any] | None:
    """Return a control exception as data, in the form in which Pydantic AI records it; None for another exception."""
    if isinstance(error, _ToolRetryError):
        error = error.__cause__ if isinstance(error.__cause__, ModelRetry) else ModelRetry(_feedback(error))
    if isinstance(error, ValidationError):  # of what the function itself validated: said to the model in its own words
        return {"kind": "model_retry", "message": str(error)}
    if isinstance(error, StepFailed):  # a step inside the tool has recorded it
        kind = _RETRY_NAMES.get(error.error_type)
        return None if kind is None else {"kind": kind, "message": error.error}
    if _RunCancelled is not None and isinstance(error, _RunCancelled):
        return {"kind": "run_cancelled", "message": str(error), "timed_out": isinstance(error, TimeoutError)}
    for kind, cls in _BY_MESSAGE.items():
        if isinstance(error, cls):
            return {"kind": kind, "message": without_surrogates(str(getattr(error, "message", error)))}
    for kind, cls in _BY_METADATA.items():
        if isinstance(error, cls):
            return {"kind": kind, "metadata": to_jsonable_python(getattr(error, "metadata", None)),
                    **({"call_kind": "question"} if getattr(error, "kind", "external") == "question" else {})}  # fmt: skip
    return None


def is_refusal(kind: str) -> bool:
    """Whether a payload of this kind is a refusal."""
    return kind in _BY_MESSAGE or kind in _BY_METADATA


def _feedback(error: Any) -> str:
    """Return the words of a retry that has no cause: what the model is told."""
    return str(getattr(error.tool_retry, "content", error))


def raise_refusal(payload: Mapping[str, Any]) -> None:
    """Raise what a recorded refusal says; return for anything else."""
    kind = str(payload.get("kind"))
    if kind in _BY_MESSAGE:
        raise _BY_MESSAGE[kind](payload.get("message"))
    if kind == "run_cancelled":
        cls = getattr(exceptions, "RunTimedOut", _RunCancelled) if payload.get("timed_out") else _RunCancelled
        raise cls(payload.get("message"))
    if kind in _BY_METADATA:
        extra = {"kind": payload["call_kind"]} if "call_kind" in payload else {}
        raise _BY_METADATA[kind](metadata=payload.get("metadata"), **extra)


# -- errors of model requests -----------------------------------------------------------------------------------------

_FACTS = ("provider_error_code", "provider_error_type", "retry_after", "in_stream")
_HTTP_FACTS = ("headers", "suggested_model_id", "hint", *_FACTS)


MODEL_ERRORS = (AgentRunError, FallbackExceptionGroup)
"""What a model request ends in, recorded by its class."""


def is_model_error(error: BaseException) -> bool:
    """Whether an error is told by the framework's own classes alone; a group, whether all in it are."""
    if isinstance(error, FallbackExceptionGroup):
        return all(is_model_error(one) for one in error.exceptions)
    return isinstance(error, AgentRunError)


def model_error(error: AgentRunError | ExceptionGroup[Any]) -> dict[str, Any]:
    """Return an error of a model request as data."""
    if isinstance(error, FallbackExceptionGroup):
        each = [model_error(one) for one in error.exceptions]
        return {"kind": "model_error", "error": _public_name(error), "message": error.message, "each": each}
    said: dict[str, Any] = {"kind": "model_error", "error": _public_name(error), "message": str(error)}
    if isinstance(error, ModelHTTPError):
        said |= {"status_code": error.status_code, "model_name": error.model_name, "facts": _facts(error, _HTTP_FACTS)}
    elif isinstance(error, ModelAPIError):
        said |= {"model_name": error.model_name, "message": error.message, "facts": _facts(error, _FACTS)}
    elif isinstance(error, UnexpectedModelBehavior):
        said |= {"message": error.message}
    body = getattr(error, "body", None)
    return said if body is None else {**said, "body": to_jsonable_python(body, fallback=str)}


def raise_model_error(payload: Mapping[str, Any]) -> None:
    """Raise the error that a recorded model request ended in."""
    raise _model_error_of(payload)


def _model_error_of(payload: Mapping[str, Any]) -> Any:
    cls: Any = getattr(exceptions, payload["error"], AgentRunError)
    message, body, facts = payload["message"], payload.get("body"), payload.get("facts", {})
    if "each" in payload:
        return FallbackExceptionGroup(message, [_model_error_of(one) for one in payload["each"]])
    if "status_code" in payload:
        given = {"status_code": payload["status_code"], "model_name": payload["model_name"], "body": body, **facts}
        if cls is ModelHTTPError or not hasattr(ModelHTTPError, "for_category"):
            return ModelHTTPError(**given)
        return ModelHTTPError.for_category(cls, **given)
    if "model_name" in payload:
        return cls(payload["model_name"], message, **({} if body is None else {"body": body}), **facts)
    if issubclass(cls, UnexpectedModelBehavior):
        return cls(message, body)
    return cls(message)


def _public_name(error: BaseException) -> str:
    """Return the name of the first of its classes that Pydantic AI exports under that name."""
    for cls in type(error).__mro__:
        if getattr(exceptions, cls.__name__, None) is cls:
            return str(cls.__name__)
    return AgentRunError.__name__


def _facts(error: BaseException, names: tuple[str, ...]) -> dict[str, Any]:
    found = {name: getattr(error, name, None) for name in names}
    return {name: value for name, value in found.items() if value not in (None, False)}
