"""An upstream on loopback with the wires of OpenAI's chat completions, OpenAI's responses, Anthropic's messages,
embeddings, speech and transcriptions.

What it answers follows from the request. A tool that is offered is asked for once, with arguments that its schema
takes; a schema of the answer is kept; whoever asks for thoughts gets some. Words in double brackets in the last
message of the user steer it:

    [[say:TEXT]]          answers TEXT
    [[plain]]             calls no tool
    [[calls:N]]           calls the first N tools, or one of them N times
    [[bare]]              writes nothing as arguments of a call
    [[end:REASON]]        ends with length, filter or refusal
    [[fail:STATUS]]       refuses; [[fail:STATUS:once]] the first time that it is asked so
    [[pause:SECONDS]]     the refusal asks to wait so long
    [[break]]             the stream breaks off
    [[slow:SECONDS]]      waits before each piece

Every request is kept in `requests`, and told at `GET /requests?from=N`, for checks of what reached the provider."""

import base64
import json
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import wires
from prompt import Prompt, value_of

# Tools of coding agents, with arguments that touch one file. The first one that is offered is asked for.
CODING_TOOLS = ["Read", "Bash", "exec_command", "shell", "shell_command"]
TEXT = "The turn is done."
REFUSALS = {
    400: ("invalid_request_error", "invalid_request_error", "the request is wrong"),
    401: ("invalid_request_error", "authentication_error", "the key is wrong"),
    403: ("invalid_request_error", "permission_error", "not allowed"),
    404: ("invalid_request_error", "not_found_error", "there is no such thing"),
    413: ("invalid_request_error", "request_too_large", "the request is too large"),
    429: ("rate_limit_error", "rate_limit_error", "too many requests"),
    500: ("server_error", "api_error", "an error of the server"),
    503: ("server_error", "api_error", "not available"),
    529: ("server_error", "overloaded_error", "overloaded"),
}


def arguments_of(tool, file):
    return {
        "Read": {"file_path": file},
        "Bash": {"command": f"cat {file}", "description": "Shows the file"},
        "exec_command": {"cmd": f"cat {file}"},
        "shell": {"command": ["cat", file]},
        "shell_command": {"command": f"cat {file}"},
    }[tool]


def calls_of(prompt, file):
    """The calls that the answer has: pairs of a name and a text of arguments."""
    tools = [tool for tool in prompt.tools if tool["name"]]
    if not tools or prompt.choice == "none":
        return []
    if "plain" in prompt.words and prompt.choice == "auto":
        return []
    by_name = {tool["name"]: tool for tool in tools}
    if prompt.has_result:
        # An agent that ends by a tool of its own is led there.
        if "final_answer" in by_name and not prompt.has_final:
            return [("final_answer", json.dumps({"answer": TEXT}))]
        if prompt.choice == "auto":
            return []
    coding = next((name for name in CODING_TOOLS if name in by_name), None)
    if prompt.choice in by_name:
        chosen = [by_name[prompt.choice]]
    elif coding:
        return [(coding, json.dumps(arguments_of(coding, file)))]
    else:
        fresh = [tool for tool in tools if tool["name"] not in prompt.called]
        chosen = fresh or tools
    count = int(prompt.words.get("calls", "1")) if prompt.parallel else 1
    chosen = (chosen * count)[:count]
    if "bare" in prompt.words:
        return [(tool["name"], "") for tool in chosen]
    return [
        (tool["name"], json.dumps(value_of(tool["schema"], prompt.text), ensure_ascii=False))
        for tool in chosen
    ]


def answer_of(prompt, file):
    calls = calls_of(prompt, file)
    text = ""
    if prompt.schema is not None and not calls:
        text = json.dumps(value_of(prompt.schema, prompt.text), ensure_ascii=False)
    elif not calls:
        text = prompt.words.get("say", TEXT)
    end = prompt.words.get("end")
    if end == "refusal":
        text = "I will not."
    return {
        "text": text,
        "calls": calls,
        "end": end or ("calls" if calls else "stop"),
        "thought": "I think." if prompt.thinks else "",
        "is_cached": prompt.is_cached,
        "size": prompt.size,
    }


