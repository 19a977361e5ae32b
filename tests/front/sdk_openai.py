"""OpenAI's SDK at the doors, in front of the fixture server. Usage: URL TOKEN MODEL."""

import sys

import openai
from openai import OpenAI

url, token, model = sys.argv[1:]
client = OpenAI(base_url=url + "/openai/v1", api_key=token)


def ask(text, **options):
    messages = [{"role": "user", "content": text}]
    return client.chat.completions.create(model=model, messages=messages, **options)


def refused(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


assert model in [entry.id for entry in client.models.list()]

answer = ask("hi", max_tokens=50, temperature=0.5, stop=["END"], seed=1, user="someone")
assert answer.choices[0].message.content == "you said: hi", answer
assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (20, 10), answer.usage
assert answer.usage.prompt_tokens_details.cached_tokens == 8

chunks = list(ask("hi", stream=True, stream_options={"include_usage": True}))
said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
assert said == "you said: hi", said
assert len(chunks) >= 4 and chunks[-1].usage.total_tokens == 30, chunks[-1]
assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
assert all(not getattr(chunk, "usage", None) for chunk in ask("hi", stream=True))

tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
answer = ask("weather", tools=[tool])
call = answer.choices[0].message.tool_calls[0]
assert (call.id, call.function.name) == ("call_7", "weather"), call
assert answer.choices[0].finish_reason == "tool_calls"
answer = client.chat.completions.create(
    model=model,
    tools=[tool],
    messages=[
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": "weather"},
        answer.choices[0].message.to_dict(),
        {"role": "tool", "tool_call_id": call.id, "content": "snow"},
    ],
)
assert answer.choices[0].message.content == "you said: snow", answer
with client.chat.completions.stream(
    model=model, messages=[{"role": "user", "content": "weather"}], tools=[tool]
) as stream:
    final = stream.get_final_completion()
assert final.choices[0].message.tool_calls[0].function.arguments == '{"city": "Oslo"}', final

response = client.responses.create(model=model, input="hi", instructions="be brief")
assert (response.output_text, response.status) == ("you said: hi", "completed"), response
assert response.usage.output_tokens_details.reasoning_tokens == 4
with client.responses.stream(model=model, input="hi") as stream:
    kinds = [event.type for event in stream]
    assert stream.get_final_response().output_text == "you said: hi"
assert kinds[0] == "response.created" and "response.output_text.delta" in kinds, kinds
flat = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
response = client.responses.create(model=model, input="weather", tools=[flat])
call = response.output[0]
assert (call.type, call.call_id) == ("function_call", "call_7"), call
result = {"type": "function_call_output", "call_id": call.call_id, "output": "snow"}
turns = [{"role": "user", "content": "weather"}, call.to_dict(), result]
response = client.responses.create(model=model, input=turns, tools=[flat])
assert response.output_text == "you said: snow", response

embedded = client.embeddings.create(model="local/fix-embed", input=["abc", "d"])
assert [len(entry.embedding) for entry in embedded.data] == [2, 2], embedded
assert embedded.data[0].embedding[0] == 3.0 and abs(embedded.data[1].embedding[1] - 0.1) < 1e-7
assert (embedded.model, embedded.usage.total_tokens) == ("fix-embed-1", 3), embedded
embedded = client.embeddings.create(model="fix-embed", input="abc", encoding_format="float")
assert embedded.data[0].embedding[0] == 3.0, embedded
refused(openai.BadRequestError, lambda: client.embeddings.create(model="m", input=[1, 2]))
sound = ("at dawn.wav", b"RIFF\x00\xff\r\n", "audio/wav")
words = client.audio.transcriptions.create(model="local/fix-whisper", file=sound, language="en")
assert words.text == "the ship sails" and words.usage.seconds == 2, words
words = client.audio.transcriptions.create(
    model="fix-whisper", file=sound, prompt="ships", response_format="text"
)
assert words.strip() == "the ship sails", words
speech = client.audio.speech.create(model="local/fix-tts", input="hi", voice="alloy")
assert speech.read() == b"ID3\x00\xff" and speech.response.headers["content-type"] == "audio/mpeg"
with client.audio.speech.with_streaming_response.create(
    model="fix-tts", input="hi", voice="alloy", response_format="wav"
) as speech:
    assert b"".join(speech.iter_bytes()) == b"ID3\x00\xff"
assert "local/fix-embed" in [entry.id for entry in client.models.list()]

refused(openai.APIError, lambda: list(ask("cut", stream=True)))
refused(openai.BadRequestError, lambda: ask("long"))
refused(openai.BadRequestError, lambda: ask("hi", n=2))
refused(openai.AuthenticationError, lambda: client.with_options(api_key="no").models.list())
error = refused(openai.RateLimitError, lambda: ask("money"))
assert error.response.headers["x-should-retry"] == "false"
