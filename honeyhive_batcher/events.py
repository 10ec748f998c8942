"""What a producer may push: one model call, and the session that calls belong to.

Field names are the endpoint's own. A plain dict of the same shape is as good, keys unknown here
included: the route is open (HoneyHive OpenAPI 1.9.0, `PostModelEventBatchRequest`).
"""

from typing import Any

from msgspec import UNSET, Struct, UnsetType


class ModelEvent(Struct, kw_only=True, omit_defaults=True):
    """One call of a language model.

    Every field may be left out. HoneyHive's first documentation requires `project`, `model`,
    `provider`, `messages`, `response`, `duration` and `usage`; OpenAPI 1.9.0 requires `model_name`
    or `event_name`. `project`, `source` and `event_name` are filled in from the batcher's settings
    where they are left out.
    """

    project: str | UnsetType = UNSET
    """Project the event belongs to. OpenAPI 1.9.0 derives it from the API key and ignores this."""
    model: str | UnsetType = UNSET
    """Name of the model, as the provider calls it."""
    provider: str | UnsetType = UNSET
    """Provider of the model, for example "openai"."""
    messages: list[Any] | UnsetType = UNSET
    """Messages sent to the model."""
    response: dict[str, Any] | list[Any] | str | UnsetType | None = UNSET
    """What the model answered. Real providers answer with objects, lists and plain text."""
    duration: float | UnsetType = UNSET
    """How long the call took, in milliseconds."""
    usage: dict[str, Any] | UnsetType = UNSET
    """Token counts and the like."""
    cost: float | UnsetType | None = UNSET
    """Cost of the call, in US dollars."""
    error: str | UnsetType | None = UNSET
    """Description of the failure, if the call failed."""
    source: str | UnsetType = UNSET
    """Where the event comes from: "production", "staging" and so on."""
    event_name: str | UnsetType = UNSET
    """Name of the event."""
    hyperparameters: dict[str, Any] | UnsetType = UNSET
    """Sampling parameters of the call."""
    template: Any = UNSET
    """Prompt template, a list of messages with placeholders."""
    template_inputs: dict[str, Any] | UnsetType = UNSET
    """Values for the placeholders of `template`."""
    tools: list[Any] | UnsetType = UNSET
    """Tools offered to the model."""
    tool_choice: str | dict[str, Any] | UnsetType = UNSET
    """Which tool the model was told to use: a word, or an object naming one."""
    response_format: dict[str, Any] | UnsetType = UNSET
    """Format the model was told to answer in."""

    event_id: str | UnsetType = UNSET
    """UUID of the event. Made at push time when left out, and kept through every retry."""
    session_id: str | UnsetType = UNSET
    """UUID of the session the event belongs to; an event that carries one needs no `Session`."""
    parent_id: str | UnsetType = UNSET
    """UUID of the parent event; the server takes the session when it is left out."""
    children_ids: list[str] | UnsetType = UNSET
    """UUIDs of child events."""
    start_time: float | UnsetType = UNSET
    """When the call began, Unix milliseconds."""
    end_time: float | UnsetType = UNSET
    """When the call ended, Unix milliseconds."""
    metadata: dict[str, Any] | UnsetType | None = UNSET
    """Anything about the system or the application."""
    metrics: dict[str, Any] | UnsetType | None = UNSET
    """Values computed over the output."""
    feedback: dict[str, Any] | UnsetType | None = UNSET
    """What users said about the output."""
    user_properties: dict[str, Any] | UnsetType | None = UNSET
    """Properties of the user behind the call."""
    config: dict[str, Any] | UnsetType | None = UNSET
    """Configuration of the call in HoneyHive's newer layout."""
    inputs: dict[str, Any] | UnsetType = UNSET
    """Inputs of the call in HoneyHive's newer layout."""
    outputs: dict[str, Any] | list[Any] | UnsetType | None = UNSET
    """Outputs of the call in HoneyHive's newer layout."""
    model_name: str | UnsetType = UNSET
    """Name of the model in HoneyHive's newer layout."""
    model_version: str | UnsetType = UNSET
    """Version of the model in HoneyHive's newer layout."""


class SessionProperties(Struct, kw_only=True, omit_defaults=True):
    """What is said once about a session, in `session_properties` of a request body."""

    session_id: str | UnsetType = UNSET
    """UUID of the session; made when left out, so that several batches land in one session."""
    session_name: str | UnsetType = UNSET
    """Name of the session."""
    source: str | UnsetType = UNSET
    """Where the session comes from: "production", "staging" and so on."""
    config: dict[str, Any] | UnsetType = UNSET
    """Configuration of the session."""
    inputs: dict[str, Any] | UnsetType = UNSET
    """What went into the session: the user's question, a document and so on."""
    outputs: dict[str, Any] | UnsetType = UNSET
    """What came out of the session."""
    error: str | UnsetType | None = UNSET
    """Description of the failure, if the session failed."""
    user_properties: dict[str, Any] | UnsetType = UNSET
    """Properties of the user behind the session."""
    metrics: dict[str, Any] | UnsetType = UNSET
    """Values computed over the output of the session."""
    feedback: dict[str, Any] | UnsetType = UNSET
    """What users said about the session."""
    metadata: dict[str, Any] | UnsetType = UNSET
    """Anything about the system or the application."""
    start_time: float | UnsetType = UNSET
    """When the session began, Unix milliseconds."""
