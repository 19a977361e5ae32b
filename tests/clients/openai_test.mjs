// OpenAI's SDK for Node at the doors.

import assert from "node:assert/strict";
import OpenAI, { toFile } from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { CHAT, CLAUDE, NATIVE, OPENAI, PNG, TEXT, TOKEN, check, fails, finish, sent } from "./checks.mjs";

const client = new OpenAI({ baseURL: OPENAI, apiKey: TOKEN, maxRetries: 0 });
const Person = z.object({ name: z.string(), age: z.number().int() });
const PERSON = { name: "a name", age: 3 };
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false };
const WEATHER = { type: "function", function: { name: "get_weather", parameters, strict: true } };
const TIME = { type: "function", function: { name: "get_time", parameters: { type: "object", properties: {} } } };
const user = (content) => [{ role: "user", content }];
const ask = (content = "hi", model = CHAT, more = {}) =>
  client.chat.completions.create({ model, messages: user(content), ...more });

for (const model of [CHAT, NATIVE, CLAUDE]) {
  await check(`${model}: a plain answer`, async () => {
    const answer = await ask("hi", model);
    assert.equal(answer.choices[0].message.content, TEXT);
    assert.equal(answer.usage.completion_tokens, 9);
    assert.ok(answer._request_id);
  });
  await check(`${model}: a stream`, async () => {
    let text = "";
    for await (const part of await ask("hi", model, { stream: true })) text += part.choices[0]?.delta?.content ?? "";
    assert.equal(text, TEXT);
  });
  await check(`${model}: tools run to the end`, async () => {
    const heard = [];
    const tool = (name, schema) => ({ type: "function", function: {
      name, parameters: schema, parse: JSON.parse, function: (input) => (heard.push([name, input]), "sunny") } });
    const runner = client.chat.completions.runTools({ model, messages: user("[[calls:2]]"),
      tools: [tool("get_weather", parameters), tool("get_time", { type: "object", properties: {} })] });
    assert.equal(await runner.finalContent(), TEXT);
    assert.deepEqual(heard, [["get_weather", { city: "Rome" }], ["get_time", {}]]);
  });
  await check(`${model}: two tools in a stream`, async () => {
    const stream = client.chat.completions.stream({ model, messages: user("[[calls:2]]"), tools: [WEATHER, TIME] });
    const calls = (await stream.finalChatCompletion()).choices[0].message.tool_calls;
    assert.deepEqual(calls.map((call) => [call.function.name, JSON.parse(call.function.arguments)]),
      [["get_weather", { city: "Rome" }], ["get_time", {}]]);
  });
  await check(`${model}: an output of a type`, async () => {
    const answer = await client.chat.completions.parse({ model, messages: user("hi"),
      response_format: zodResponseFormat(Person, "person") });
    assert.deepEqual(answer.choices[0].message.parsed, PERSON);
  });
  await check(`${model}: a picture`, async () => {
    await ask([{ type: "text", text: "what?" }, { type: "image_url", image_url: { url: `data:image/png;base64,${PNG}` } }], model);
    assert.ok(JSON.stringify(await sent()).includes(PNG));
  });
  await check(`${model}: responses, whole and as a stream`, async () => {
    assert.equal((await client.responses.create({ model, input: "hi" })).output_text, TEXT);
    const stream = client.responses.stream({ model, input: "hi" });
    assert.equal((await stream.finalResponse()).output_text, TEXT);
  });
  await check(`${model}: responses of a type`, async () => {
    const answer = await client.responses.parse({ model, input: "hi", text: { format: zodTextFormat(Person, "person") } });
    assert.deepEqual(answer.output_parsed, PERSON);
  });
  await check(`${model}: responses that go on`, async () => {
    const first = await client.responses.create({ model, input: "my name is Ann" });
    await client.responses.create({ model, input: "who am I?", previous_response_id: first.id });
    assert.ok(JSON.stringify((await sent()).at(-1)).includes("my name is Ann"));
  });
}
await check("thoughts", async () => {
  assert.equal((await ask("hi", CHAT, { reasoning_effort: "high" })).choices[0].message.reasoning_content, "I think.");
});
await check("errors have their kinds", async () => {
  await fails(OpenAI.AuthenticationError, () => new OpenAI({ baseURL: OPENAI, apiKey: "wrong" }).models.list());
  assert.equal((await fails(OpenAI.NotFoundError, () => ask("hi", "nobody-has-it"))).code, "model_not_found");
  assert.equal((await fails(OpenAI.BadRequestError, () => ask("hi", CHAT, { frobnicate: 1 }))).param, "frobnicate");
});
await check("a call that is aborted ends", async () => {
  const stop = new AbortController();
  setTimeout(() => stop.abort(), 200);
  await fails(OpenAI.APIUserAbortError, () => client.chat.completions.create(
    { model: CHAT, messages: user("[[slow:1]] abort") }, { signal: stop.signal }));
});
await check("models", async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.ok(names.includes(CHAT) && names.includes(CLAUDE));
  assert.equal((await client.models.retrieve(CHAT)).id, CHAT);
});
await check("embeddings", async () => {
  const made = await client.embeddings.create({ model: "chat/text-embedding-3-small", input: ["one", "three"] });
  assert.deepEqual(made.data[0].embedding, [3, 4, 5, 6]);
});
await check("speech and the words of a recording", async () => {
  const sound = await client.audio.speech.create({ model: "chat/tts-1", voice: "alloy", input: "hello" });
  assert.equal(Buffer.from(await sound.arrayBuffer()).toString(), "RIFF-a-sound");
  const file = await toFile(Buffer.from("RIFF0000WAVEfmt "), "a.wav");
  assert.equal((await client.audio.transcriptions.create({ model: "chat/whisper-1", file })).text, "words of a recording");
});
finish();
