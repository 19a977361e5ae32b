"""A server in front of upstreams of all six interfaces on loopback, and calls at its three doors.

Calls that are under way at a time ask for different models: by its name an upstream knows what to
answer, and a test what was asked."""

import http.client
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DIALECTS = ["openai_chat", "openai_responses", "anthropic", "gemini", "gemini_interactions", "ollama"]
PATHS = {
    "openai_chat": "/openai/v1/chat/completions",
    "openai_responses": "/openai/v1/responses",
    "anthropic": "/anthropic/v1/messages",
}
LEFT_OUT = "x-convergio-left-out"
WORKERS = 8
MODELS = [f"m{number}" for number in range(2 * WORKERS)]
# Models that answer whole.
WHOLE = "whole-"


def data_lines(pieces, is_named=False):
    """Pieces as server-sent events."""
    lines = []
    for piece in pieces:
        text = piece if isinstance(piece, str) else json.dumps(piece, ensure_ascii=False)
        head = f"event: {piece['type']}\n" if is_named else ""
        lines.append(f"{head}data: {text}\n\n")
    return "".join(lines).encode()


def usual_answer(dialect):
    """One text, as a stream."""
    if dialect == "anthropic":
        message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [],
                   "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 9, "output_tokens": 1}}
        return data_lines([
            {"type": "message_start", "message": message},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "ok"}},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None},
             "usage": {"output_tokens": 2}},
            {"type": "message_stop"},
        ], True)
    if dialect == "openai_responses":
        part = {"type": "output_text", "text": "ok", "annotations": []}
        item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}
        usage = {"input_tokens": 9, "output_tokens": 2, "total_tokens": 11}
        response = {"id": "resp_1", "object": "response", "model": "m", "status": "completed",
                    "output": [item], "usage": usage}
        return data_lines([
            {"type": "response.output_item.added", "output_index": 0, "item": {**item, "content": []}},
            {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "ok"},
            {"type": "response.output_item.done", "output_index": 0, "item": item},
            {"type": "response.completed", "response": response},
        ], True)
    if dialect == "gemini":
        part = {"role": "model", "parts": [{"text": "ok"}]}
        usage = {"promptTokenCount": 9, "candidatesTokenCount": 2, "totalTokenCount": 11}
        return data_lines([{"candidates": [{"content": part, "finishReason": "STOP", "index": 0}],
                            "usageMetadata": usage, "modelVersion": "m"}])
    if dialect == "gemini_interactions":
        usage = {"total_input_tokens": 9, "total_output_tokens": 2, "total_tokens": 11}
        return data_lines([
            {"event_type": "step.start", "index": 0, "step": {"type": "model_output", "content": []}},
            {"event_type": "step.delta", "index": 0, "delta": {"type": "text", "text": "ok"}},
            {"event_type": "step.stop", "index": 0},
            {"event_type": "interaction.completed",
             "interaction": {"model": "m", "status": "completed", "usage": usage}},
        ])
    if dialect == "ollama":
        line = {"model": "m", "message": {"role": "assistant", "content": "ok"}, "done": True,
                "done_reason": "stop", "prompt_eval_count": 9, "eval_count": 2}
        return json.dumps(line).encode() + b"\n"
    choice = {"index": 0, "delta": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
    return data_lines([{"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice]},
                       {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [],
                        "usage": usage}, "[DONE]"])


class Upstream:
    """Six model servers in one, each below the name of its interface."""

    def __init__(self):
        self.requests, self.answers, self.lock = {}, {}, threading.Lock()
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Head and body go out together.
            wbufsize = -1
            disable_nagle_algorithm = True

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                _, dialect, rest = self.path.split("/", 2)
                model = body.get("model") or rest.rsplit("/", 1)[1].split(":")[0]
                with upstream.lock:
                    headers = {name.lower(): value for name, value in self.headers.items()}
                    upstream.requests[model] = {"dialect": dialect, "body": body, "headers": headers}
                    answer = upstream.answers.get(model)
                answer = usual_answer(dialect) if answer is None else answer
                kind = "application/x-ndjson" if dialect == "ollama" else "text/event-stream"
                kind = "application/json" if model.startswith(WHOLE) else kind
                self.send_response(200)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)
                self.wfile.flush()

            def do_GET(self):
                self.send_response(404)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, model):
        """What this model was asked, once."""
        with self.lock:
            self.answers.pop(model, None)
            return self.requests.pop(model, None)


