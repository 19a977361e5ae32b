"""Every field of the SDKs' own request types, at every dialect: kept, told as left out, refused by
name, or a value that asks for nothing. Nothing is ignored.

    CONVERGIO_BIN=... python sdk_fields.py

CONVERGIO_FIELDS=all: every place of every type to every dialect, and all pairs of the fields of a
request; else a type is looked into once for each field of a request, what is within it goes to two
dialects, and each field goes with the next one.
CONVERGIO_FIELDS_SHOW=1 prints what became of each."""

import itertools
import json
import os
import re
import sys
import time
from collections import Counter

from anthropic.types import message_create_params
from anthropic.types.beta import message_create_params as beta_params
from openai.types.chat import completion_create_params
from openai.types.responses import response_create_params

from doors import DIALECTS, Server, Upstream, each
from request_types import cases

IS_ALL = os.environ.get("CONVERGIO_FIELDS") == "all"
IS_SHOWN = bool(os.environ.get("CONVERGIO_FIELDS_SHOW"))
SAID = [{"role": "user", "content": "hi"}]
TYPES = {
    "openai_chat": ([completion_create_params.CompletionCreateParamsNonStreaming], {"messages": SAID}),
    "openai_responses": ([response_create_params.ResponseCreateParamsNonStreaming], {"input": "hi"}),
    "anthropic": ([message_create_params.MessageCreateParamsNonStreaming,
                   beta_params.MessageCreateParamsNonStreaming], {"messages": SAID, "max_tokens": 50}),
}
TOOLS = {
    "openai_chat": [{"type": "function", "function": {"name": "x", "parameters": {"type": "object"}}}],
    "openai_responses": [{"type": "function", "name": "x", "parameters": {"type": "object"}}],
    "anthropic": [{"name": "x", "input_schema": {"type": "object"}}],
}
# Fields that say how a tool is asked for go with one.
WITH_TOOLS = {"tool_choice", "parallel_tool_calls", "function_call"}
# What the door itself acts on, as its documentation says.
DOORS_OWN = {
    "openai_chat": {"stream", "stream_options", "models"},
    "openai_responses": {"stream", "stream_options", "models", "previous_response_id"},
    "anthropic": {"stream"},
}
# Other names, in refusals and in what is told, of fields and of what has them.
OTHER_NAMES = {
    "stop_sequences": {"stop"}, "response_format": {"schema", "json_object"}, "text": {"schema", "verbosity"},
    "output_format": {"schema"}, "output_config": {"schema", "effort"}, "reasoning_effort": {"effort"},
    "reasoning": {"effort", "thinking_of_another"}, "metadata": {"user"}, "tool_choice": {"parallel_tool_calls"},
    "tools": {"hosted_tools"}, "betas": {"anthropic-beta"}, "image_url": {"image.detail"},
    "detail": {"image.detail"}, "strict": {"tools.strict"}, "name": {"messages.name"},
    "file": {"documents"}, "input_file": {"documents"}, "document": {"documents"},
    "thinking": {"thinking_of_another"}, "redacted_thinking": {"thinking_of_another"},
    "generate_summary": {"reasoning.summary"}, "summary": {"reasoning.summary"},
    "max_output_tokens": {"max_tokens"}, "is_error": {"tool_result.is_error"},
    "json_schema": {"schema", "schema.name", "schema.description", "schema.strict"},
    "system": {"messages.system"}, "developer": {"messages.system"},
}
# What only another interface has: parts, and fields of which no door knows the name.
GENERAL = {"fields_of_another", "parts_of_another"}
# Values that ask for what is so without them.
NEUTRAL = [
    (r"parallel_tool_calls", True), (r"tool_choice.*\.disable_parallel_tool_use", False),
    (r"text\.verbosity|verbosity", "medium"), (r"service_tier", "auto"), (r"service_tier", "default"),
    (r"truncation", "disabled"), (r"store|background|logprobs|.*\.is_error", False),
    (r"tool_choice", "auto"), (r"tool_choice", {"type": "auto"}), (r"function_call", "none"),
    (r"modalities", ["text"]), (r"response_format|text\.format", {"type": "text"}),
    (r"text", {"format": {"type": "text"}}), (r"tools\[\]\.type", "custom"),
    (r"input\[\]\((user|message|function_call|function_call_output)\)\.status", "completed"),
    (r"input\[\]\(user\)\.type", "message"),
    # A tool is not strict where nobody says so.
    (r"tools\[\].*\.strict", False),
]
# What an interface finds out by itself, or says by the order of things.
NEEDLESS = {
    "ollama": r".*\(image\)\.source\(base64\)\.media_type",
}


