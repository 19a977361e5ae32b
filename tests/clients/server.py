"""A server of Convergio before an upstream that is not real."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request


class Server:
    def __init__(self, process, url, token):
        self.process, self.url, self.token = process, url, token

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


def providers(upstream):
    base = f"{upstream.url}/v1"
    gpt = [{"id": name} for name in ("gpt-5", "text-embedding-3-small", "tts-1", "whisper-1")]
    claude = [{"id": "claude-sonnet-4-6"}, {"id": "claude-haiku-4-5"}]
    # A provider that fails is left alone for a while: each kind of failure has one of its own.
    faulty = [
        {"name": f"{kind}-{name}", "api": api, "base_url": base, "models": [models[0]]}
        for kind in ("limited", "faulty", "passing")
        for name, api, models in (("chat", "openai_chat", gpt), ("anthropic", "anthropic", claude))
    ]
    return [
        *faulty,
        {"name": "chat", "base_url": base, "models": gpt},
        {
            "name": "native",
            "api": "openai_responses",
            "base_url": base,
            "models": [{"id": "gpt-5"}],
        },
        {"name": "anthropic", "api": "anthropic", "base_url": base, "models": claude},
        {
            "name": "first-anthropic",
            "api": "anthropic",
            "api_version": "2023-06-01",
            "base_url": base,
            "models": claude[:1],
        },
    ]


def free_port():
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


def start(binary, data, upstream):
    os.makedirs(data, mode=0o700)
    with open(f"{data}/providers.json", "w") as file:
        json.dump(providers(upstream), file)
    env = {"PATH": os.environ["PATH"], "HOME": data, "NO_COLOR": "1"}
    trust = subprocess.run(
        [binary, "--data", data, "trust", data], env=env, capture_output=True, text=True
    )
    if trust.returncode:
        sys.exit(f"the folder cannot be trusted: {trust.stderr}")
    url = f"http://127.0.0.1:{free_port()}"
    command = [binary, "--data", data, "serve", "--listen", url.removeprefix("http://")]
    process = subprocess.Popen(
        command, env=env, stdout=open(f"{data}/server.log", "w"), stderr=subprocess.STDOUT
    )
    for _ in range(600):
        try:
            urllib.request.urlopen(f"{url}/readyz", timeout=1)
            break
        except OSError:
            if process.poll() is not None:
                sys.exit(open(f"{data}/server.log").read())
            time.sleep(0.1)
    return Server(process, url, open(f"{data}/token").read().strip())