class Reply:
    """What a door answered."""

    def __init__(self, status, headers, raw):
        self.status, self.raw = status, raw
        self.headers = {name.lower(): value for name, value in headers}
        names = self.headers.get(LEFT_OUT, "")
        # A stream whose head was too early has the same as a comment.
        for line in raw.decode(errors="replace").split("\n"):
            if line.startswith(f": {LEFT_OUT}"):
                names = line.split(":", 2)[2]
        self.left_out = {name.strip() for name in names.split(",") if name.strip()}

    @property
    def body(self):
        return json.loads(self.raw)

    @property
    def events(self):
        lines = self.raw.decode().split("\n")
        data = [line[6:] for line in lines if line.startswith("data: ")]
        return [json.loads(line) for line in data if line != "[DONE]"]


class Server:
    """The real binary, with one provider for each interface."""

    def __init__(self, upstream):
        binary = os.environ["CONVERGIO_BIN"]
        self.folder = tempfile.TemporaryDirectory(prefix="convergio-doors-")
        data = f"{self.folder.name}/data"
        models = [{"id": model} for model in MODELS]
        models += [{"id": WHOLE + model, "traits": {"streams": False}} for model in MODELS]
        providers = [{"name": name, "api": name, "base_url": f"{upstream.url}/{name}", "models": models} for name in DIALECTS]
        os.makedirs(data, mode=0o700)
        with open(f"{data}/providers.json", "w") as file:
            json.dump(providers, file)
        env = {**os.environ, "HOME": data, "NO_PROXY": "127.0.0.1"}
        trust = subprocess.run([binary, "--data", data, "trust", data], env=env, capture_output=True, text=True)
        if trust.returncode:
            sys.exit(f"the folder cannot be trusted: {trust.stderr}")
        self.log = f"{data}/server.log"
        command = [binary, "--data", data, "serve", "--listen", "127.0.0.1:0", "--json"]
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=log)
        line = self.process.stdout.readline()
        if not line:
            sys.exit(open(self.log).read())
        self.address = json.loads(line)["url"].removeprefix("http://")
        with open(f"{data}/token") as file:
            self.token = file.read().strip()
        self.local = threading.local()
        self.upstream, self.models = upstream, queue.SimpleQueue()
        for model in MODELS:
            self.models.put(model)

    def ask(self, door, dialect, body, headers=(), answer=None, is_whole=False):
        """A call at a door, and the request that reached the provider, if one did."""
        slot = self.models.get()
        try:
            model = WHOLE + slot if is_whole else slot
            if answer is not None:
                self.upstream.answers[model] = answer
            reply = self.post(PATHS[door], {**body, "model": f"{dialect}/{model}"}, headers)
            asked = self.upstream.take(model)
            if asked:
                asked["body"].pop("model", None)
            return reply, asked
        finally:
            self.models.put(slot)

    def post(self, path, body, headers=()):
        head = {"authorization": f"Bearer {self.token}", "content-type": "application/json", **dict(headers)}
        text = json.dumps(body, ensure_ascii=False).encode()
        for attempt in range(2):
            connection = getattr(self.local, "connection", None)
            if connection is None:
                connection = self.local.connection = http.client.HTTPConnection(self.address, timeout=60)
            try:
                connection.request("POST", path, text, head)
                answer = connection.getresponse()
                return Reply(answer.status, answer.getheaders(), answer.read())
            except (http.client.HTTPException, OSError):
                # A connection that was kept may have been closed.
                connection.close()
                self.local.connection = None
                if attempt:
                    raise

    def stop(self):
        self.process.terminate()
        self.process.wait(30)
        self.folder.cleanup()


def each(work, cases):
    """The work for each case, several at a time, in the order of the cases."""
    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(work, cases))