class Upstream:
    """A server; `file` is what the tools are led to."""

    def __init__(self, file):
        self.file, self.requests, self.seen, self.lock = file, [], set(), threading.Lock()
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                begin = int(self.path.rpartition("=")[2] or 0) if "=" in self.path else 0
                self.whole(200, upstream.requests[begin:])

            def do_POST(self):
                data = self.rfile.read(int(self.headers["content-length"]))
                is_json = "json" in self.headers.get("content-type", "")
                body = (
                    json.loads(data)
                    if is_json
                    else {"bytes": len(data), "form": data.decode("utf-8", "replace")[:4000]}
                )
                with upstream.lock:
                    upstream.requests.append(
                        {"path": self.path, "headers": dict(self.headers), "body": body}
                    )
                if self.path.endswith("/embeddings"):
                    return self.whole(200, embeddings(body))
                if self.path.endswith("/audio/speech"):
                    return self.raw(200, b"RIFF-a-sound", "audio/mpeg")
                if self.path.endswith("/audio/transcriptions"):
                    return self.whole(
                        200,
                        {
                            "text": "words of a recording",
                            "usage": {"type": "duration", "seconds": 2},
                        },
                    )
                self.chat(body)

            def chat(self, body):
                wire = (
                    "anthropic"
                    if self.path.endswith("/messages")
                    else ("responses" if self.path.endswith("/responses") else "chat")
                )
                prompt = Prompt(wire, body)
                status = upstream.failure(prompt)
                if status:
                    kind = REFUSALS[status][wire == "anthropic"]
                    error = {"type": kind, "message": REFUSALS[status][2]}
                    if wire != "anthropic":
                        error |= {
                            "code": "rate_limit_exceeded" if status == 429 else None,
                            "param": None,
                        }
                    pause = (
                        {"retry-after": prompt.words["pause"]} if "pause" in prompt.words else {}
                    )
                    return self.whole(status, {"type": "error", "error": error}, pause)
                answer = answer_of(prompt, upstream.file)
                if not body.get("stream"):
                    return self.whole(200, wires.WHOLE[wire](body, answer))
                self.stream(wires.EVENTS[wire](body, answer), prompt)

            def stream(self, events, prompt):
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("connection", "close")
                self.end_headers()
                events = list(events)
                if "break" in prompt.words:
                    events = events[: max(2, len(events) // 2)]
                for name, data in events:
                    time.sleep(float(prompt.words.get("slow", "0")))
                    head = f"event: {name}\n" if name else ""
                    text = data if isinstance(data, str) else json.dumps(data)
                    try:
                        self.wfile.write(f"{head}data: {text}\n\n".encode())
                        self.wfile.flush()
                    except OSError:
                        return

            def whole(self, status, value, more={}):
                self.raw(status, json.dumps(value).encode(), "application/json", more)

            def raw(self, status, data, kind, more={}):
                self.send_response(status)
                self.send_header("content-type", kind)
                for name, value in more.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def failure(self, prompt):
        """The status of a refusal that was asked for."""
        status, _, once = prompt.words.get("fail", "").partition(":")
        if not status or (once and prompt.text in self.seen):
            return None
        self.seen.add(prompt.text)
        return int(status)


def embeddings(body):
    texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
    length = body.get("dimensions") or 4
    vectors = [[float(len(text) % 7 + at) for at in range(length)] for text in texts]
    is_coded = body.get("encoding_format") == "base64"

    def told(vector):
        return (
            base64.b64encode(struct.pack(f"<{length}f", *vector)).decode() if is_coded else vector
        )

    data = [
        {"object": "embedding", "index": at, "embedding": told(vector)}
        for at, vector in enumerate(vectors)
    ]
    return {
        "object": "list",
        "data": data,
        "model": body["model"],
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    }
