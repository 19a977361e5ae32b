"""openai-python at chat completions: each parameter, what is answered, streams, tools, errors."""

import asyncio
import json
import time

import openai
from pydantic import BaseModel

from checks import (
    CHAT,
    CLAUDE,
    FAULTY,
    LIMITED,
    NATIVE,
    OPENAI,
    PASSING,
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
)

client = openai.OpenAI(base_url=OPENAI, api_key=TOKEN, max_retries=0)
parallel = openai.AsyncOpenAI(base_url=OPENAI, api_key=TOKEN, max_retries=0)
HI = [{"role": "user", "content": "hi"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
NOTHING = {
    "type": "function",
    "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}},
}


def user(text):
    return [{"role": "user", "content": text}]


def ask(messages=HI, model=CHAT, **more):
    return client.chat.completions.create(model=model, messages=messages, **more)


def thinking(place):
    """How thoughts are asked for: Anthropic's interface has a field of its own for it."""
    if place == CLAUDE:
        return {"extra_body": {"thinking": {"type": "enabled", "budget_tokens": 1024}}}
    return {"reasoning_effort": "high"}


def chunks(text="hi", model=CHAT, **more):
    return list(ask(user(text), model, stream=True, **more))


def words(parts):
    return "".join(part.choices[0].delta.content or "" for part in parts if part.choices)


for place in (CHAT, NATIVE, CLAUDE):

    @check(f"a plain answer of {place}")
    def _():
        answer = ask(model=place)
        equal(answer.choices[0].message.content, TEXT)
        equal((answer.choices[0].finish_reason, answer.object), ("stop", "chat.completion"))
        equal(answer.usage.completion_tokens, 9)
        equal(answer.usage.total_tokens, answer.usage.prompt_tokens + 9)
        assert answer.id and answer.created and answer._request_id

    @check(f"a stream of {place}")
    def _():
        parts = chunks(model=place, stream_options={"include_usage": True})
        equal(words(parts), TEXT)
        equal([part.usage.completion_tokens for part in parts if part.usage], [9])
        equal(parts[-1].choices, [])
        equal(len({part.id for part in parts}), 1)
        equal([part.choices[0].finish_reason for part in parts[:-1]][-1], "stop")

    @check(f"a tool, its answer and the next turn of {place}")
    def _():
        messages = user("the weather?")
        first = ask(messages, place, tools=[WEATHER]).choices[0]
        equal(first.finish_reason, "tool_calls")
        [call] = first.message.tool_calls
        equal(
            (call.function.name, json.loads(call.function.arguments)),
            ("get_weather", {"city": "Rome"}),
        )
        messages += [first.message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
        equal(ask(messages, place, tools=[WEATHER]).choices[0].message.content, TEXT)
        assert "sunny" in json.dumps(sent()[-1])

    @check(f"two tools at once of {place}, streamed")
    def _():
        with client.chat.completions.stream(
            model=place, messages=user("[[calls:2]]"), tools=[WEATHER, NOTHING]
        ) as stream:
            for _ in stream:
                pass
            calls = stream.get_final_completion().choices[0].message.tool_calls
        equal(
            [(call.function.name, json.loads(call.function.arguments)) for call in calls],
            [("get_weather", {"city": "Rome"}), ("get_time", {})],
        )
        equal(len({call.id for call in calls}), 2)

    @check(f"arguments that are none are an object at {place}")
    def _():
        [call] = ask(user("[[bare]]"), place, tools=[NOTHING]).choices[0].message.tool_calls
        equal(json.loads(call.function.arguments), {})

    @check(f"a schema of the answer is kept at {place}")
    def _():
        class Person(BaseModel):
            name: str
            age: int

        parsed = client.chat.completions.parse(model=place, messages=HI, response_format=Person)
        equal(parsed.choices[0].message.parsed, Person(name="a name", age=3))

    @check(f"thoughts of {place}")
    def _():
        message = ask(model=place, **thinking(place)).choices[0].message
        equal((message.reasoning_content, message.content), ("I think.", TEXT))

    @check(f"thoughts of {place} in a stream")
    def _():
        parts = chunks(model=place, **thinking(place))
        heard = [
            getattr(part.choices[0].delta, "reasoning_content", None)
            for part in parts
            if part.choices
        ]
        equal("".join(filter(None, heard)), "I think.")

    @check(f"an image of {place}")
    def _():
        part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
        ask([{"role": "user", "content": [{"type": "text", "text": "what is it?"}, part]}], place)
        assert PNG in json.dumps(sent())

    @check(f"a limit of 100,001 tokens of {place}")
    def _():
        equal(ask(model=place, max_completion_tokens=100_001).choices[0].message.content, TEXT)

    @check(f"a prompt of 1 MB of {place}")
    def _():
        equal(ask(user("word " * 200_000), place).choices[0].message.content, TEXT)

    @check(f"a content filter of {place} is an answer")
    def _():
        equal(ask(user("[[end:filter]]"), place).choices[0].finish_reason, "content_filter")
        equal(chunks("[[end:filter]]", place)[-1].choices[0].finish_reason, "content_filter")

    @check(f"an answer that was cut off by {place}")
    def _():
        equal(ask(user("[[end:length]]"), place).choices[0].finish_reason, "length")

    @check(f"a stream of {place} that breaks off raises")
    def _():
        raises(openai.APIError, lambda: chunks("[[break]]", place))


# Fields that reach the provider as they are. In the list of failures these were dropped without a word.
KEPT = {
    "temperature": 0.5,
    "top_p": 0.5,
    "stop": ["END"],
    "seed": 7,
    "max_completion_tokens": 77,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "logit_bias": {"50256": -100},
    "user": "u-1",
    "service_tier": "flex",
    "parallel_tool_calls": False,
    "verbosity": "low",
    "metadata": {"k": "v"},
    "store": True,
    "prompt_cache_key": "pk",
    "safety_identifier": "sid",
    "reasoning_effort": "low",
    "prompt_cache_retention": "24h",
    "prediction": {"type": "content", "content": "x"},
    "web_search_options": {},
}
for name, value in KEPT.items():

    @check(f"`{name}` reaches the provider")
    def _():
        more = {"tools": [WEATHER]} if name == "parallel_tool_calls" else {}
        ask(user("[[plain]]"), **{name: value}, **more)
        equal(sent()[-1].get(name), value)


for name, value in {
    "n": 2,
    "logprobs": True,
    "top_logprobs": 2,
    "functions": [{"name": "f"}],
    "audio": {"voice": "x", "format": "mp3"},
}.items():

    @check(f"`{name}` is refused by its name")
    def _():
        error = raises(openai.BadRequestError, lambda: ask(**{name: value}))
        equal(error.param, name)


for name, value in {
    "n": 1,
    "logprobs": False,
    "presence_penalty": 0,
    "logit_bias": None,
    "modalities": ["text"],
}.items():

    @check(f"`{name}` that asks for nothing is taken")
    def _():
        ask(**{name: value})


@check("an unknown field is refused by its name")
def _():
    equal(
        raises(openai.BadRequestError, lambda: ask(extra_body={"frobnicate": 1})).param,
        "frobnicate",
    )


@check("a message's name reaches the provider")
def _():
    ask([{"role": "user", "name": "ann", "content": "hi"}])
    equal(sent()[-1]["messages"][0]["name"], "ann")


@check("an image's detail reaches the provider")
def _():
    part = {
        "type": "image_url",
        "image_url": {"url": f"data:image/png;base64,{PNG}", "detail": "low"},
    }
    ask([{"role": "user", "content": [part]}])
    equal(sent()[-1]["messages"][0]["content"][0]["image_url"]["detail"], "low")


@check("a tool's `strict` reaches the provider, absent if it is absent")
def _():
    ask(tools=[WEATHER, NOTHING])
    equal([tool["function"].get("strict") for tool in sent()[-1]["tools"]], [True, None])


@check("the schema's name, its description and `strict: false` of an open map reach the provider")
def _():
    schema = {
        "name": "scores",
        "description": "d",
        "strict": False,
        "schema": {"type": "object", "additionalProperties": {"type": "integer"}},
    }
    answer = ask(response_format={"type": "json_schema", "json_schema": schema})
    equal(sent()[-1]["response_format"], {"type": "json_schema", "json_schema": schema})
    equal(json.loads(answer.choices[0].message.content), {"key": 3})


@check("`json_object` goes as `json_object`")
def _():
    answer = ask(user("JSON with 'setup'"), response_format={"type": "json_object"})
    equal(sent()[-1]["response_format"], {"type": "json_object"})
    equal(json.loads(answer.choices[0].message.content), {"setup": "a setup"})


@check("`tool_choice` none, required, a name")
def _():
    equal(ask(tools=[WEATHER], tool_choice="none").choices[0].message.content, TEXT)
    ask(tools=[WEATHER], tool_choice="required")
    equal(sent()[-1]["tool_choice"], "required")
    choice = {"type": "function", "function": {"name": "get_weather"}}
    ask(tools=[WEATHER, NOTHING], tool_choice=choice)
    equal(sent()[-1]["tool_choice"], choice)


@check("audio of a message reaches the provider")
def _():
    part = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
    ask([{"role": "user", "content": [part]}])
    equal(sent()[-1]["messages"][0]["content"], [part])


@check("a file of a message reaches the provider")
def _():
    part = {
        "type": "file",
        "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PDF}"},
    }
    ask([{"role": "user", "content": [{"type": "text", "text": "read"}, part]}])
    assert PDF in json.dumps(sent())


@check("a refusal of earlier goes back")
def _():
    ask([*HI, {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}, *HI])
    assert "no" in json.dumps(sent()[-1]["messages"][1])


@check("a refusal is told as one")
def _():
    equal(ask(user("[[end:refusal]]")).choices[0].message.refusal, "I will not.")


@check("a system message alone is taken")
def _():
    equal(ask([{"role": "system", "content": "be kind"}]).choices[0].message.content, TEXT)
    equal(sent()[-1]["messages"][0]["content"], "be kind")


@check("system, developer, user and assistant keep their order")
def _():
    roles = ["system", "developer", "user", "assistant", "user"]
    ask([{"role": role, "content": role} for role in roles])
    equal([message["role"] for message in sent()[-1]["messages"]], roles)


@check("cached tokens and thoughts' tokens are counted")
def _():
    usage = ask(prompt_cache_key="pk", reasoning_effort="low").usage
    equal(
        (
            usage.prompt_tokens_details.cached_tokens,
            usage.completion_tokens_details.reasoning_tokens,
        ),
        (20, 4),
    )


@check("chunks name the model as the whole answer does")
def _():
    equal({part.model for part in chunks()}, {ask().model})


@check("letters of every script, whole and in pieces")
def _():
    text = "Ω 你好 🎉 é"
    equal(ask(user(f"[[say:{text}]]")).choices[0].message.content, text)
    equal(words(chunks(f"[[say:{text}]]")), text)


@check("pieces come when they are made")
def _():
    began, first = time.monotonic(), None
    for part in ask(user("[[slow:0.3]]"), stream=True):
        if first is None and part.choices and part.choices[0].delta.content:
            first = time.monotonic() - began
    assert first < time.monotonic() - began - 0.25, first


@check("async: eight at once, one a stream")
async def _():
    async def one(at):
        return (
            (await parallel.chat.completions.create(model=CHAT, messages=user(f"[[say:n{at}]]")))
            .choices[0]
            .message.content
        )

    equal(await asyncio.gather(*(one(at) for at in range(8))), [f"n{at}" for at in range(8)])
    stream = await parallel.chat.completions.create(model=CHAT, messages=HI, stream=True)
    equal(words([part async for part in stream]), TEXT)


@check("a wrong key is AuthenticationError, in OpenAI's form")
def _():
    wrong = openai.OpenAI(base_url=OPENAI, api_key="wrong", max_retries=0)
    error = raises(
        openai.AuthenticationError, lambda: wrong.chat.completions.create(model=CHAT, messages=HI)
    )
    assert error.body["message"] and error.body["code"], error.body


@check("a model that nobody has is 404 model_not_found")
def _():
    raises(openai.NotFoundError, lambda: ask(model="chat/nobody-has-it-9"), code="model_not_found")
    raises(openai.NotFoundError, lambda: ask(model="nobody-has-it-9"), code="model_not_found")


@check("an endpoint that is not there answers in OpenAI's form")
def _():
    error = raises(
        openai.NotFoundError, lambda: client.post("/frobnicate", cast_to=object, body={})
    )
    assert error.body["message"], error.body


@check("a method that is not there answers in OpenAI's form")
def _():
    status, answer = put("/openai/v1/chat/completions")
    equal(status, 405)
    assert answer["error"]["message"]


for status, kind in ((400, openai.BadRequestError), (500, openai.APIStatusError)):

    @check(f"a provider's {status} is {kind.__name__}")
    def _():
        raises(kind, lambda: ask(user(f"[[fail:{status}]] {kind}"), FAULTY))


@check("a provider's 429 with a long pause is RateLimitError, and the pause is passed on")
def _():
    error = raises(openai.RateLimitError, lambda: ask(user("[[fail:429]] [[pause:77]]"), LIMITED))
    assert 70 <= int(error.response.headers["retry-after"]) <= 77, error.response.headers


@check("a passing error of the provider is tried again here")
def _():
    equal(ask(user("[[fail:503:once]] chat"), PASSING).choices[0].message.content, TEXT)
    equal(len(sent()), 2)


@check("no storm: the SDK does not try again what was tried here")
def _():
    patient = openai.OpenAI(base_url=OPENAI, api_key=TOKEN, max_retries=2)
    raises(
        openai.APIStatusError,
        lambda: patient.chat.completions.create(model=FAULTY, messages=user("[[fail:500]] storm")),
    )
    assert len(sent()) <= 4, len(sent())


@check("the same idempotency key asks the provider once")
def _():
    for _ in range(2):
        ask(user("once"), extra_headers={"idempotency-key": "key-1"})
    equal(len(sent()), 1)


@check("another call under a used key is refused")
def _():
    raises(
        openai.UnprocessableEntityError,
        lambda: ask(user("twice"), extra_headers={"idempotency-key": "key-1"}),
    )


@check("a client that gives up ends")
def _():
    raises(
        openai.APITimeoutError,
        lambda: client.with_options(timeout=0.3).chat.completions.create(
            model=CHAT, messages=user("[[slow:1]] give up")
        ),
    )


@check("raw answers have ids")
def _():
    raw = client.chat.completions.with_raw_response.create(model=CHAT, messages=HI)
    assert raw.headers["x-convergio-run"] and raw.headers["x-request-id"]
    equal(raw.parse().choices[0].message.content, TEXT)


@check("stored completions are read back")
def _():
    made = ask(store=True, metadata={"part": "one"})
    equal(client.chat.completions.retrieve(made.id).choices[0].message.content, TEXT)
    # What lists it is a read model, which follows the log.
    for _ in range(50):
        if made.id in [one.id for one in client.chat.completions.list(metadata={"part": "one"})]:
            break
        time.sleep(0.1)
    else:
        raise AssertionError("it is not listed")
    equal(list(client.chat.completions.list(metadata={"part": "two"})), [])


finish()
