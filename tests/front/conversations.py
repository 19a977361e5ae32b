"""Conversations with blocks of every kind, from each door to each dialect and back.

    CONVERGIO_BIN=... python conversations.py [SEED]

CONVERGIO_CONVERSATIONS says how many; a seed makes one alone, and shows what was sent.

Each is sent as a history; the answer that comes goes into the next turn, as a client of the door
puts it there, and must reach its maker as the maker wrote it."""

import json
import os
import random
import sys
import time
from collections import Counter

from conversation_answers import answer
from conversation_blocks import Maker
from conversation_views import VIEWS, differences
from doors import DIALECTS, PATHS, Server, Upstream, each

COUNT = int(os.environ.get("CONVERGIO_CONVERSATIONS", "60"))
PAIRS = [(door, dialect) for door in PATHS for dialect in DIALECTS]
ROUNDS = 3


def main():
    seeds = [int(sys.argv[1])] if len(sys.argv) > 1 else list(range(COUNT))
    upstream = Upstream()
    server = Server(upstream)
    begun = time.time()
    try:
        found = each(lambda seed: converse(server, seed, len(seeds) == 1), seeds)
    finally:
        server.stop()
    faults = [fault for one, _ in found for fault in one]
    counts = sum((count for _, count in found), Counter())
    told = ", ".join(f"{count} {what}" for what, count in counts.most_common())
    print(f"{len(seeds)} conversations in {time.time() - begun:.0f} s: {told}")
    for fault in faults[:40]:
        print(fault)
    sys.exit(f"{len(faults)} faults" if faults else 0)


def converse(server, seed, is_shown):
    """One conversation: what went wrong in it, and what it was made of."""
    chance = random.Random(seed)
    door, dialect = PAIRS[seed % len(PAIRS)]
    maker = Maker(chance, door, dialect)
    turns = maker.history(chance.choice([1, 3, 5, 9, 19, 35]))
    faults, counts, answers = [], Counter(), []
    for number in range(ROUNDS):
        is_stream, is_whole = chance.random() < 0.5, chance.random() < 0.3
        blocks, wire = answer(maker, dialect, not is_whole)
        body = {**maker.request(turns), "stream": is_stream}
        reply, asked = server.ask(door, dialect, body, answer=wire, is_whole=is_whole)
        where = f"seed {seed}, {door} to {dialect}, round {number}{', stream' if is_stream else ''}"
        counts["calls"] += 1
        if is_shown:
            for what in (body, asked and asked["body"], blocks, reply.raw.decode()):
                print(json.dumps(what, ensure_ascii=False, indent=1) if not isinstance(what, str) else what)
        if reply.status != 200 or asked is None:
            return [*faults, f"{where}: {reply.status} {reply.raw[:300]}"], counts
        if number == 0:
            counts["turns"] += len(turns)
            counts["blocks"] += sum(len(e["content"]) if isinstance(e.get("content"), list) else 1
                                    for turn in turns for e in turn)
            found = differences(VIEWS[door](body), VIEWS[dialect](asked["body"]), dialect, reply.left_out)
            if door == dialect:
                found += CHANGES[door](body, asked["body"])
            faults += [f"{where}: {fault}" for fault in found]
        # What came in an earlier answer is back at its maker.
        for one in answers:
            fault = RETURNS[dialect](one, asked["body"])
            if fault:
                faults.append(f"{where}: the answer came back otherwise: {fault}")
        try:
            turn = TURNS[door](reply, is_stream)
        except (KeyError, ValueError, TypeError, AssertionError) as error:
            return [*faults, f"{where}: no answer in {reply.raw[-300:]}: {error!r}"], counts
        found = ANSWERS[door](blocks, turn) if door == dialect else []
        found += unsaid(VIEWS[dialect](as_request(dialect, blocks)), VIEWS[door](maker.request([turn])))
        faults += [f"{where}: the answer: {fault}" for fault in found]
        answers.append(blocks)
        counts["answers' blocks"] += len(blocks)
        calls = [(id, name) for id, name, _ in VIEWS[door](maker.request([turn])).calls]
        turns = [*turns, turn, getattr(maker, f"{door}_user")(calls)]
        if faults:
            break
    return faults, counts


# The same interface on both sides: every block as it was.


def text_content(content):
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def anthropic_blocks(body):
    blocks = [("system", block) for block in text_content(body.get("system", []))]
    for message in body["messages"]:
        blocks += [(message["role"], inner_text(block)) for block in text_content(message["content"])]
    return blocks


def inner_text(block):
    """What a tool answered is text or blocks of it."""
    if block.get("type") == "tool_result":
        content = block.get("content") or ""
        if isinstance(content, list) and len(content) == 1 and set(content[0]) == {"type", "text"}:
            content = content[0]["text"]
        block = {**block, "content": content}
    return block


def chat_messages(body):
    messages = []
    for message in body["messages"]:
        message = dict(message)
        content = message.get("content")
        if isinstance(content, list) and len(content) == 1 and set(content[0]) == {"type", "text"}:
            message["content"] = content[0]["text"]
        messages.append(message)
    return messages


