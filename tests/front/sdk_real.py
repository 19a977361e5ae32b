"""Both SDKs in front of a real model. Usage: URL TOKEN MODEL."""

import sys

from anthropic import Anthropic
from openai import OpenAI

url, token, model = sys.argv[1:]
brief = "You answer in one short sentence."
question = [{"role": "user", "content": "What is the capital of France?"}]
asked = [{"role": "system", "content": brief}] + question

client = OpenAI(base_url=url + "/openai/v1", api_key=token)
answer = client.chat.completions.create(
    model=model, messages=asked, max_tokens=24, temperature=0
)
assert "Paris" in answer.choices[0].message.content, answer
assert answer.usage.prompt_tokens > 5 and answer.usage.completion_tokens > 0, answer.usage
chunks = list(
    client.chat.completions.create(
        model=model,
        messages=asked,
        max_tokens=24,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
)
said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
assert "Paris" in said and len(chunks) >= 4 and chunks[-1].usage.completion_tokens > 0, said
response = client.responses.create(
    model=model, instructions=brief, input=question, max_output_tokens=24, temperature=0
)
assert "Paris" in response.output_text, response

client = Anthropic(base_url=url + "/anthropic", api_key=token)
with client.messages.stream(model=model, max_tokens=24, messages=question) as stream:
    said = "".join(stream.text_stream)
    final = stream.get_final_message()
assert said and said == final.content[0].text and final.usage.output_tokens > 0, final
