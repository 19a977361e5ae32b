"""An answer as each interface tells it: whole, and as the events of a stream."""

import itertools
import json

IDS = itertools.count(1)
FINISH = {
    "stop": "stop",
    "calls": "tool_calls",
    "length": "length",
    "filter": "content_filter",
    "refusal": "stop",
}
STOP = {
    "stop": "end_turn",
    "calls": "tool_use",
    "length": "max_tokens",
    "filter": "refusal",
    "refusal": "refusal",
}


def pieces(text):
    """A text in two pieces, as streams have it."""
    middle = (len(text) + 1) // 2
    return [piece for piece in (text[:middle], text[middle:]) if piece]


def tokens(answer):
    return max(50, answer["size"] // 4)


# OpenAI's chat completions.


def chat_usage(answer):
    cached, thought = (20 if answer["is_cached"] else 0), (4 if answer["thought"] else 0)
    return {
        "prompt_tokens": tokens(answer),
        "completion_tokens": 9,
        "total_tokens": tokens(answer) + 9,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": thought,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def chat_calls(answer):
    return [
        {
            "id": f"call_{next(IDS)}",
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }
        for name, arguments in answer["calls"]
    ]


def chat_whole(body, answer):
    message = {"role": "assistant", "content": answer["text"] or None, "refusal": None}
    if answer["end"] == "refusal":
        message |= {"content": None, "refusal": answer["text"]}
    if answer["thought"]:
        message["reasoning_content"] = answer["thought"]
    if answer["calls"]:
        message["tool_calls"] = chat_calls(answer)
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": FINISH[answer["end"]],
    }
    return {
        "id": f"chatcmpl-{next(IDS)}",
        "object": "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": [choice],
        "usage": chat_usage(answer),
        "service_tier": "default",
        "system_fingerprint": "fp_1",
    }


def chat_events(body, answer):
    head = {
        "id": f"chatcmpl-{next(IDS)}",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": body["model"],
        "service_tier": "default",
        "system_fingerprint": "fp_1",
    }

    def chunk(delta, finish=None):
        return None, {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    yield chunk({"role": "assistant", "content": ""})
    for piece in pieces(answer["thought"]):
        yield chunk({"reasoning_content": piece})
    field = "refusal" if answer["end"] == "refusal" else "content"
    for piece in pieces(answer["text"]):
        yield chunk({field: piece})
    for at, call in enumerate(chat_calls(answer)):
        arguments = call["function"]["arguments"]
        function = {"name": call["function"]["name"], "arguments": ""}
        yield chunk({"tool_calls": [{"index": at, **call, "function": function}]})
        for piece in pieces(arguments):
            yield chunk({"tool_calls": [{"index": at, "function": {"arguments": piece}}]})
    yield chunk({}, FINISH[answer["end"]])
    yield None, {**head, "choices": [], "usage": chat_usage(answer)}
    yield None, "[DONE]"


# OpenAI's responses.


def items(answer):
    if answer["thought"]:
        yield {
            "type": "reasoning",
            "id": f"rs_{next(IDS)}",
            "encrypted_content": "SEALED",
            "summary": [{"type": "summary_text", "text": answer["thought"]}],
        }
    if answer["text"]:
        part = {"type": "output_text", "text": answer["text"], "annotations": [], "logprobs": []}
        if answer["end"] == "refusal":
            part = {"type": "refusal", "refusal": answer["text"]}
        yield {
            "type": "message",
            "id": f"msg_{next(IDS)}",
            "role": "assistant",
            "status": "completed",
            "content": [part],
        }
    for name, arguments in answer["calls"]:
        yield {
            "type": "function_call",
            "id": f"fc_{next(IDS)}",
            "call_id": f"call_{next(IDS)}",
            "name": name,
            "status": "completed",
            "arguments": arguments,
        }


def responses_whole(body, answer):
    why = {"length": "max_output_tokens", "filter": "content_filter"}.get(answer["end"])
    cached, thought = (20 if answer["is_cached"] else 0), (4 if answer["thought"] else 0)
    usage = {
        "input_tokens": tokens(answer),
        "output_tokens": 9,
        "total_tokens": tokens(answer) + 9,
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens_details": {"reasoning_tokens": thought},
    }
    return {
        "id": f"resp_{next(IDS)}",
        "object": "response",
        "created_at": 1,
        "model": body["model"],
        "status": "incomplete" if why else "completed",
        "incomplete_details": {"reason": why} if why else None,
        "error": None,
        "output": list(items(answer)),
        "usage": usage,
        "service_tier": "default",
    }


def item_events(at, item):
    """The events between an item's begin and its end."""
    place = {"item_id": item["id"], "output_index": at}
    if item["type"] == "reasoning":
        for index, part in enumerate(item["summary"]):
            here = {**place, "summary_index": index}
            empty = {"type": "summary_text", "text": ""}
            yield "response.reasoning_summary_part.added", {**here, "part": empty}
            for piece in pieces(part["text"]):
                yield "response.reasoning_summary_text.delta", {**here, "delta": piece}
            yield "response.reasoning_summary_text.done", {**here, "text": part["text"]}
            yield "response.reasoning_summary_part.done", {**here, "part": part}
    elif item["type"] == "message":
        part = item["content"][0]
        name, field = (
            ("refusal", "refusal") if part["type"] == "refusal" else ("output_text", "text")
        )
        here = {**place, "content_index": 0}
        yield "response.content_part.added", {**here, "part": {**part, field: ""}}
        for piece in pieces(part[field]):
            yield f"response.{name}.delta", {**here, "delta": piece}
        yield f"response.{name}.done", {**here, field: part[field]}
        yield "response.content_part.done", {**here, "part": part}
    else:
        for piece in pieces(item["arguments"]):
            yield "response.function_call_arguments.delta", {**place, "delta": piece}
        yield (
            "response.function_call_arguments.done",
            {**place, "arguments": item["arguments"], "name": item["name"]},
        )


def responses_events(body, answer):
    response = responses_whole(body, answer)
    begun = {
        **response,
        "status": "in_progress",
        "output": [],
        "usage": None,
        "incomplete_details": None,
    }
    numbers = itertools.count()

    def event(name, data):
        return name, {"type": name, "sequence_number": next(numbers), **data}

    yield event("response.created", {"response": begun})
    yield event("response.in_progress", {"response": begun})
    for at, item in enumerate(response["output"]):
        begin = {**item, "status": "in_progress"}
        begin |= {"content": []} if "content" in item else {}
        begin |= {"summary": []} if "summary" in item else {}
        begin |= {"arguments": ""} if "arguments" in item else {}
        yield event("response.output_item.added", {"output_index": at, "item": begin})
        for name, data in item_events(at, item):
            yield event(name, data)
        yield event("response.output_item.done", {"output_index": at, "item": item})
    yield event(f"response.{response['status']}", {"response": response})


# Anthropic's messages.


def anthropic_usage(answer):
    made, read = (30, 20) if answer["is_cached"] else (0, 0)
    return {
        "input_tokens": tokens(answer),
        "output_tokens": 9,
        "cache_creation_input_tokens": made,
        "cache_read_input_tokens": read,
        "service_tier": "standard",
        "cache_creation": {"ephemeral_5m_input_tokens": made, "ephemeral_1h_input_tokens": 0},
    }


def blocks(answer):
    if answer["thought"]:
        yield {"type": "thinking", "thinking": answer["thought"], "signature": "SIG"}
    if answer["text"]:
        yield {"type": "text", "text": answer["text"]}
    for name, arguments in answer["calls"]:
        yield {
            "type": "tool_use",
            "id": f"toolu_{next(IDS)}",
            "name": name,
            "input": json.loads(arguments or "{}"),
        }


def anthropic_whole(body, answer):
    return {
        "id": f"msg_{next(IDS)}",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": list(blocks(answer)),
        "stop_reason": STOP[answer["end"]],
        "stop_sequence": None,
        "usage": anthropic_usage(answer),
    }


def anthropic_events(body, answer):
    whole = anthropic_whole(body, answer)
    start = {
        **whole,
        "content": [],
        "stop_reason": None,
        "usage": {**whole["usage"], "output_tokens": 1},
    }
    yield "message_start", {"type": "message_start", "message": start}
    for at, block in enumerate(whole["content"]):
        deltas = []
        if block["type"] == "thinking":
            empty = {**block, "thinking": "", "signature": ""}
            deltas = [
                {"type": "thinking_delta", "thinking": piece} for piece in pieces(block["thinking"])
            ]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        elif block["type"] == "text":
            empty = {**block, "text": ""}
            deltas = [{"type": "text_delta", "text": piece} for piece in pieces(block["text"])]
        else:
            empty = {**block, "input": {}}
            # A tool without parameters has no piece at all.
            text = json.dumps(block["input"]) if block["input"] else ""
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces(text)]
        yield (
            "content_block_start",
            {"type": "content_block_start", "index": at, "content_block": empty},
        )
        for delta in deltas:
            yield (
                "content_block_delta",
                {"type": "content_block_delta", "index": at, "delta": delta},
            )
        yield "content_block_stop", {"type": "content_block_stop", "index": at}
    stop = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield "message_delta", {"type": "message_delta", "delta": stop, "usage": {"output_tokens": 9}}
    yield "message_stop", {"type": "message_stop"}


WHOLE = {"chat": chat_whole, "responses": responses_whole, "anthropic": anthropic_whole}
EVENTS = {"chat": chat_events, "responses": responses_events, "anthropic": anthropic_events}
