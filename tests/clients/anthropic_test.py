"""anthropic-python: each parameter, blocks, thoughts, caching, tools, streams, errors, the other endpoints."""

import asyncio
import json

import anthropic
from pydantic import BaseModel

from checks import (
    ANTHROPIC,
    CHAT,
    CLAUDE,
    FAULTY_CLAUDE,
    LIMITED_CLAUDE,
    NATIVE,
    PASSING_CLAUDE,
    PDF,
    PNG,
    TEXT,
    TOKEN,
    check,
    equal,
    finish,
    put,
    raises,
    sent,
    sent_headers,
)

client = anthropic.Anthropic(base_url=ANTHROPIC, api_key=TOKEN, max_retries=0)
parallel = anthropic.AsyncAnthropic(base_url=ANTHROPIC, api_key=TOKEN, max_retries=0)
WEATHER = {
    "name": "get_weather",
    "description": "The weather",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}
NOTHING = {"name": "get_time", "input_schema": {"type": "object", "properties": {}}}
THINKING = {"type": "enabled", "budget_tokens": 1024}
CACHED = {"type": "ephemeral"}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}


def user(content):
    return [{"role": "user", "content": content}]


def ask(content="hi", model=CLAUDE, max_tokens=500, **more):
    messages = more.pop("messages", None) or user(content)
    return client.messages.create(model=model, max_tokens=max_tokens, messages=messages, **more)


def final(content="hi", model=CLAUDE, **more):
    with client.messages.stream(
        model=model, max_tokens=2000, messages=user(content), **more
    ) as stream:
        return stream.get_final_message()


def text(answer):
    return "".join(block.text for block in answer.content if block.type == "text")


def calls(answer):
    return [block for block in answer.content if block.type == "tool_use"]


