// Anthropic's SDK for Node at the doors.

import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";
import { betaZodTool } from "@anthropic-ai/sdk/helpers/beta/zod";
import { zodOutputFormat } from "@anthropic-ai/sdk/helpers/zod";
import { z } from "zod";
import { ANTHROPIC, CHAT, CLAUDE, NATIVE, PNG, TEXT, TOKEN, check, fails, finish, sent } from "./checks.mjs";

const client = new Anthropic({ baseURL: ANTHROPIC, apiKey: TOKEN, maxRetries: 0 });
const THINKING = { type: "enabled", budget_tokens: 1024 };
const WEATHER = { name: "get_weather", input_schema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] } };
const TIME = { name: "get_time", input_schema: { type: "object", properties: {} } };
const user = (content) => [{ role: "user", content }];
const body = (content, model, more) => ({ model, max_tokens: 2000, messages: user(content), ...more });
const ask = (content = "hi", model = CLAUDE, more = {}) => client.messages.create(body(content, model, more));
const final = (content = "hi", model = CLAUDE, more = {}) => client.messages.stream(body(content, model, more)).finalMessage();
const text = (answer) => answer.content.filter((block) => block.type === "text").map((block) => block.text).join("");
const calls = (answer) => answer.content.filter((block) => block.type === "tool_use").map((block) => [block.name, block.input]);

for (const model of [CLAUDE, CHAT, NATIVE]) {
  await check(`${model}: a plain answer`, async () => {
    const answer = await ask("hi", model);
    assert.deepEqual([text(answer), answer.stop_reason, answer.usage.output_tokens], [TEXT, "end_turn", 9]);
    assert.ok(answer._request_id);
  });
  await check(`${model}: a stream`, async () => {
    const heard = [];
    const stream = client.messages.stream(body("hi", model)).on("text", (piece) => heard.push(piece));
    assert.deepEqual([text(await stream.finalMessage()), heard.join("")], [TEXT, TEXT]);
  });
  await check(`${model}: two tools at once, whole and streamed`, async () => {
    for (const answer of [await ask("[[calls:2]]", model, { tools: [WEATHER, TIME] }),
      await final("[[calls:2]]", model, { tools: [WEATHER, TIME] })])
      assert.deepEqual(calls(answer), [["get_weather", { city: "Rome" }], ["get_time", {}]]);
  });
  await check(`${model}: an output of a type`, async () => {
    const format = zodOutputFormat(z.object({ name: z.string(), age: z.number().int() }));
    const answer = await client.messages.parse(body("hi", model, { output_config: { format } }));
    assert.deepEqual(answer.parsed_output, { name: "a name", age: 3 });
  });
  await check(`${model}: a picture`, async () => {
    const source = { type: "base64", media_type: "image/png", data: PNG };
    await ask([{ type: "image", source }, { type: "text", text: "what?" }], model);
    assert.ok(JSON.stringify(await sent()).includes(PNG));
  });
  await check(`${model}: tokens are counted`, async () => {
    assert.ok((await client.messages.countTokens({ model, messages: user("how many?") })).input_tokens > 0);
  });
}
await check("thoughts, whole and streamed, with their marks", async () => {
  for (const answer of [await ask("hi", CLAUDE, { thinking: THINKING }), await final("hi", CLAUDE, { thinking: THINKING })]) {
    assert.deepEqual(answer.content[0], { type: "thinking", thinking: "I think.", signature: "SIG" });
    assert.equal(answer.content[1].text, TEXT);
  }
});
await check("marks for the cache, and their tokens", async () => {
  const answer = await ask([{ type: "text", text: "hi", cache_control: { type: "ephemeral" } }]);
  assert.deepEqual([answer.usage.cache_creation_input_tokens, answer.usage.cache_read_input_tokens], [30, 20]);
});
await check("the SDK's tool runner goes to the end", async () => {
  const tool = betaZodTool({ name: "get_weather", description: "d", inputSchema: z.object({ city: z.string() }),
    run: ({ city }) => `sunny in ${city}` });
  const answer = await client.beta.messages.toolRunner(body("The weather?", CLAUDE, { tools: [tool] }));
  assert.equal(text(answer), TEXT);
  assert.ok(JSON.stringify((await sent()).at(-1)).includes("sunny in Rome"));
});
await check("errors have their kinds", async () => {
  await fails(Anthropic.AuthenticationError, () => new Anthropic({ baseURL: ANTHROPIC, apiKey: "wrong" }).models.list());
  assert.equal((await fails(Anthropic.NotFoundError, () => ask("hi", "nobody-has-it"))).type, "not_found_error");
  assert.ok((await fails(Anthropic.BadRequestError, () => ask("hi", CLAUDE, { frobnicate: 1 }))).requestID);
});
await check("a stream that breaks off is an error", async () => {
  await fails(Anthropic.AnthropicError, () => final("[[break]]"));
});
await check("models", async () => {
  const names = [];
  for await (const model of client.models.list({ limit: 2 })) names.push(model.id);
  assert.ok(names.includes(CHAT) && names.includes(CLAUDE));
  assert.equal((await client.models.retrieve(CLAUDE)).id, CLAUDE);
});
finish();