def names_of(path, value=None):
    """The names by which a field, or what has it, may be called."""
    words = set(re.findall(r"\w+", path)) | set(kinds_of(value))
    return words | set().union(*(OTHER_NAMES.get(word, set()) for word in words))


def kinds_of(value):
    """The types of all that stands in a value."""
    if isinstance(value, list):
        return [kind for part in value for kind in kinds_of(part)]
    if isinstance(value, dict):
        kinds = [value["type"]] if isinstance(value.get("type"), str) else []
        return kinds + [kind for part in value.values() for kind in kinds_of(part)]
    return []


def text_of(part):
    """The text of a part that says nothing else."""
    said = {name for name, value in part.items() if value != []} if isinstance(part, dict) else set()
    return part.get("text", part.get("refusal")) if said in ({"type", "text"}, {"type", "refusal"}) else None


def same_form(value):
    """Contents that say the same have the same form."""
    if isinstance(value, list):
        texts = [text_of(part) for part in value]
        return "".join(texts) if None not in texts else value
    return value


def is_within(value, there):
    """Whether all of a value is there; more may be."""
    if isinstance(value, dict) and isinstance(there, dict):
        return all(name in there and is_within(part, there[name]) for name, part in value.items())
    if isinstance(value, list) and isinstance(there, list):
        return len(value) == len(there) and all(map(is_within, value, there))
    return value == there or same_form(value) == same_form(there)


def leaves(value):
    """The texts and numbers of a value."""
    if isinstance(value, dict):
        return [leaf for part in value.values() for leaf in leaves(part)]
    if isinstance(value, list):
        return [leaf for part in value for leaf in leaves(part)]
    return [value]


def is_neutral(path, value, before, dialect=""):
    """Whether a value says what is so without it."""
    if value in ({}, []) or (value is not None and same_form(value) == same_form(before)):
        return True
    if re.fullmatch(NEEDLESS.get(dialect, "(?!)"), path):
        return True
    return any(re.fullmatch(pattern, path) and value == neutral and type(value) is type(neutral)
               for pattern, neutral in NEUTRAL)


def at(body, path):
    """The value at a path of a case, for messages to people."""
    value = body
    for step in re.findall(r"\w+(?=\(|\[|\.|$)|\[\]", re.sub(r"\(\w+\)", "", path)):
        try:
            value = value[0] if step == "[]" else value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


class Sweep:
    def __init__(self, server):
        self.server, self.known = server, {}
        self.fates, self.faults = Counter(), []

    def ask(self, door, dialect, body, betas=None):
        body = dict(body)
        headers = {}
        if door == "anthropic" and "betas" in body:
            headers["anthropic-beta"] = ",".join(body.pop("betas"))
        return self.server.ask(door, dialect, body, headers)

    def before(self, door, dialect, body):
        key = (door, dialect, json.dumps(body, sort_keys=True))
        if key not in self.known:
            self.known[key] = self.ask(door, dialect, body)
        return self.known[key]

    def fate(self, door, dialect, paths, body, without):
        """What became of the fields at these paths, which a body has and another one has not."""
        reply, asked = self.ask(door, dialect, body)
        names = set().union(*(names_of(path, at(body, path)) for path in paths))
        if reply.status >= 500:
            return f"failed: {reply.status} {reply.raw[:200]}"
        if reply.status >= 400:
            return self.refusal(door, reply, names)
        if asked is None:
            return "failed: nobody was asked"
        old_reply, old = self.before(door, dialect, without)
        told = reply.left_out & (names | GENERAL)
        if told - old_reply.left_out:
            return "told"
        if old is None or old["body"] != asked["body"] or (
                old["headers"].get("anthropic-beta") != asked["headers"].get("anthropic-beta")):
            if door != dialect:
                return "kept"
            sent = {**asked["body"], "betas": asked["headers"].get("anthropic-beta", "").split(",")}
            return self.kept(paths[0], body, sent)
        if told:
            return "told"
        if all(is_neutral(path, at(body, path), at(without, path), dialect) for path in paths):
            return "neutral"
        if all(path.split(".")[0].split("(")[0] in DOORS_OWN[door] for path in paths):
            return "the door's own"
        return f"ignored: {sorted(reply.left_out)}, before {sorted(old_reply.left_out)}"

    def kept(self, path, body, asked):
        """At the door's own interface a field has the value that it had, by whatever name."""
        value = at(body, path)
        if is_within(value, at(asked, path)):
            return "kept"
        said = json.dumps(asked, ensure_ascii=False)
        lost = [leaf for leaf in leaves(value) if json.dumps(leaf, ensure_ascii=False)[:-1] not in said]
        # Instructions at the beginning have a place of their own; a text is a text.
        lost = [leaf for leaf in lost if leaf != "text" and not (leaf == "system" and "instructions" in asked)]
        return f"kept otherwise: {lost} is not in {said[:300]}" if lost else "kept"

    def refusal(self, door, reply, names):
        try:
            error = reply.body["error"]
            said = error["message"] if door == "anthropic" else error["param"]
            words = set(re.findall(r"[\w.-]+", said or "")) | set(re.findall(r"\w+", said or ""))
        except (ValueError, KeyError, TypeError):
            return f"failed: not the door's form: {reply.raw[:200]}"
        if reply.status not in (400, 404, 413, 422):
            return f"failed: {reply.status} {reply.raw[:200]}"
        return "refused" if words & (names | GENERAL) else f"refused without its name: {reply.raw[:300]}"

    def note(self, what, fate):
        kind = fate.split(":")[0]
        self.fates[kind] += 1
        if kind not in ("kept", "told", "refused", "neutral", "the door's own"):
            self.faults.append(f"{what}: {fate}")
        if IS_SHOWN:
            print(f"{what}: {fate}")


