"""litellm as a client of both doors, with its own defaults or with a limit: litellm_test.py [MAX_TOKENS].

Its adapter for Anthropic asks for 128,000 tokens when it is told no limit and does not know the model."""

import asyncio
import json
import sys

import litellm

from checks import ANTHROPIC, CLAUDE, OPENAI, PNG, TEXT, TOKEN, check, equal, finish, raises, sent

litellm.suppress_debug_info = True
LIMIT = {"max_tokens": int(sys.argv[1])} if sys.argv[1:] else {}
HI = [{"role": "user", "content": "hi"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
NOTHING = {
    "type": "function",
    "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}},
}
SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "person",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"name": {"type": "string"}},
            "required": ["name"],
            "additionalProperties": False,
        },
    },
}
DOORS = {
    "OpenAI's door": {"model": "openai/chat/gpt-5", "api_base": OPENAI},
    "OpenAI's door before Anthropic": {"model": f"openai/{CLAUDE}", "api_base": OPENAI},
    "Anthropic's door": {"model": f"anthropic/{CLAUDE}", "api_base": ANTHROPIC},
    "Anthropic's door before OpenAI": {"model": "anthropic/chat/gpt-5", "api_base": ANTHROPIC},
    "responses": {"model": "openai/responses/native/gpt-5", "api_base": OPENAI},
}


def user(text):
    return [{"role": "user", "content": text}]


for title, door in DOORS.items():
    door = {**door, "api_key": TOKEN, "num_retries": 0, **LIMIT}

    def ask(messages=HI, **more):
        return litellm.completion(messages=messages, **door, **more)

    @check(f"{title}: a plain answer")
    def _():
        answer = ask()
        equal((answer.choices[0].message.content, answer.choices[0].finish_reason), (TEXT, "stop"))
        equal(answer.usage.completion_tokens, 9)

    @check(f"{title}: a stream")
    def _():
        parts = list(ask(stream=True))
        equal("".join(part.choices[0].delta.content or "" for part in parts), TEXT)

    @check(f"{title}: async, whole and as a stream")
    async def _():
        answers = await asyncio.gather(
            *(litellm.acompletion(messages=user(f"[[say:n{at}]]"), **door) for at in range(4))
        )
        equal(
            [answer.choices[0].message.content for answer in answers], [f"n{at}" for at in range(4)]
        )
        stream = await litellm.acompletion(messages=HI, stream=True, **door)
        equal("".join([part.choices[0].delta.content or "" async for part in stream]), TEXT)

    @check(f"{title}: a tool, its answer and the next turn")
    def _():
        message = ask(tools=[WEATHER]).choices[0].message
        equal(json.loads(message.tool_calls[0].function.arguments), {"city": "Rome"})
        result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sunny"}
        equal(
            ask([*HI, message.model_dump(exclude_none=True), result], tools=[WEATHER])
            .choices[0]
            .message.content,
            TEXT,
        )
        assert "sunny" in json.dumps(sent()[-1])

    @check(f"{title}: two tools at once, whole and as a stream")
    def _():
        right = [("get_weather", {"city": "Rome"}), ("get_time", {})]
        whole = ask(user("[[calls:2]]"), tools=[WEATHER, NOTHING])
        built = litellm.stream_chunk_builder(
            list(ask(user("[[calls:2]]"), tools=[WEATHER, NOTHING], stream=True))
        )
        for answer in (whole, built):
            calls = [call.function for call in answer.choices[0].message.tool_calls]
            equal([(call.name, json.loads(call.arguments or "{}")) for call in calls], right)

    @check(f"{title}: a schema of the answer")
    def _():
        equal(
            json.loads(ask(response_format=SCHEMA).choices[0].message.content), {"name": "a name"}
        )

    @check(f"{title}: a system's words and an image")
    def _():
        image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
        ask(
            [
                {"role": "system", "content": "be kind"},
                {"role": "user", "content": [{"type": "text", "text": "what?"}, image]},
            ]
        )
        assert "be kind" in json.dumps(sent()[-1]) and PNG in json.dumps(sent()[-1])

    @check(f"{title}: thoughts")
    def _():
        more = {"reasoning_effort": "high"}
        if title == "OpenAI's door before Anthropic":
            more = {
                "thinking": {"type": "enabled", "budget_tokens": 1024},
                "allowed_openai_params": ["thinking"],
            }
        if LIMIT and "Anthropic" in title:
            more["max_tokens"] = 5000
        answer = litellm.completion(messages=HI, **{**door, **more})
        if title == "Anthropic's door before OpenAI":
            # It asks by a budget of tokens, which OpenAI's interface has no place for: that is told.
            headers = answer._hidden_params["additional_headers"]
            assert "thinking" in headers["llm_provider-x-convergio-left-out"], headers
            return
        equal(answer.choices[0].message.reasoning_content, "I think.")

    @check(f"{title}: a wrong key")
    def _():
        raises(
            litellm.AuthenticationError,
            lambda: litellm.completion(messages=HI, **{**door, "api_key": "wrong"}),
        )

    @check(f"{title}: a model that nobody has")
    def _():
        raises(
            litellm.NotFoundError,
            lambda: litellm.completion(
                messages=HI, **{**door, "model": f"{door['model']}-nobody-has"}
            ),
        )


@check("embeddings")
def _():
    made = litellm.embedding(
        model="openai/chat/text-embedding-3-small", input=["one"], api_base=OPENAI, api_key=TOKEN
    )
    equal(made.data[0]["embedding"][:2], [3.0, 4.0])


finish()
