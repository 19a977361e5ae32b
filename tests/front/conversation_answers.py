"""Answers of several blocks in the words of the providers: as they go back, and as they are sent,
in a stream and whole."""

import json

from conversation_blocks import TOOLS
from doors import data_lines

USAGE = {
    "anthropic": {"input_tokens": 9, "output_tokens": 7},
    "openai_chat": {"prompt_tokens": 9, "completion_tokens": 7, "total_tokens": 16},
    "openai_responses": {"input_tokens": 9, "output_tokens": 7, "total_tokens": 16},
    "gemini": {"promptTokenCount": 9, "candidatesTokenCount": 7, "totalTokenCount": 16},
    "gemini_interactions": {"total_input_tokens": 9, "total_output_tokens": 7, "total_tokens": 16},
}


def answer(maker, dialect, is_stream):
    """The blocks of an answer, in the form in which they go back, and its bytes."""
    return globals()[f"answer_of_{dialect}"](maker, is_stream)


def kinds(maker, choices):
    """Kinds of blocks in an order, a text or a call among them at least."""
    found = maker.chance.choices(choices, k=maker.chance.randint(1, 5))
    if "text" not in found and "call" not in found:
        found.append(maker.chance.choice(["text", "call"]))
    return found


def answer_of_anthropic(maker, is_stream):
    blocks = []
    for kind in kinds(maker, ["thinking", "redacted", "text", "cited", "call", "call", "search"]):
        if kind == "thinking":
            blocks.append({"type": "thinking", "thinking": maker.chance.choice(["", maker.text()]),
                           "signature": maker.opaque()})
        elif kind == "redacted":
            blocks.append({"type": "redacted_thinking", "data": maker.opaque()})
        elif kind == "text":
            blocks.append({"type": "text", "text": maker.text()})
        elif kind == "cited":
            citations = [maker.anthropic_citation() for _ in range(maker.chance.randint(1, 2))]
            blocks.append({"type": "text", "text": maker.text(), "citations": citations})
        elif kind == "search":
            blocks += maker.anthropic_search()
        else:
            blocks.append({"type": "tool_use", "id": f"toolu_{maker.number()}x", "name": maker.chance.choice(TOOLS),
                           "input": maker.arguments()})
    stop = "tool_use" if any(block["type"] == "tool_use" for block in blocks) else "end_turn"
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [],
               "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 9, "output_tokens": 1}}
    if not is_stream:
        whole = {**message, "content": blocks, "stop_reason": stop, "usage": USAGE["anthropic"]}
        return blocks, json.dumps(whole).encode()
    events = [{"type": "message_start", "message": message}, {"type": "ping"}]
    for index, block in enumerate(blocks):
        start, deltas = anthropic_deltas(maker, block)
        events.append({"type": "content_block_start", "index": index, "content_block": start})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    events.append({"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None},
                   "usage": {"output_tokens": 7}})
    events.append({"type": "message_stop"})
    return blocks, data_lines(events, True)


def anthropic_deltas(maker, block):
    kind = block["type"]
    if kind == "text":
        deltas = [{"type": "text_delta", "text": piece} for piece in maker.split(block["text"])]
        cited = block.get("citations", [])
        deltas[1:1] = [{"type": "citations_delta", "citation": citation} for citation in cited]
        return {"type": "text", "text": ""} | ({"citations": []} if cited else {}), deltas
    if kind == "thinking":
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in maker.split(block["thinking"])]
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
        return {"type": "thinking", "thinking": "", "signature": ""}, deltas
    if kind in ("tool_use", "server_tool_use"):
        pieces = maker.split(json.dumps(block["input"])) if block["input"] else [""]
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
        return {**block, "input": {}}, deltas
    return block, []