def all_cases(door):
    """The fields of a door's request types, each once."""
    types, base = TYPES[door]
    known = set()
    for cls in types:
        for path, body, without in cases(cls, base, None if IS_ALL else set()):
            top = re.match(r"\w+", path)[0]
            if top == "model":
                continue
            if top in WITH_TOOLS:
                body, without = ({**it, "tools": TOOLS[door]} for it in (body, without))
            key = json.dumps([path, body, without], sort_keys=True)
            if key not in known:
                known.add(key)
                yield path, body, without


def dialects_of(door, path, number):
    """A field of the request goes to every dialect; what stands within one to the door's own and,
    unless all are asked for, to one other in turn."""
    if IS_ALL or re.fullmatch(r"\w+", path):
        return DIALECTS
    others = [dialect for dialect in DIALECTS if dialect != door]
    return [door, others[number % len(others)]]


def pairs(door):
    """Two fields of a request at a time: the first value of each that no default is."""
    types, base = TYPES[door]
    fields = {}
    for cls in types:
        for path, body, _ in cases(cls, base, set()):
            if re.fullmatch(r"\w+", path) and path not in ("model", *base):
                if not is_neutral(path, body[path], None):
                    fields.setdefault(path, body[path])
    names = list(fields)
    chosen = itertools.combinations(names, 2) if IS_ALL else zip(names, names[1:])
    for one, other in chosen:
        common = dict(base)
        if WITH_TOOLS & {one, other} and "tools" not in (one, other):
            common["tools"] = TOOLS[door]
        yield one, other, {**common, one: fields[one], other: fields[other]}, common


def main():
    upstream = Upstream()
    server = Server(upstream)
    sweep = Sweep(server)
    begun = time.time()
    try:
        for door in TYPES:
            single = [(dialect, *case) for number, case in enumerate(all_cases(door))
                      for dialect in dialects_of(door, case[0], number)]

            def alone(case):
                dialect, path, body, without = case
                return sweep.fate(door, dialect, [path], body, without)

            for (dialect, path, body, _), fate in zip(single, each(alone, single)):
                sweep.note(f"{door} to {dialect}, {path} = {json.dumps(at(body, path))[:80]}", fate)
            print(f"{door}: {len(single)} calls with one field after {time.time() - begun:.0f} s", flush=True)

            own = [door] if not IS_ALL else DIALECTS
            double = [(dialect, *pair) for pair in pairs(door) for dialect in own]

            def together(case):
                dialect, one, other, body, common = case
                # Each must show beside the other.
                found = []
                for name, rest in ((one, other), (other, one)):
                    without = {key: value for key, value in body.items() if key != name}
                    if name in common:
                        without[name] = common[name]
                    fate = sweep.fate(door, dialect, [name], body, without)
                    if fate.startswith("refused without"):
                        # It is the other that is refused.
                        fate = sweep.fate(door, dialect, [name, rest], body, without)
                    found.append(fate)
                return found

            for (dialect, one, other, *_), fates in zip(double, each(together, double)):
                for name, rest, fate in zip((one, other), (other, one), fates):
                    sweep.note(f"{door} to {dialect}, {name} beside {rest}", fate)
            print(f"{door}: {len(double)} pairs after {time.time() - begun:.0f} s", flush=True)
    finally:
        server.stop()
    print(", ".join(f"{count} {fate}" for fate, count in sweep.fates.most_common()))
    for fault in sweep.faults[: None if IS_SHOWN else 60]:
        print(fault)
    sys.exit(f"{len(sweep.faults)} faults" if sweep.faults else 0)


if __name__ == "__main__":
    main()