def responses_items(body):
    items = []
    if body.get("instructions"):
        items.append({"type": "message", "role": "system", "content": body["instructions"]})
    for item in body["input"]:
        item = dict(item)
        for name in ("content", "output"):
            parts = item.get(name)
            if isinstance(parts, list):
                parts = [without_empty(part) for part in parts]
                is_text = len(parts) == 1 and set(parts[0]) == {"type", "text"}
                item[name] = parts[0]["text"] if is_text else parts
        items.append(item)
    return items


def without_empty(part):
    return {name: value for name, value in part.items() if value != []}


def changes(read):
    def compare(sent, came):
        one, other = read(sent), read(came)
        if one == other:
            return []
        pairs = list(zip(one, other))
        first = next((pair for pair in pairs if pair[0] != pair[1]), (len(one), len(other)))
        return [f"a block changed: {json.dumps(first[0])[:400]} is {json.dumps(first[1])[:400]}"]
    return compare


CHANGES = {"anthropic": changes(anthropic_blocks), "openai_chat": changes(chat_messages),
           "openai_responses": changes(responses_items)}


# An answer as a client of the door puts it into its next request.


def anthropic_turn(reply, is_stream):
    if not is_stream:
        return [{"role": "assistant", "content": reply.body["content"]}]
    blocks, input = [], ""
    events = reply.events
    assert events[-1]["type"] == "message_stop", events[-1]
    for event in events:
        if event["type"] == "content_block_start":
            blocks.append(dict(event["content_block"]))
            input = ""
        elif event["type"] == "content_block_delta":
            delta, block = event["delta"], blocks[-1]
            kind = delta["type"]
            if kind == "input_json_delta":
                input += delta["partial_json"]
                block["input"] = input
            elif kind == "citations_delta":
                block["citations"] = [*(block.get("citations") or []), delta["citation"]]
            else:
                name = kind.removesuffix("_delta")
                block[name] = block.get(name, "") + delta[name]
        elif event["type"] == "content_block_stop" and isinstance(blocks[-1].get("input"), str):
            blocks[-1]["input"] = json.loads(blocks[-1]["input"] or "{}")
    return [{"role": "assistant", "content": blocks}]


def chat_turn(reply, is_stream):
    if not is_stream:
        message = reply.body["choices"][0]["message"]
        return [{name: value for name, value in message.items() if value is not None or name == "content"}]
    message = {"role": "assistant", "content": None}
    calls = {}
    assert reply.raw.rstrip().endswith(b"data: [DONE]"), reply.raw[-200:]
    for chunk in reply.events:
        for choice in chunk["choices"]:
            for name, value in choice["delta"].items():
                if name == "tool_calls":
                    for piece in value:
                        call = calls.setdefault(piece["index"], {"function": {"arguments": ""}})
                        function = piece.pop("function", {})
                        call["function"]["arguments"] += function.pop("arguments", "")
                        call["function"] |= function
                        call |= {key: it for key, it in piece.items() if key != "index"}
                elif name == "role":
                    continue
                elif isinstance(value, str):
                    message[name] = (message.get(name) or "") + value
                elif value is not None:
                    message[name] = value
    if calls:
        message["tool_calls"] = [calls[index] for index in sorted(calls)]
    message["content"] = message["content"] or None
    return [message]


def responses_turn(reply, is_stream):
    if not is_stream:
        return reply.body["output"]
    events = reply.events
    assert events[-1]["type"] == "response.completed", events[-1]
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    output = events[-1]["response"]["output"]
    wrong = [pair for pair in zip(done, output) if pair[0] != pair[1]]
    assert done == output, f"{wrong[:1] or (len(done), len(output))}"
    return output


TURNS = {"anthropic": anthropic_turn, "openai_chat": chat_turn, "openai_responses": responses_turn}


# What a provider answered, at a door of its own interface.


def anthropic_answer(blocks, turn):
    return compare_lists(blocks, turn[0]["content"])


def chat_answer(blocks, turn):
    return compare_lists([without_empty_text(blocks[0])], [without_empty_text(turn[0])])


def responses_answer(blocks, turn):
    """Ids of items are this server's, and what a thought is sealed in too."""
    def known(item):
        hidden = {"id", "encrypted_content", "status"} if item["type"] != "web_search_call" else set()
        item = {name: value for name, value in item.items() if name not in hidden}
        if "content" in item:
            item["content"] = [{name: value for name, value in part.items() if value != []}
                               for part in item["content"]]
        return item
    return compare_lists([known(item) for item in blocks], [known(item) for item in turn])


def without_empty_text(message):
    return {name: value for name, value in message.items() if value not in (None, "", [])}


def compare_lists(one, other):
    if one == other:
        return []
    pairs = [pair for pair in zip(one, other) if pair[0] != pair[1]]
    first = pairs[0] if pairs else (one, other)
    return [f"{json.dumps(first[0])[:500]} is {json.dumps(first[1])[:500]}"]