def answer_of_openai_chat(maker, is_stream):
    message = {"role": "assistant", "content": None}
    found = kinds(maker, ["thinking", "text", "call", "call", "refusal", "details"])
    if "thinking" in found:
        message["reasoning_content"] = maker.text()
    if "text" in found:
        message["content"] = maker.text()
    if "refusal" in found and "text" not in found:
        message["refusal"] = maker.text()
    if "details" in found:
        message["reasoning_details"] = [{"type": "reasoning.encrypted", "data": maker.opaque(), "index": 0}]
    calls = [{"id": f"call_{maker.number()}x", "type": "function",
              "function": {"name": maker.chance.choice(TOOLS), "arguments": maker.arguments_text()}}
             for kind in found if kind == "call"]
    for call in calls:
        if maker.often(0.2):
            call["extra_content"] = {"google": {"thought_signature": maker.opaque()}}
    if calls:
        message["tool_calls"] = calls
    finish = "tool_calls" if calls else "stop"
    head = {"id": "c", "created": 1, "model": "m"}
    if not is_stream:
        choice = {"index": 0, "message": message, "finish_reason": finish}
        whole = {**head, "object": "chat.completion", "choices": [choice], "usage": USAGE["openai_chat"]}
        return [message], json.dumps(whole).encode()
    deltas = [{"role": "assistant", "content": ""}]
    deltas += [{"reasoning_content": piece} for piece in maker.split(message.get("reasoning_content", ""))]
    deltas += [{"content": piece} for piece in maker.split(message["content"] or "")]
    deltas += [{"refusal": piece} for piece in maker.split(message.get("refusal", ""))]
    if "reasoning_details" in message:
        deltas.append({"reasoning_details": message["reasoning_details"]})
    for index, call in enumerate(calls):
        function = call["function"]
        pieces = maker.split(function["arguments"])
        start = {**call, "index": index, "function": {**function, "arguments": ""}}
        deltas.append({"tool_calls": [start]})
        deltas += [{"tool_calls": [{"index": index, "function": {"arguments": piece}}]} for piece in pieces]
    chunks = [{**head, "object": "chat.completion.chunk",
               "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({**head, "object": "chat.completion.chunk",
                   "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    chunks.append({**head, "object": "chat.completion.chunk", "choices": [], "usage": USAGE["openai_chat"]})
    return [message], data_lines([*chunks, "[DONE]"])


def answer_of_openai_responses(maker, is_stream):
    items = []
    for kind in kinds(maker, ["thinking", "text", "text", "call", "call", "search"]):
        if kind == "thinking":
            items.append(maker.reasoning())
        elif kind == "text":
            items.append(maker.message())
        elif kind == "search":
            items.append({"type": "web_search_call", "id": f"ws_{maker.number()}", "status": "completed",
                          "action": {"type": "search", "query": maker.text()}})
        else:
            items.append({"type": "function_call", "id": f"fc_{maker.number()}", "call_id": f"call_{maker.number()}x",
                          "name": maker.chance.choice(TOOLS), "arguments": maker.arguments_text(),
                          "status": "completed"})
    response = {"id": "resp_1", "object": "response", "model": "m", "status": "completed", "output": items,
                "usage": USAGE["openai_responses"]}
    if not is_stream:
        return items, json.dumps(response).encode()
    events = [{"type": "response.created", "response": {**response, "status": "in_progress", "output": []}}]
    for index, item in enumerate(items):
        events += responses_events(maker, index, item)
    events.append({"type": "response.completed", "response": response})
    return items, data_lines(events, True)


def responses_events(maker, index, item):
    at = {"output_index": index, "item_id": item["id"]}
    events = []
    start = {**item, "status": "in_progress"}
    if item["type"] == "message":
        start["content"] = []
        (part,) = item["content"]
        events.append({"type": "response.content_part.added", **at, "content_index": 0,
                       "part": {**part, "text": ""}})
        name = "output_text" if part["type"] == "output_text" else "refusal"
        text = part.get("text", part.get("refusal"))
        events += [{"type": f"response.{name}.delta", **at, "content_index": 0, "delta": piece}
                   for piece in maker.split(text)]
    elif item["type"] == "function_call":
        start["arguments"] = ""
        events += [{"type": "response.function_call_arguments.delta", **at, "delta": piece}
                   for piece in maker.split(item["arguments"])]
    elif item["type"] == "reasoning":
        start |= {"summary": [], "encrypted_content": ""}
        for number, part in enumerate(item["summary"]):
            place = {**at, "summary_index": number}
            events.append({"type": "response.reasoning_summary_part.added", **place, "part": {**part, "text": ""}})
            events += [{"type": "response.reasoning_summary_text.delta", **place, "delta": piece}
                       for piece in maker.split(part["text"])]
    added = {"type": "response.output_item.added", "output_index": index, "item": start}
    return [added, *events, {"type": "response.output_item.done", "output_index": index, "item": item}]


def answer_of_gemini(maker, is_stream):
    parts = []
    for kind in kinds(maker, ["thinking", "text", "signed", "call", "call", "code", "picture"]):
        # Two texts, or two thoughts, in a row are one to their reader.
        last = parts[-1] if parts else {}
        if kind == "thinking" and not last.get("thought"):
            part = {"text": maker.text(), "thought": True}
            parts.append(part | ({"thoughtSignature": maker.opaque()} if maker.often(0.3) else {}))
        elif kind == "text" and not ("text" in last and "thought" not in last):
            parts.append({"text": maker.text()})
        elif kind == "signed":
            parts.append({"text": maker.text(), "thoughtSignature": maker.opaque()})
        elif kind == "code":
            parts.append({"executableCode": {"language": "PYTHON", "code": maker.text()}})
        elif kind == "picture":
            parts.append({"inlineData": {"mimeType": "image/png", "data": maker.bytes()}})
        elif kind == "call":
            call = {"name": maker.chance.choice(TOOLS), "args": maker.arguments()}
            if maker.often(0.5):
                call["id"] = f"g{maker.number()}"
            signed = {"thoughtSignature": maker.opaque()} if maker.often(0.5) else {}
            parts.append({"functionCall": call, **signed})
    if not parts:
        parts.append({"text": maker.text()})
    groups = [parts]
    if is_stream:
        groups = [[piece] for part in parts for piece in gemini_pieces(maker, part)]
    chunks = [{"candidates": [{"content": {"role": "model", "parts": group}, "index": 0}], "modelVersion": "m"}
              for group in groups]
    chunks[-1]["candidates"][0]["finishReason"] = "STOP"
    chunks[-1]["usageMetadata"] = USAGE["gemini"]
    if is_stream:
        return parts, data_lines(chunks)
    return parts, json.dumps(chunks[0]).encode()


def gemini_pieces(maker, part):
    """Only a part without a mark comes in pieces."""
    if "text" not in part or "thoughtSignature" in part:
        return [part]
    return [{**part, "text": piece} for piece in maker.split(part["text"])]


def answer_of_gemini_interactions(maker, is_stream):
    steps = []
    for kind in kinds(maker, ["thinking", "text", "call", "call", "search"]):
        if kind == "thinking":
            step = {"type": "thought", "signature": maker.opaque()}
            if maker.often(0.7):
                step["summary"] = [{"type": "text", "text": maker.text()}]
            steps.append(step)
        elif kind == "text" and not (steps and steps[-1]["type"] == "model_output"):
            steps.append({"type": "model_output", "content": [{"type": "text", "text": maker.text()}]})
        elif kind == "search":
            steps.append({"type": "google_search_call", "id": f"s{maker.number()}", "signature": maker.opaque(),
                          "arguments": {"queries": [maker.text()]}})
        elif kind == "call":
            step = {"type": "function_call", "id": f"call_{maker.number()}x", "name": maker.chance.choice(TOOLS),
                    "arguments": maker.arguments()}
            steps.append(step | ({"signature": maker.opaque()} if maker.often(0.5) else {}))
    status = "requires_action" if any(step["type"] == "function_call" for step in steps) else "completed"
    whole = {"id": "i", "model": "m", "status": status, "usage": USAGE["gemini_interactions"]}
    if not is_stream:
        return steps, json.dumps({**whole, "steps": steps}).encode()
    events = [{"event_type": "interaction.created", "interaction": {"id": "i", "model": "m"}}]
    for index, step in enumerate(steps):
        start, deltas = interactions_deltas(maker, step)
        events.append({"event_type": "step.start", "index": index, "step": start})
        events += [{"event_type": "step.delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"event_type": "step.stop", "index": index})
    events.append({"event_type": "interaction.completed", "interaction": whole})
    return steps, data_lines(events)


def interactions_deltas(maker, step):
    if step["type"] == "model_output":
        (part,) = step["content"]
        return {"type": "model_output"}, [{"type": "text", "text": piece} for piece in maker.split(part["text"])]
    if step["type"] == "thought":
        deltas = [{"type": "thought_summary", "content": {"type": "text", "text": piece}}
                  for part in step.get("summary", []) for piece in maker.split(part["text"])]
        return {"type": "thought"}, [*deltas, {"type": "thought_signature", "signature": step["signature"]}]
    if step["type"] == "function_call":
        pieces = maker.split(json.dumps(step["arguments"]))
        return {**step, "arguments": {}}, [{"type": "arguments_delta", "arguments": piece} for piece in pieces]
    return step, []


def answer_of_ollama(maker, is_stream):
    message = {"role": "assistant", "content": ""}
    found = kinds(maker, ["thinking", "text", "call", "call"])
    if "thinking" in found:
        message["thinking"] = maker.text()
    if "text" in found:
        message["content"] = maker.text()
    calls = [{"function": {"name": maker.chance.choice(TOOLS), "arguments": maker.arguments()}}
             for kind in found if kind == "call"]
    if calls:
        message["tool_calls"] = calls
    end = {"done": True, "done_reason": "stop", "prompt_eval_count": 9, "eval_count": 7}
    if not is_stream:
        return [message], json.dumps({"model": "m", "message": message, **end}).encode()
    pieces = [{"thinking": piece} for piece in maker.split(message.get("thinking", ""))]
    pieces += [{"content": piece} for piece in maker.split(message["content"])]
    pieces += [{"tool_calls": [call]} for call in calls]
    lines = [{"model": "m", "message": {"role": "assistant", "content": "", **piece}, "done": False}
             for piece in pieces]
    lines.append({"model": "m", "message": {"role": "assistant", "content": ""}, **end})
    return [message], b"".join(json.dumps(line).encode() + b"\n" for line in lines)
