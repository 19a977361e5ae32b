// Vercel's `ai`, with the providers for OpenAI (responses by default, chat) and Anthropic and their default options.

import assert from "node:assert/strict";
import * as ai from "ai";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { z } from "zod";
import { ANTHROPIC, CHAT, CLAUDE, NATIVE, OPENAI, PNG, TEXT, TOKEN, check, finish, sent } from "./checks.mjs";

const { embedMany, experimental_generateSpeech, generateText, Output, stepCountIs, isStepCount, streamText, tool } = ai;
const stop = (stepCountIs ?? isStepCount)(4);
const openai = createOpenAI({ baseURL: OPENAI, apiKey: TOKEN });
const anthropic = createAnthropic({ baseURL: `${ANTHROPIC}/v1`, apiKey: TOKEN });
const thinking = { anthropic: { thinking: { type: "enabled", budgetTokens: 1024 } } };
// The SDK knows models that reason by their names, without a provider before them.
const effort = { openai: { reasoningEffort: "high", reasoningSummary: "auto", forceReasoning: true } };
const MODELS = {
  "chat": [openai.chat(CHAT), null],
  "chat before Anthropic": [openai.chat(CLAUDE), null],
  "responses": [openai(NATIVE), effort],
  "responses before chat": [openai(CHAT), null],
  "responses before Anthropic": [openai(CLAUDE), null],
  "messages": [anthropic(CLAUDE), thinking],
  "messages, a bare name": [anthropic("claude-sonnet-4-6"), thinking],
  "messages before OpenAI": [anthropic(CHAT), null],
};
const Person = z.object({ name: z.string(), age: z.number().int() });
const PERSON = { name: "a name", age: 3 };
const weather = () => tool({ description: "The weather", inputSchema: z.object({ city: z.string() }), execute: async ({ city }) => `sunny in ${city}` });
const time = () => tool({ description: "The time", inputSchema: z.object({}), execute: async () => "noon" });
const quiet = { maxRetries: 0 };

for (const [title, [model, options]] of Object.entries(MODELS)) {
  await check(`${title}: a plain answer, with a system's words`, async () => {
    const { text, usage, finishReason } = await generateText({ model, system: "be kind", prompt: "hi", ...quiet });
    assert.deepEqual([text, usage.outputTokens, finishReason], [TEXT, 9, "stop"]);
    assert.ok(JSON.stringify(await sent()).includes("be kind"));
  });
  await check(`${title}: a stream`, async () => {
    const result = streamText({ model, prompt: "hi", ...quiet });
    let text = "";
    for await (const piece of result.textStream) text += piece;
    assert.deepEqual([text, (await result.usage).outputTokens], [TEXT, 9]);
  });
  await check(`${title}: tools to the end, whole and streamed`, async () => {
    const call = { model, prompt: "[[calls:2]]", tools: { get_weather: weather(), get_time: time() }, stopWhen: stop, ...quiet };
    const whole = await generateText(call);
    assert.equal(whole.text, TEXT);
    assert.deepEqual(whole.steps[0].toolCalls.map((one) => [one.toolName, one.input]), [["get_weather", { city: "Rome" }], ["get_time", {}]]);
    assert.equal(await streamText(call).text, TEXT);
    const last = JSON.stringify((await sent()).at(-1));
    assert.ok(last.includes("sunny in Rome") && last.includes("noon"));
  });
  await check(`${title}: an output of a type, whole and streamed`, async () => {
    const call = { model, prompt: "hi", output: Output.object({ schema: Person }), ...quiet };
    assert.deepEqual((await generateText(call)).output, PERSON);
    let last;
    for await (const part of streamText(call).partialOutputStream) last = part;
    assert.deepEqual(last, PERSON);
  });
  await check(`${title}: a picture`, async () => {
    const image = { type: "file", mediaType: "image/png", data: Buffer.from(PNG, "base64") };
    await generateText({ model, messages: [{ role: "user", content: [{ type: "text", text: "what?" }, image] }], ...quiet });
    assert.ok(JSON.stringify(await sent()).includes(PNG));
  });
  await check(`${title}: the choice of a tool, and no tool`, async () => {
    const call = { model, prompt: "hi", tools: { get_weather: weather() }, ...quiet };
    const named = await generateText({ ...call, toolChoice: { type: "tool", toolName: "get_weather" } });
    assert.equal(named.toolCalls.length, 1);
    assert.equal((await generateText({ ...call, toolChoice: "none" })).text, TEXT);
  });
  await check(`${title}: an answer that is cut off`, async () => {
    assert.equal((await generateText({ model, prompt: "[[end:length]]", ...quiet })).finishReason, "length");
  });
  await check(`${title}: a conversation of two turns`, async () => {
    const first = await generateText({ model, prompt: "my name is Ann", ...quiet });
    const messages = [{ role: "user", content: "my name is Ann" }, ...first.response.messages, { role: "user", content: "who am I?" }];
    assert.equal((await generateText({ model, messages, ...quiet })).text, TEXT);
    assert.ok(JSON.stringify((await sent()).at(-1)).includes("my name is Ann"));
  });
  if (options) {
    await check(`${title}: thoughts, whole and streamed, and back`, async () => {
      const call = { model, prompt: "hi", providerOptions: options, ...quiet };
      const whole = await generateText(call);
      assert.equal(whole.reasoningText, "I think.");
      assert.equal(await streamText(call).reasoningText, "I think.");
      const messages = [{ role: "user", content: "hi" }, ...whole.response.messages, { role: "user", content: "go on" }];
      assert.equal((await generateText({ ...call, prompt: undefined, messages })).text, TEXT);
    });
  }
}
await check("embeddings", async () => {
  const model = (openai.embedding ?? openai.textEmbeddingModel)("chat/text-embedding-3-small");
  assert.deepEqual((await embedMany({ model, values: ["one", "three"], ...quiet })).embeddings[0], [3, 4, 5, 6]);
});
await check("speech", async () => {
  const speak = experimental_generateSpeech ?? ai.generateSpeech;
  const { audio } = await speak({ model: openai.speech("chat/tts-1"), text: "hello", ...quiet });
  assert.equal(Buffer.from(audio.uint8Array).toString(), "RIFF-a-sound");
});
await check("an error of the provider is one of the SDK", async () => {
  const error = await generateText({ model: openai.chat("nobody-has-it"), prompt: "hi", ...quiet }).catch((error) => error);
  assert.deepEqual([error.name, error.statusCode], ["AI_APICallError", 404]);
});
finish();
