// OpenAI's and Anthropic's SDKs for TypeScript at the doors. Usage: URL TOKEN MODEL [real].
// In front of the fixture server the answers are known; `real` asks a real model.

import assert from "node:assert/strict";

import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const [url, token, model, real] = process.argv.slice(2);
const openai = new OpenAI({ baseURL: `${url}/openai/v1`, apiKey: token });
const anthropic = new Anthropic({ baseURL: `${url}/anthropic`, apiKey: token });
const question = real ? "What is the capital of France? One short sentence." : "hi";
const messages = [{ role: "user", content: question }];
const isRight = (text) =>
  real ? assert.match(text, /Paris|\w+/) : assert.equal(text, "you said: hi");

const answer = await openai.chat.completions.create({ model, messages, max_tokens: 24 });
isRight(answer.choices[0].message.content);
assert.ok(answer.usage.prompt_tokens > 0 && answer.usage.completion_tokens > 0);

const stream = await openai.chat.completions.create({
  model,
  messages,
  max_tokens: 24,
  stream: true,
  stream_options: { include_usage: true },
});
let said = "";
let counted = null;
for await (const chunk of stream) {
  said += chunk.choices[0]?.delta?.content ?? "";
  counted = chunk.usage ?? counted;
}
isRight(said);
assert.ok(counted.total_tokens > 0);

const response = await openai.responses.create({ model, input: question, max_output_tokens: 24 });
isRight(response.output_text);
let events = 0;
for await (const event of await openai.responses.create({ model, input: question, stream: true })) {
  events += 1;
  if (event.type === "response.completed") isRight(event.response.output[0].content[0].text);
}
assert.ok(events > 5);

const message = await anthropic.messages.create({ model, messages, max_tokens: 24 });
isRight(message.content[0].text);
const final = await anthropic.messages.stream({ model, messages, max_tokens: 24 }).finalMessage();
isRight(final.content[0].text);
assert.ok(final.usage.output_tokens > 0);

if (!real) {
  const tool = { type: "function", function: { name: "weather", parameters: { type: "object" } } };
  const called = await openai.chat.completions.create({
    model,
    tools: [tool],
    messages: [{ role: "user", content: "weather" }],
  });
  assert.equal(called.choices[0].message.tool_calls[0].id, "call_7");
  const refused = async (kind, call) => assert.rejects(call, (error) => error instanceof kind);
  const ask = (content) =>
    openai.chat.completions.create({ model, messages: [{ role: "user", content }] });
  await refused(OpenAI.BadRequestError, () => ask("long"));
  await refused(OpenAI.RateLimitError, () => ask("money"));
  await refused(OpenAI.APIError, async () => {
    const cut = await openai.chat.completions.create({
      model,
      messages: [{ role: "user", content: "cut" }],
      stream: true,
    });
    for await (const _ of cut);
  });
  await refused(Anthropic.APIError, () =>
    anthropic.messages
      .stream({ model, max_tokens: 9, messages: [{ role: "user", content: "cut" }] })
      .finalMessage(),
  );
  const bad = new OpenAI({ baseURL: `${url}/openai/v1`, apiKey: "no" });
  await refused(OpenAI.AuthenticationError, () => bad.models.list());
}
