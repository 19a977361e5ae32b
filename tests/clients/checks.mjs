// What the scripts for Node share: checks that count, and what reached the provider.

import assert from "node:assert/strict";

const { CONVERGIO_URL, CONVERGIO_TOKEN, MOCK_URL } = process.env;
export const TOKEN = CONVERGIO_TOKEN;
export const OPENAI = `${CONVERGIO_URL}/openai/v1`;
export const ANTHROPIC = `${CONVERGIO_URL}/anthropic`;
export const CHAT = "chat/gpt-5";
export const NATIVE = "native/gpt-5";
export const CLAUDE = "anthropic/claude-sonnet-4-6";
export const TEXT = "The turn is done.";
export const PNG =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

const counts = { passed: 0, failed: 0, own: 0 };
let begin = 0;

async function requests(place) {
  return (await fetch(`${MOCK_URL}/requests?from=${place}`)).json();
}

/** The bodies that reached the provider since the check began. */
export async function sent() {
  return (await requests(begin)).map((request) => request.body);
}

/** Runs a check. `own` says why a failure is the client's own fault. */
export async function check(name, run, own) {
  begin = (await requests(0)).length;
  try {
    await run();
    counts.passed += 1;
  } catch (error) {
    const why = `${error?.name}: ${error?.message} ${error?.cause ?? ""}`.replace(/\s+/g, " ").slice(0, 500);
    counts[own ? "own" : "failed"] += 1;
    console.log(own ? `OWN  ${name}: ${own} (${why.slice(0, 160)})` : `FAIL ${name}: ${why}`);
  }
}

/** That a call fails so. */
export async function fails(kind, call) {
  const error = await call().then(() => undefined, (error) => error);
  assert.ok(error instanceof kind, `${error?.constructor?.name} is no ${kind.name}`);
  return error;
}

export function finish() {
  console.log(`RESULT ${counts.passed} ${counts.failed} ${counts.own}`);
  process.exit(counts.failed > 0 ? 1 : 0);
}
