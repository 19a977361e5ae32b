"""Anthropic's SDK at the door, in front of the fixture server. Usage: URL TOKEN MODEL."""

import sys

import anthropic
from anthropic import Anthropic

url, token, model = sys.argv[1:]
client = Anthropic(base_url=url + "/anthropic", api_key=token)


def ask(messages, **options):
    return client.messages.create(model=model, max_tokens=50, messages=messages, **options)


def user(text):
    return [{"role": "user", "content": text}]


def refused(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


answer = ask(user("hi"), system="be brief", stop_sequences=["END"])
assert answer.content[0].text == "you said: hi", answer
assert answer.stop_reason == "end_turn"
usage = answer.usage
assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (12, 8, 10)

with client.messages.stream(model=model, max_tokens=50, messages=user("hi")) as stream:
    pieces = list(stream.text_stream)
    final = stream.get_final_message()
assert "".join(pieces) == "you said: hi", pieces
assert (final.stop_reason, final.usage.output_tokens) == ("end_turn", 10), final
assert final.usage.input_tokens == 12, final.usage

tool = {"name": "weather", "description": "Tells.", "input_schema": {"type": "object"}}
answer = ask(user("weather"), tools=[tool], tool_choice={"type": "any"})
call = answer.content[0]
assert (call.type, call.id, call.input) == ("tool_use", "call_7", {"city": "Oslo"}), call
assert answer.stop_reason == "tool_use"
result = {"type": "tool_result", "tool_use_id": call.id, "content": "snow"}
turns = user("weather") + [
    {"role": "assistant", "content": [call.to_dict()]},
    {"role": "user", "content": [result]},
]
assert ask(turns, tools=[tool]).content[0].text == "you said: snow"
with client.messages.stream(
    model=model, max_tokens=50, messages=user("weather"), tools=[tool]
) as stream:
    assert stream.get_final_message().content[0].input == {"city": "Oslo"}


def streamed(text):
    with client.messages.stream(model=model, max_tokens=50, messages=user(text)) as stream:
        return stream.get_final_message()


refused(anthropic.APIStatusError, lambda: streamed("cut"))
refused(anthropic.BadRequestError, lambda: ask(user("long")))
refused(anthropic.BadRequestError, lambda: ask([{"role": "king", "content": "x"}]))
bad = Anthropic(base_url=url + "/anthropic", api_key="no")
refused(
    anthropic.AuthenticationError,
    lambda: bad.messages.create(model=model, max_tokens=9, messages=user("x")),
)
error = refused(anthropic.APIStatusError, lambda: ask(user("money")))
assert error.status_code == 402 and error.body["error"]["type"] == "billing_error", error.body
assert error.response.headers["x-should-retry"] == "false"
