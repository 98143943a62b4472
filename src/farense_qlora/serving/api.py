"""What the server takes: a request as a checked model, and the OpenAPI description of the routes."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..answers.generate import MAX_TOKENS
from ..config import Limits
from ..errors import UserError

# What an answer may be made of; the rest of a request is taken and changes nothing.
FOR_MLX_LM = {
    *("stream", "temperature", "top_p", "top_k", "min_p", "stop"),
    *("repetition_penalty", "presence_penalty", "frequency_penalty"),
}
SEEDS = 2**53  # whole numbers that JSON keeps whole


UNUSED = "Aceite e não usado, nem guardado."


class Checked(BaseModel):
    """No surprises: nothing unknown, no numbers as text, no infinities, no halves of characters."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Part(Checked):
    """A piece of a message; only text is taken."""

    type: Literal["text"]
    text: str
    cache_control: dict[str, Any] | None = None


class ChatMessage(Checked):
    """One turn of the conversation; an answer may come back with all that it had, or without a text."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"properties": {"role": {"const": "assistant"}}},
                {"properties": {"content": {"not": {"type": "null"}}}},
            ]
        }
    )
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part] | None
    name: str | None = None
    annotations: list[Any] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    tool_call_id: None = None
    tool_calls: list[Any] | None = Field(None, max_length=0)

    @property
    def text(self) -> str:
        """What was said, its pieces joined; an answer without text is null."""
        return (
            "".join(part.text for part in self.content)
            if isinstance(self.content, list)
            else self.content or ""
        )


class StreamOptions(Checked):
    """What else a stream should carry."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Text(Checked):
    """The one format of answers."""

    type: Literal["text"]


class ChatRequest(Checked):
    """A request of the OpenAI chat API, as far as it makes sense for one tuned model; null is the default.

    What changes nothing here is taken as well, so that any client may ask; what would change the answer, and
    is not done, is not taken.
    """

    messages: list[ChatMessage] = Field(
        min_length=1, description="A conversa; a última mensagem é do utilizador."
    )
    model: str | None = Field(None, description="O modelo que /v1/models nomeia, ou nada; outro dá 404.")
    stream: bool | None = Field(None, description="Responder aos bocados, em eventos SSE.")
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(
        None, ge=1, description=f"Tokens da resposta (predefinição: {MAX_TOKENS}); o servidor tem um máximo."
    )
    max_completion_tokens: int | None = Field(None, ge=1, description="O nome novo de max_tokens.")
    temperature: float | None = Field(
        None, ge=0, le=2, description="0, a predefinição: sempre a mesma resposta."
    )
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=0, le=1000)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    seed: int | None = Field(None, gt=-SEEDS, lt=SEEDS)
    stop: str | list[str] | None = Field(None, description="Textos (no máximo 4) em que a resposta acaba.")
    n: int | None = Field(None, ge=1, le=1, description="Uma resposta por pedido.")
    user: str | None = Field(None, description=UNUSED)
    safety_identifier: str | None = Field(None, description=UNUSED)
    prompt_cache_key: str | None = Field(None, description=UNUSED)
    prompt_cache_retention: str | None = Field(None, description=UNUSED)
    metadata: dict[str, Any] | None = Field(None, description=UNUSED)
    store: bool | None = Field(None, description=UNUSED)
    service_tier: str | None = Field(None, description=UNUSED)
    parallel_tool_calls: bool | None = Field(None, description=UNUSED)
    tools: list[Any] | None = Field(None, max_length=0)
    tool_choice: Literal["none", "auto"] | None = None
    functions: list[Any] | None = Field(None, max_length=0)
    function_call: Literal["none", "auto"] | None = None
    logit_bias: dict[str, Any] | None = Field(None, max_length=0)
    logprobs: Literal[False] | None = None
    top_logprobs: int | None = Field(None, ge=0, le=0)
    response_format: Text | None = None
    modalities: list[Literal["text"]] | None = None
    audio: None = None
    prediction: None = None
    reasoning_effort: None = None
    verbosity: None = None
    web_search_options: None = None

    @classmethod
    def read(cls, body: bytes, limits: Limits) -> "ChatRequest":
        """The request in `body`; raises `UserError` that names the first thing wrong with it."""
        try:
            request = cls.model_validate_json(body)
        except ValidationError as error:
            raise UserError(_in_portuguese(error)) from None
        if request.messages[-1].role != "user":
            raise UserError("messages: a última mensagem tem de ser do utilizador (role: user)")
        for number, message in enumerate(request.messages):
            if message.content is None and message.role != "assistant":
                raise UserError(f"messages.{number}.content: tem de ser texto")
        stops = [request.stop] if isinstance(request.stop, str) else request.stop or []
        if len(stops) > 4 or any(not 0 < len(text) <= 64 for text in stops):
            raise UserError("stop: no máximo 4 textos, de 1 a 64 caracteres")
        return request

    @property
    def conversation(self) -> list[dict[str, str]]:
        """The messages as a chat template takes them, which knows no «developer»."""
        roles = {"developer": "system"}
        return [
            {"role": roles.get(message.role, message.role), "content": message.text}
            for message in self.messages
        ]

    def for_mlx_lm(self, model: str, limits: Limits) -> dict[str, Any]:
        """The body that mlx-lm's handler is given in place of the client's; no answer is longer than the
        limit."""
        body = self.model_dump(exclude_none=True, include=FOR_MLX_LM)
        length = self.max_completion_tokens or self.max_tokens or MAX_TOKENS
        body |= {"model": model, "messages": self.conversation, "max_tokens": min(length, limits.max_tokens)}
        if self.seed is not None:
            body["seed"] = self.seed % SEEDS
        if self.stream_options is not None:
            body["stream_options"] = {"include_usage": bool(self.stream_options.include_usage)}
        return body