ANSWERS = {"anthropic": anthropic_answer, "openai_chat": chat_answer, "openai_responses": responses_answer}


# What a provider answered, at any door.


def as_request(dialect, blocks):
    """The blocks of an answer as the conversation of a request."""
    if dialect == "anthropic":
        return {"messages": [{"role": "assistant", "content": blocks}]}
    if dialect == "gemini":
        return {"contents": [{"role": "model", "parts": blocks}]}
    return {"messages": blocks} if dialect in ("openai_chat", "ollama") else {"input": blocks}


def unsaid(answered, told):
    """What a door does not tell of an answer: texts, thoughts in words, calls."""
    if any(id is None for id, *_ in answered.calls):
        # Ids are ours where the provider gives none.
        answered.calls = [call[1:] for call in answered.calls]
        told.calls = [call[1:] for call in told.calls]
    texts = [["".join(view.said["assistant"]), "".join(view.thoughts).replace("\n\n", ""), view.calls]
             for view in (answered, told)]
    if any(view.refusals for view in (answered, told)):
        # Where a refusal stands beside the text, their order is not to be seen.
        texts = [["".join(sorted(text)), *rest] for text, *rest in texts]
    return compare_lists(*texts)


# What a provider answered, back at the provider.


def run_of(blocks, there):
    """Whether blocks stand among others, one after the other; else the nearest that does not."""
    width = len(blocks)
    best = (-1, there[:width])
    for place in range(len(there) - width + 1):
        part = there[place: place + width]
        score = sum(one == other for one, other in zip(blocks, part))
        if score == width:
            return None
        best = max(best, (score, part), key=lambda it: it[0])
    wrong = [pair for pair in zip(blocks, best[1]) if pair[0] != pair[1]]
    if not wrong:
        return f"{json.dumps(blocks)[:500]} is not whole in {json.dumps(there)[:500]}"
    return f"{json.dumps(wrong[0][0])[:500]} is {json.dumps(wrong[0][1])[:500]}"


def anthropic_return(blocks, body):
    return run_of(blocks, [block for message in body["messages"] for block in text_content(message["content"])])


def chat_return(blocks, body):
    def known(message):
        message = without_empty_text(message)
        # Anthropic's interface has refusals among its texts.
        refusal = message.pop("refusal", "")
        message["content"] = message.get("content", "") or refusal
        for call in message.get("tool_calls", []):
            # Through a door where arguments are a value, their blanks are not kept.
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
        return message
    own = json.loads(json.dumps(blocks))
    there = json.loads(json.dumps(body["messages"]))
    return run_of([known(message) for message in own],
                  [known(message) for message in there if message["role"] == "assistant"])


def responses_return(blocks, body):
    """Which item a text is of is told by its phase alone; ids of items are the door's."""
    def known(items):
        found = []
        for item in items:
            if item["type"] == "function_call":
                value = json.loads(item["arguments"])
                item = {"type": "function_call", "call_id": item["call_id"], "name": item["name"], "arguments": value}
                found.append(item)
            elif item["type"] == "message":
                content = item["content"]
                content = [{"type": "input_text", "text": content}] if isinstance(content, str) else content
                for number, part in enumerate(content):
                    part = without_empty(part)
                    if "phase" in item and number == 0:
                        part["phase"] = item["phase"]
                    found.append(as_text(part) if item["role"] == "assistant" else part)
            else:
                found.append(item)
        return found
    return run_of(known(blocks), known(body["input"]))


def as_text(part):
    """Anthropic's interface has refusals among its texts."""
    if part.get("type") == "refusal":
        text = {name: value for name, value in part.items() if name != "refusal"}
        return {**text, "type": "output_text", "text": part["refusal"]}
    return part


def gemini_return(blocks, body):
    def known(part):
        if "functionCall" in part:
            call = {name: value for name, value in part["functionCall"].items() if name != "id"}
            part = {**part, "functionCall": call}
            # What says that there is no mark.
            if part.get("thoughtSignature") == "skip_thought_signature_validator":
                del part["thoughtSignature"]
        return part
    there = [known(part) for message in body["contents"] if message["role"] == "model"
             for part in message["parts"]]
    return run_of([known(part) for part in blocks], there)


def interactions_return(blocks, body):
    return run_of(blocks, body["input"])


def ollama_return(blocks, body):
    def known(message):
        message = without_empty_text(message)
        if "tool_calls" in message:
            message["tool_calls"] = [{"function": call["function"]} for call in message["tool_calls"]]
        return message
    there = [known(message) for message in body["messages"] if message["role"] == "assistant"]
    return run_of([known(message) for message in blocks], there)


RETURNS = {
    "anthropic": anthropic_return, "openai_chat": chat_return, "openai_responses": responses_return,
    "gemini": gemini_return, "gemini_interactions": interactions_return, "ollama": ollama_return,
}

if __name__ == "__main__":
    main()
