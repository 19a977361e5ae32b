"""An upstream on loopback with the wires of Anthropic's messages, OpenAI's chat completions and OpenAI's responses.

It asks for a tool once, when the request offers one that it knows, and answers with a text after the tool has
answered. Every request is kept in `requests`, for checks of what reached the provider."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Tools of coding agents, with arguments that touch one file. The first one that is offered is asked for.
CODING_TOOLS = ["Read", "Bash", "exec_command", "shell", "shell_command", "get_weather"]


def arguments_of(tool, file):
    return {
        "Read": {"file_path": file},
        "Bash": {"command": f"cat {file}", "description": "Shows the file"},
        "exec_command": {"cmd": f"cat {file}"},
        "shell": {"command": ["cat", file]},
        "shell_command": {"command": f"cat {file}"},
        "get_weather": {"city": "Rome"},
    }[tool]


class Upstream:
    """A server; `file` is what the tools are led to."""

    def __init__(self, file):
        self.file, self.requests = file, []
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                upstream.requests.append({"path": self.path, "headers": dict(self.headers), "body": body})
                if self.path.endswith("/messages"):
                    events = anthropic(body, upstream.file)
                elif self.path.endswith("/responses"):
                    events = responses(body, upstream.file)
                else:
                    events = chat(body, upstream.file)
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("connection", "close")
                self.end_headers()
                for name, data in events:
                    head = f"event: {name}\n" if name else ""
                    text = data if isinstance(data, str) else json.dumps(data)
                    self.wfile.write(f"{head}data: {text}\n\n".encode())
                    self.wfile.flush()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def offered(tools):
    names = [tool.get("name") or tool.get("function", {}).get("name") for tool in tools or []]
    return next((name for name in CODING_TOOLS if name in names), None)


def anthropic(body, file):
    blocks = [b for m in body["messages"] if isinstance(m["content"], list) for b in m["content"]]
    tool = None if any(b["type"] == "tool_result" for b in blocks) else offered(body.get("tools"))
    start = {"id": "msg_1", "type": "message", "role": "assistant", "model": body["model"], "content": [],
             "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 50, "output_tokens": 1}}
    yield "message_start", {"type": "message_start", "message": start}
    at = 0
    if body.get("thinking", {}).get("type") in ("enabled", "adaptive"):
        block = {"type": "thinking", "thinking": "", "signature": ""}
        yield "content_block_start", {"type": "content_block_start", "index": 0, "content_block": block}
        for delta in ({"type": "thinking_delta", "thinking": "I look."}, {"type": "signature_delta", "signature": "SIG"}):
            yield "content_block_delta", {"type": "content_block_delta", "index": 0, "delta": delta}
        yield "content_block_stop", {"type": "content_block_stop", "index": 0}
        at = 1
    if tool:
        block = {"type": "tool_use", "id": "toolu_1", "name": tool, "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(arguments_of(tool, file))}
    else:
        block = {"type": "text", "text": ""}
        delta = {"type": "text_delta", "text": "The turn is done."}
    yield "content_block_start", {"type": "content_block_start", "index": at, "content_block": block}
    yield "content_block_delta", {"type": "content_block_delta", "index": at, "delta": delta}
    yield "content_block_stop", {"type": "content_block_stop", "index": at}
    stop = {"stop_reason": "tool_use" if tool else "end_turn", "stop_sequence": None}
    yield "message_delta", {"type": "message_delta", "delta": stop, "usage": {"output_tokens": 9}}
    yield "message_stop", {"type": "message_stop"}


def chat(body, file):
    tool = None if any(m["role"] == "tool" for m in body["messages"]) else offered(body.get("tools"))

    def chunk(delta, finish=None):
        return None, {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": body["model"],
                      "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    if tool:
        function = {"name": tool, "arguments": json.dumps(arguments_of(tool, file))}
        yield chunk({"role": "assistant", "tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": function}]})
    else:
        yield chunk({"role": "assistant", "content": "The turn is done."})
    yield chunk({}, "tool_calls" if tool else "stop")
    usage = {"prompt_tokens": 50, "completion_tokens": 9, "total_tokens": 59}
    yield None, {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": body["model"], "choices": [], "usage": usage}
    yield None, "[DONE]"


def responses(body, file):
    items = body["input"] if isinstance(body["input"], list) else []
    tool = None if any(i.get("type") == "function_call_output" for i in items) else offered(body.get("tools"))
    if tool:
        item = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": tool, "status": "completed",
                "arguments": json.dumps(arguments_of(tool, file))}
    else:
        part = {"type": "output_text", "text": "The turn is done.", "annotations": []}
        item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}
    response = {"id": "resp_1", "object": "response", "created_at": 1, "model": body["model"], "status": "in_progress", "output": []}
    yield "response.created", {"type": "response.created", "response": response}
    yield "response.output_item.added", {"type": "response.output_item.added", "output_index": 0, "item": {**item, "status": "in_progress"}}
    if not tool:
        yield "response.output_text.delta", {"type": "response.output_text.delta", "item_id": "msg_1", "output_index": 0,
                                             "content_index": 0, "delta": "The turn is done."}
    yield "response.output_item.done", {"type": "response.output_item.done", "output_index": 0, "item": item}
    usage = {"input_tokens": 50, "output_tokens": 9, "total_tokens": 59}
    yield "response.completed", {"type": "response.completed", "response": {**response, "status": "completed", "output": [item], "usage": usage}}