# What is taken only where it asks for nothing.
NEUTRAL = {
    *("tools", "tool_choice", "functions", "function_call", "tool_calls", "tool_call_id", "logit_bias"),
    *("logprobs", "top_logprobs", "response_format", "modalities", "audio", "prediction", "refusal"),
    *("reasoning_effort", "verbosity", "web_search_options"),
}
_REASONS = {
    "missing": "falta",
    "extra_forbidden": "este campo não é suportado",
    "greater_than": "tem de ser maior do que {gt}",
    "greater_than_equal": "tem de ser pelo menos {ge}",
    "less_than_equal": "pode ser no máximo {le}",
    "literal_error": "os valores possíveis são {expected}",
    "less_than": "tem de ser menor do que {lt}",
    "finite_number": "tem de ser um número finito",
    "too_short": "não pode ficar vazio",
    "string_type": "tem de ser texto",
    "bool_type": "tem de ser true ou false",
    "int_type": "tem de ser um número inteiro",
    "float_type": "tem de ser um número",
    "list_type": "tem de ser uma lista",
}


def _in_portuguese(error: ValidationError) -> str:
    """The first error; a value of the request is not repeated in it."""
    first = error.errors(include_input=False)[0]
    if first["type"] == "json_invalid":
        return "o corpo do pedido não é JSON válido"
    place = ".".join(str(part) for part in first["loc"])[:100]
    if not place:
        return "o corpo do pedido tem de ser um objeto JSON"
    if NEUTRAL & {part for part in first["loc"] if isinstance(part, str)}:
        return f"{place}: este campo não é suportado"
    reason = _REASONS.get(first["type"], "valor inválido").format(**first.get("ctx", {}))
    return f"{place}: {reason.replace(' or ', ' ou ')}"


def openapi() -> dict[str, Any]:
    """The routes as OpenAPI 3.1; the schema of a request is that of `ChatRequest`."""
    schema = ChatRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas = {**schema.pop("$defs"), "ChatRequest": schema}
    for part in schemas.values():
        part.pop("description", None)  # a docstring, in English
    schemas["Error"] = {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type"],
                "properties": {"message": {"type": "string"}, "type": {"type": "string"}},
            }
        },
    }
    refused = {
        "description": "Pedido recusado; a mensagem diz porquê.",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
    asking = {
        "summary": "Responde a uma conversa",
        "security": [{}, {"token": []}],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ChatRequest"}}},
        },
        "responses": {
            "200": {
                "description": "A resposta, inteira ou (com stream) aos bocados.",
                "content": {
                    "application/json": {"schema": {"type": "object", "required": ["choices"]}},
                    "text/event-stream": {},
                },
            },
            **dict.fromkeys(("400", "401", "404", "408", "411", "413", "415", "429", "503"), refused),
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "farense-qlora",
            "version": "1",
            "description": "A API de conversa da OpenAI, servida por um modelo treinado.",
        },
        "paths": {
            "/v1/chat/completions": {"post": asking},
            "/v1/models": {"get": _getting("O modelo que há", {"401": refused})},
            "/health": {"get": _getting("Se o servidor responde", {"503": refused})},
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _getting(summary: str, refused: dict[str, Any]) -> dict[str, Any]:
    """A route that is only read."""
    answer = {"description": summary, "content": {"application/json": {"schema": {"type": "object"}}}}
    return {"summary": summary, "responses": {"200": answer, **refused}}
