"""openai-python at responses, models, embeddings, audio, and what is read back of earlier."""

import asyncio
import io
import json

import openai
from pydantic import BaseModel

from checks import (
    CHAT,
    CLAUDE,
    NATIVE,
    OPENAI,
    PDF,
    PNG,
    TEXT,
    TOKEN,
    check,
    equal,
    finish,
    raises,
    sent,
)

client = openai.OpenAI(base_url=OPENAI, api_key=TOKEN, max_retries=0)
parallel = openai.AsyncOpenAI(base_url=OPENAI, api_key=TOKEN, max_retries=0)
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
NOTHING = {
    "type": "function",
    "name": "get_time",
    "strict": False,
    "parameters": {"type": "object", "properties": {}},
}


def ask(prompt="hi", model=NATIVE, **more):
    return client.responses.create(model=model, input=prompt, **more)


def events(prompt="hi", model=NATIVE, **more):
    return list(ask(prompt, model, stream=True, **more))


def calls(answer):
    return [item for item in answer.output if item.type == "function_call"]


for place in (NATIVE, CHAT, CLAUDE):

    @check(f"a plain response of {place}")
    def _():
        answer = ask(model=place)
        equal((answer.output_text, answer.status, answer.object), (TEXT, "completed", "response"))
        equal(answer.usage.output_tokens, 9)
        assert answer.id.startswith("resp_") and answer._request_id

    @check(f"a stream of {place}: numbered, whole and its end like the answer")
    def _():
        told = events(model=place)
        equal(
            "".join(event.delta for event in told if event.type == "response.output_text.delta"),
            TEXT,
        )
        equal([event.sequence_number for event in told], list(range(len(told))))
        equal((told[0].type, told[-1].type), ("response.created", "response.completed"))
        equal(told[-1].response.output_text, TEXT)

    @check(f"a tool and its answer of {place}")
    def _():
        [call] = calls(ask("the weather?", place, tools=[WEATHER]))
        equal((call.name, json.loads(call.arguments)), ("get_weather", {"city": "Rome"}))
        items = [
            {"role": "user", "content": "the weather?"},
            call.model_dump(exclude_none=True),
            {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"},
        ]
        equal(ask(items, place, tools=[WEATHER]).output_text, TEXT)
        assert "sunny" in json.dumps(sent()[-1])

    @check(f"two tools at once of {place}, streamed")
    def _():
        with client.responses.stream(
            model=place, input="[[calls:2]]", tools=[WEATHER, NOTHING]
        ) as stream:
            answer = stream.get_final_response()
        equal(
            [(call.name, json.loads(call.arguments)) for call in calls(answer)],
            [("get_weather", {"city": "Rome"}), ("get_time", {})],
        )

    @check(f"arguments that are none are an object at {place}")
    def _():
        [call] = calls(ask("[[bare]]", place, tools=[NOTHING]))
        equal(json.loads(call.arguments), {})

    @check(f"a schema of the answer is kept at {place}, whole and streamed")
    def _():
        class Person(BaseModel):
            name: str
            age: int

        right = Person(name="a name", age=3)
        equal(
            client.responses.parse(model=place, input="hi", text_format=Person).output_parsed, right
        )
        with client.responses.stream(model=place, input="hi", text_format=Person) as stream:
            equal(stream.get_final_response().output_parsed, right)

    @check(f"an image of {place}")
    def _():
        parts = [
            {"type": "input_text", "text": "what?"},
            {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}", "detail": "low"},
        ]
        ask([{"role": "user", "content": parts}], place)
        assert PNG in json.dumps(sent())

    @check(f"the answer of {place} goes on by its id")
    def _():
        first = ask("my name is Ann", place, instructions="be kind")
        second = ask("who am I?", place, previous_response_id=first.id)
        equal((second.output_text, second.previous_response_id), (TEXT, first.id))
        body = json.dumps(sent()[-1])
        assert "my name is Ann" in body and TEXT in body and "be kind" not in body, body

    @check(f"an answer that was cut off by {place}")
    def _():
        answer = ask("[[end:length]]", place)
        equal(
            (answer.status, answer.incomplete_details.reason), ("incomplete", "max_output_tokens")
        )

    @check(f"a content filter of {place} is an answer")
    def _():
        answer = ask("[[end:filter]]", place)
        equal((answer.status, answer.incomplete_details.reason), ("incomplete", "content_filter"))

    @check(f"a limit of 100,001 tokens and a prompt of 1 MB of {place}")
    def _():
        equal(ask("word " * 200_000, place, max_output_tokens=100_001).output_text, TEXT)

    @check(f"a stream of {place} that breaks off is no end")
    def _():
        try:
            ends = [event.type for event in events("[[break]]", place)]
        except openai.APIError:
            return
        assert ends[-1] in ("response.failed", "error"), ends


for place in (NATIVE, CHAT):

    @check(f"thoughts of {place}")
    def _():
        answer = ask(model=place, reasoning={"effort": "high", "summary": "auto"})
        [thought] = [item for item in answer.output if item.type == "reasoning"]
        equal([part.text for part in [*thought.summary, *(thought.content or [])]], ["I think."])

    @check(f"thoughts of {place} in a stream, and back")
    def _():
        told = events(
            model=place,
            reasoning={"effort": "high", "summary": "auto"},
            include=["reasoning.encrypted_content"],
        )
        heard = [
            event.delta
            for event in told
            if event.type.startswith("response.reasoning") and event.type.endswith(".delta")
        ]
        equal("".join(heard), "I think.")
        items = [
            {"role": "user", "content": "hi"},
            *(item.model_dump(exclude_none=True) for item in told[-1].response.output),
        ]
        ask([*items, {"role": "user", "content": "go on"}], place)
        if place == NATIVE:
            assert "SEALED" in json.dumps(sent()[-1])


KEPT = {
    "temperature": 0.5,
    "top_p": 0.5,
    "max_output_tokens": 77,
    "user": "u-1",
    "service_tier": "flex",
    "metadata": {"k": "v"},
    "prompt_cache_key": "pk",
    "safety_identifier": "sid",
    "truncation": "auto",
    "max_tool_calls": 3,
    "prompt_cache_retention": "24h",
}
for name, value in KEPT.items():

    @check(f"`{name}` reaches the provider")
    def _():
        ask(**{name: value})
        equal(sent()[-1].get(name), value)


ECHO = {
    "metadata": {"k": "v"},
    "truncation": "auto",
    "temperature": 0.5,
    "top_p": 0.5,
    "instructions": "be kind",
    "max_output_tokens": 77,
    "tool_choice": "none",
}
for name, value in ECHO.items():

    @check(f"`{name}` is told in the answer")
    def _():
        equal(getattr(ask(tools=[WEATHER], **{name: value}), name), value)


@check("`parallel_tool_calls: false` reaches the provider and is told")
def _():
    answer = ask("[[calls:2]]", tools=[WEATHER, NOTHING], parallel_tool_calls=False)
    equal(
        (len(calls(answer)), answer.parallel_tool_calls, sent()[-1]["parallel_tool_calls"]),
        (1, False, False),
    )


@check(
    "`text` with its schema's name and `strict`, and `verbosity`, reaches the provider and is told"
)
def _():
    schema = {
        "type": "json_schema",
        "name": "scores",
        "strict": False,
        "schema": {"type": "object", "additionalProperties": {"type": "integer"}},
    }
    answer = ask(text={"format": schema, "verbosity": "low"})
    equal(sent()[-1]["text"], {"format": schema, "verbosity": "low"})
    equal((answer.text.format.name, answer.text.verbosity), ("scores", "low"))


@check("`reasoning` is told in the answer")
def _():
    answer = ask(reasoning={"effort": "high", "summary": "auto"})
    equal((answer.reasoning.effort, answer.reasoning.summary), ("high", "auto"))
    equal(answer.usage.output_tokens_details.reasoning_tokens, 4)


@check("cached tokens are counted")
def _():
    equal(ask(prompt_cache_key="pk").usage.input_tokens_details.cached_tokens, 20)


@check("a refusal is told as one")
def _():
    equal([part.type for part in ask("[[end:refusal]]").output[0].content], ["refusal"])


@check("a file of a message reaches the provider")
def _():
    part = {
        "type": "input_file",
        "filename": "a.pdf",
        "file_data": f"data:application/pdf;base64,{PDF}",
    }
    ask([{"role": "user", "content": [{"type": "input_text", "text": "read"}, part]}])
    assert PDF in json.dumps(sent())


@check("hosted and custom tools go to the provider that has them")
def _():
    tools = [
        {"type": "web_search"},
        {"type": "custom", "name": "apply_patch", "description": "d", "format": {"type": "text"}},
    ]
    ask("[[plain]]", tools=tools)
    equal([tool["type"] for tool in sent()[-1]["tools"]], ["web_search", "custom"])


@check("a response is read back by its id, with its items")
def _():
    made = ask("read me back", metadata={"k": "v"})
    found = client.responses.retrieve(made.id)
    equal((found.id, found.output_text, found.metadata), (made.id, TEXT, {"k": "v"}))
    assert "read me back" in client.responses.input_items.list(made.id).model_dump_json()


@check("a response that nobody has is NotFoundError")
def _():
    raises(openai.NotFoundError, lambda: client.responses.retrieve("resp_nobody"))
    raises(openai.APIStatusError, lambda: ask(previous_response_id="resp_nobody"))


@check("async: eight at once")
async def _():
    answers = await asyncio.gather(
        *(parallel.responses.create(model=NATIVE, input=f"[[say:n{at}]]") for at in range(8))
    )
    equal([answer.output_text for answer in answers], [f"n{at}" for at in range(8)])


@check("tokens of an input are counted")
def _():
    assert client.responses.input_tokens.count(model=NATIVE, input="how many?").input_tokens > 0


@check("models are listed, and found by their ids")
def _():
    names = [model.id for model in client.models.list()]
    assert {CHAT, NATIVE, CLAUDE} <= set(names), names
    for name in (CHAT, "claude-sonnet-4-6"):
        equal(client.models.retrieve(name).id, name)
    raises(openai.NotFoundError, lambda: client.models.retrieve("nobody-has-it"))


@check("a model is found by its own name, and by its provider's")
def _():
    for name in ("claude-sonnet-4-6", "anthropic"):
        equal(ask(model=name).output_text, TEXT)


@check("embeddings as numbers, and as the SDK asks for them")
def _():
    made = client.embeddings.create(
        model="chat/text-embedding-3-small", input=["one", "three"], dimensions=8
    )
    equal([(one.index, len(one.embedding)) for one in made.data], [(0, 8), (1, 8)])
    equal(made.data[0].embedding[:2], [3.0, 4.0])
    floats = client.embeddings.create(
        model="chat/text-embedding-3-small", input="one", encoding_format="float"
    )
    equal(floats.data[0].embedding, [3.0, 4.0, 5.0, 6.0])
    assert made.usage.prompt_tokens > 0


@check("speech")
def _():
    made = client.audio.speech.create(model="chat/tts-1", voice="alloy", input="hello")
    equal(made.content, b"RIFF-a-sound")


@check("the words of a recording")
def _():
    sound = io.BytesIO(b"RIFF0000WAVEfmt ")
    made = client.audio.transcriptions.create(
        model="chat/whisper-1", file=("a.wav", sound, "audio/wav")
    )
    equal(made.text, "words of a recording")


for name, call in {
    "moderations": lambda: client.moderations.create(input="x"),
    "completions": lambda: client.completions.create(model=CHAT, prompt="x"),
    "files": lambda: client.files.list(),
    "batches": lambda: client.batches.list(),
}.items():

    @check(f"{name}, which are not here, say so in OpenAI's form")
    def _():
        error = raises(openai.APIStatusError, call)
        assert error.status_code in (404, 501) and error.body["message"], error


finish()