for place in (CLAUDE, CHAT, NATIVE):

    @check(f"a plain answer of {place}")
    def _():
        answer = ask(model=place)
        equal(
            (text(answer), answer.stop_reason, answer.type, answer.role),
            (TEXT, "end_turn", "message", "assistant"),
        )
        equal(answer.usage.output_tokens, 9)
        assert answer.id and answer._request_id

    @check(f"a stream of {place}")
    def _():
        with client.messages.stream(model=place, max_tokens=500, messages=user("hi")) as stream:
            equal("".join(stream.text_stream), TEXT)
        answer = stream.get_final_message()
        equal((text(answer), answer.stop_reason, answer.usage.output_tokens), (TEXT, "end_turn", 9))

    @check(f"the raw events of {place} are in order")
    def _():
        kinds = [event.type for event in ask(model=place, stream=True)]
        kinds = [
            kind for at, kind in enumerate(kinds) if kind != "ping" and kinds[at - 1 : at] != [kind]
        ]
        equal(
            kinds,
            [
                "message_start",
                "content_block_start",
                "content_block_delta",
                "content_block_stop",
                "message_delta",
                "message_stop",
            ],
        )

    @check(f"a tool, its answer and the next turn of {place}")
    def _():
        first = ask("the weather?", place, tools=[WEATHER])
        equal(first.stop_reason, "tool_use")
        [call] = calls(first)
        equal((call.name, call.input), ("get_weather", {"city": "Rome"}))
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
        messages = [
            *user("the weather?"),
            {"role": "assistant", "content": first.content},
            *user([result]),
        ]
        equal(text(ask(model=place, tools=[WEATHER], messages=messages)), TEXT)
        assert "sunny" in json.dumps(sent()[-1])

    @check(f"two tools at once of {place}, whole and streamed")
    def _():
        right = [("get_weather", {"city": "Rome"}), ("get_time", {})]
        for answer in (
            ask("[[calls:2]]", place, tools=[WEATHER, NOTHING]),
            final("[[calls:2]]", place, tools=[WEATHER, NOTHING]),
        ):
            equal([(call.name, call.input) for call in calls(answer)], right)

    @check(f"arguments that are none are an object at {place}, whole and streamed")
    def _():
        for answer in (
            ask("[[bare]]", place, tools=[NOTHING]),
            final("[[bare]]", place, tools=[NOTHING]),
        ):
            equal([call.input for call in calls(answer)], [{}])

    @check(f"an image in a message and in a tool's answer of {place}")
    def _():
        ask([{"type": "text", "text": "what?"}, IMAGE], place)
        result = {
            "type": "tool_result",
            "tool_use_id": "t1",
            "content": [{"type": "text", "text": "see"}, IMAGE],
        }
        use = {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city": "Rome"}}
        ask(
            model=place,
            tools=[WEATHER],
            messages=[*user("hi"), {"role": "assistant", "content": [use]}, *user([result])],
        )
        assert all(PNG in json.dumps(body) for body in sent())

    @check(f"a schema of the answer is kept at {place}")
    def _():
        class Person(BaseModel):
            name: str
            age: int

        answer = client.messages.parse(
            model=place, max_tokens=500, messages=user("hi"), output_format=Person
        )
        equal(answer.parsed_output, Person(name="a name", age=3))

    @check(f"a limit of 100,001 tokens and a prompt of 1 MB of {place}")
    def _():
        equal(text(final("word " * 200_000, place)), TEXT)
        equal(text(ask(model=place, max_tokens=100_001, timeout=60)), TEXT)

    @check(f"a refusal of {place} is an answer")
    def _():
        equal(
            (ask("[[end:filter]]", place).stop_reason, final("[[end:filter]]", place).stop_reason),
            ("refusal", "refusal"),
        )

    @check(f"an answer that was cut off by {place}")
    def _():
        equal(ask("[[end:length]]", place).stop_reason, "max_tokens")

    @check(f"a stream of {place} that breaks off raises")
    def _():
        raises(anthropic.APIError, lambda: final("[[break]]", place))

    @check(f"the system's words reach {place}, as text and as blocks")
    def _():
        ask(model=place, system="be kind")
        ask(model=place, system=[{"type": "text", "text": "be kind"}])
        assert all("be kind" in json.dumps(body) for body in sent())

    @check(f"a document reaches {place}")
    def _():
        source = {"type": "base64", "media_type": "application/pdf", "data": PDF}
        ask(
            [
                {"type": "text", "text": "read"},
                {"type": "document", "source": source, "title": "a"},
            ],
            place,
        )
        assert PDF in json.dumps(sent())

    @check(f"tokens are counted for {place}")
    def _():
        assert (
            client.messages.count_tokens(
                model=place, messages=user("how many?"), tools=[WEATHER]
            ).input_tokens
            > 0
        )


KEPT = {
    "stop_sequences": ["END"],
    "metadata": {"user_id": "u-1"},
    "service_tier": "standard_only",
    "thinking": THINKING,
}
for name, value in KEPT.items():

    @check(f"`{name}` reaches the provider")
    def _():
        ask(max_tokens=2000, extra_body={name: value})
        equal(sent()[-1].get(name), value)


# The SDK has no parameter for them any more, nor has Anthropic's younger version.
for name, value in {"temperature": 0.5, "top_p": 0.5, "top_k": 5}.items():

    @check(f"`{name}` reaches the provider by Anthropic's first version")
    def _():
        ask(model=f"first-{CLAUDE}", extra_body={name: value})
        equal(sent()[-1].get(name), value)


for name in ("temperature", "top_p"):

    @check(f"`{name}` is left out by the younger version, and told")
    def _():
        raw = client.messages.with_raw_response.create(
            model=CLAUDE, max_tokens=50, messages=user("hi"), extra_body={name: 0.5}
        )
        equal((sent()[-1].get(name), raw.headers.get("x-convergio-left-out")), (None, name))


@check("`top_k` is refused by its name by the younger version")
def _():
    assert "`top_k`" in str(raises(anthropic.BadRequestError, lambda: ask(extra_body={"top_k": 5})))


@check("`tool_choice` any, none, a tool, and no parallel calls")
def _():
    for choice in (
        {"type": "any"},
        {"type": "tool", "name": "get_weather"},
        {"type": "auto", "disable_parallel_tool_use": True},
    ):
        answer = ask("[[calls:2]]", tools=[WEATHER, NOTHING], tool_choice=choice)
        equal(sent()[-1]["tool_choice"], choice)
    equal(len(calls(answer)), 1)
    equal(text(ask(tools=[WEATHER], tool_choice={"type": "none"})), TEXT)


@check("marks for the cache reach the provider: system, tools, messages, a tool's answer")
def _():
    use = {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city": "Rome"}}
    result = {
        "type": "tool_result",
        "tool_use_id": "t1",
        "content": "sunny",
        "cache_control": CACHED,
    }
    answer = ask(
        system=[{"type": "text", "text": "long", "cache_control": CACHED}],
        tools=[{**WEATHER, "cache_control": CACHED}],
        messages=[
            *user([{"type": "text", "text": "hi", "cache_control": CACHED}]),
            {"role": "assistant", "content": [use]},
            *user([result]),
        ],
    )
    equal(json.dumps(sent()[-1]).count('"cache_control"'), 4)
    equal(
        (answer.usage.cache_creation_input_tokens, answer.usage.cache_read_input_tokens), (30, 20)
    )


@check("thoughts, whole: their text and their mark, and both go back")
def _():
    answer = ask(thinking=THINKING, max_tokens=2000, tools=[WEATHER])
    equal([block.type for block in answer.content], ["thinking", "tool_use"])
    equal((answer.content[0].thinking, answer.content[0].signature), ("I think.", "SIG"))
    result = {"type": "tool_result", "tool_use_id": calls(answer)[0].id, "content": "sunny"}
    messages = [*user("hi"), {"role": "assistant", "content": answer.content}, *user([result])]
    ask(messages=messages, thinking=THINKING, max_tokens=2000, tools=[WEATHER])
    equal(
        sent()[-1]["messages"][1]["content"][0],
        {"type": "thinking", "thinking": "I think.", "signature": "SIG"},
    )


@check("thoughts in a stream: their text and their mark")
def _():
    answer = final(thinking=THINKING)
    equal([block.type for block in answer.content], ["thinking", "text"])
    equal((answer.content[0].thinking, answer.content[0].signature), ("I think.", "SIG"))


@check("thoughts of OpenAI's interfaces, asked for by effort")
def _():
    for place in (CHAT, NATIVE):
        answer = final(model=place, thinking=THINKING, output_config={"effort": "high"})
        assert "I think." in [getattr(block, "thinking", "") for block in answer.content], (
            place,
            answer.content,
        )


@check("a redacted thought of earlier goes back")
def _():
    content = [{"type": "redacted_thinking", "data": "DATA"}, {"type": "text", "text": "yes"}]
    ask(
        messages=[*user("hi"), {"role": "assistant", "content": content}, *user("go on")],
        thinking=THINKING,
        max_tokens=2000,
    )
    equal(sent()[-1]["messages"][1]["content"][0], content[0])


@check("`role: system` within the messages, as Claude Code sends it")
def _():
    messages = [
        *user("hi"),
        {"role": "assistant", "content": "yes"},
        *user("go on"),
        {"role": "system", "content": "be kind"},
    ]
    answer = client.beta.messages.create(
        model=CLAUDE,
        max_tokens=500,
        messages=messages,
        betas=["mid-conversation-system-2026-04-07"],
    )
    equal(text(answer), TEXT)
    assert "be kind" in json.dumps(sent()[-1])
    assert "mid-conversation-system" in sent_headers()[-1]["anthropic-beta"]


@check("`citations` of a text are absent where there are none")
def _():
    equal(
        "citations"
        in client.messages.with_raw_response.create(
            model=CLAUDE, max_tokens=500, messages=user("hi")
        ).http_response.json()["content"][0],
        False,
    )


@check("an unknown field is refused by its name")
def _():
    error = raises(anthropic.BadRequestError, lambda: ask(extra_body={"frobnicate": 1}))
    equal(error.type, "invalid_request_error")
    assert "frobnicate" in str(error), error


@check("letters of every script")
def _():
    words = "Ω 你好 🎉 é"
    equal((text(ask(f"[[say:{words}]]")), text(final(f"[[say:{words}]]"))), (words, words))


@check("async: eight at once, and a stream")
async def _():
    async def one(at):
        return text(
            await parallel.messages.create(
                model=CLAUDE, max_tokens=50, messages=user(f"[[say:n{at}]]")
            )
        )

    equal(await asyncio.gather(*(one(at) for at in range(8))), [f"n{at}" for at in range(8)])
    async with parallel.messages.stream(model=CLAUDE, max_tokens=50, messages=user("hi")) as stream:
        equal("".join([piece async for piece in stream.text_stream]), TEXT)


@check("the tool runner of the SDK goes to the end")
def _():
    @anthropic.beta_tool
    def get_weather(city: str) -> str:
        """The weather.

        Args:
            city: a city
        """
        return f"sunny in {city}"

    runner = client.beta.messages.tool_runner(
        model=CLAUDE, max_tokens=500, messages=user("the weather?"), tools=[get_weather]
    )
    equal(text(runner.until_done()), TEXT)
    assert "sunny in Rome" in json.dumps(sent()[-1])


@check("a wrong key is AuthenticationError, in Anthropic's form")
def _():
    wrong = anthropic.Anthropic(base_url=ANTHROPIC, api_key="wrong", max_retries=0)
    raises(
        anthropic.AuthenticationError,
        lambda: wrong.messages.create(model=CLAUDE, max_tokens=5, messages=user("hi")),
        type="authentication_error",
    )


@check("a model that nobody has is 404 not_found_error")
def _():
    for name in ("anthropic/nobody-has-it-9", "nobody-has-it-9"):
        raises(anthropic.NotFoundError, lambda: ask(model=name), type="not_found_error")


@check("an endpoint and a method that are not there answer in Anthropic's form")
def _():
    raises(
        anthropic.NotFoundError,
        lambda: client.post("/v1/frobnicate", cast_to=object, body={}),
        type="not_found_error",
    )
    status, answer = put("/anthropic/v1/messages")
    equal((status, answer["type"]), (405, "error"))
    assert answer["error"]["type"] and answer["error"]["message"]


for status, kind in (
    (400, anthropic.BadRequestError),
    (500, anthropic.APIStatusError),
    (529, anthropic.APIStatusError),
):

    @check(f"a provider's {status} is {kind.__name__}")
    def _():
        error = raises(kind, lambda: ask(f"[[fail:{status}]] anthropic", FAULTY_CLAUDE))
        assert error.type, error


@check("a provider's 429 with a long pause is RateLimitError, and the pause is passed on")
def _():
    error = raises(
        anthropic.RateLimitError,
        lambda: ask("[[fail:429]] [[pause:77]] anthropic", LIMITED_CLAUDE),
        type="rate_limit_error",
    )
    assert 70 <= int(error.response.headers["retry-after"]) <= 77, error.response.headers


@check("a passing error of the provider is tried again here")
def _():
    equal(text(ask("[[fail:529:once]] anthropic", PASSING_CLAUDE)), TEXT)
    equal(len(sent()), 2)


@check("no storm: the SDK does not try again what was tried here")
def _():
    patient = anthropic.Anthropic(base_url=ANTHROPIC, api_key=TOKEN, max_retries=2)
    raises(
        anthropic.APIStatusError,
        lambda: patient.messages.create(
            model=FAULTY_CLAUDE, max_tokens=50, messages=user("[[fail:500]] storm of anthropic")
        ),
    )
    assert len(sent()) <= 4, len(sent())


@check("models are listed page by page, and found by their ids")
def _():
    names = [model.id for model in client.models.list(limit=2)]
    assert {CHAT, NATIVE, CLAUDE} <= set(names), names
    equal(client.models.retrieve("claude-sonnet-4-6").id, "claude-sonnet-4-6")
    raises(anthropic.NotFoundError, lambda: client.models.retrieve("nobody-has-it"))


@check("batches, which are not here, say so in Anthropic's form")
def _():
    error = raises(anthropic.APIStatusError, lambda: client.messages.batches.list())
    assert error.status_code in (404, 501) and error.type, error


finish()
