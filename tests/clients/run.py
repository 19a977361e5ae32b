"""Runs the clients of others, as their users have them, and prints what passed.

    run.py CONVERGIO CLIENTS [NAME...]

CLIENTS is the folder that `scripts/clients.sh` fills; with names, only those clients run. A line `OWN` tells a failure
that is the client's own, with the reason. Loopback only; ends 1 when something failed."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

from mock import Upstream
from server import start

HERE = os.path.dirname(os.path.abspath(__file__))
LIMIT_SECONDS = 900

# What the table says, the environment, the script and its arguments.
CLIENTS = [
    ("Claude Code, Codex", "agents", "coding_agents.py", []),
    ("openai-python", "sdk", "openai_chat_test.py", []),
    ("openai-python, responses and the rest", "sdk", "openai_rest_test.py", []),
    ("anthropic-python", "sdk", "anthropic_test.py", []),
    ("langchain-tests: ChatOpenAI, ChatAnthropic", "langchain", "langchain_standard.py", []),
    ("litellm, default options", "litellm", "litellm_test.py", []),
    ("litellm with max_tokens", "litellm", "litellm_test.py", ["500"]),
    ("pydantic-ai", "pydantic-ai", "pydantic_ai_test.py", []),
    ("instructor", "instructor", "instructor_test.py", []),
    ("openai-agents", "openai-agents", "openai_agents_test.py", []),
    ("agent-framework", "agent-framework", "agent_framework_test.py", []),
    ("smolagents", "smolagents", "smolagents_test.py", []),
    ("llama-index-llms-openai-like", "llama-index", "llama_index_test.py", []),
    ("openai-node", "sdk-node", "openai_test.mjs", []),
    ("@anthropic-ai/sdk", "sdk-node", "anthropic_test.mjs", []),
    ("Vercel ai 6", "vercel6", "vercel_test.mjs", []),
    ("Vercel ai 7", "vercel7", "vercel_test.mjs", []),
]


def command(clients, binary, place, script, arguments):
    folder = f"{clients}/{place}"
    if script == "coding_agents.py":
        return [sys.executable, f"{HERE}/{script}", binary, folder]
    if script.endswith(".mjs"):
        # Node looks for packages beside the script.
        for file in (script, "checks.mjs"):
            shutil.copy(f"{HERE}/{file}", folder)
        return ["node", f"{folder}/{script}", *arguments]
    return [f"{folder}/bin/python", f"{HERE}/{script}", *arguments]


def environment(server, upstream, folder):
    """No setting of whoever runs this, and nothing but loopback."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    dead = "http://127.0.0.1:9"
    return {
        **kept,
        "HOME": folder,
        "TMPDIR": folder,
        "CONVERGIO_URL": server.url,
        "CONVERGIO_TOKEN": server.token,
        "MOCK_URL": upstream.url,
        "HTTP_PROXY": dead,
        "HTTPS_PROXY": dead,
        "NO_PROXY": "127.0.0.1,localhost",
        "PYTHONDONTWRITEBYTECODE": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "OPENAI_AGENTS_DISABLE_TRACING": "1",
        "LANGSMITH_TRACING": "false",
    }


def main():
    binary, clients = map(os.path.abspath, sys.argv[1:3])
    names = sys.argv[3:]
    folder = tempfile.mkdtemp(prefix="convergio-clients-")
    upstream = Upstream(f"{folder}/note.txt")
    server = start(binary, f"{folder}/data", upstream)
    rows = []
    try:
        for title, place, script, arguments in CLIENTS:
            if names and not {place, script, title} & set(names):
                continue
            print(f"== {title}", flush=True)
            began = time.monotonic()
            done = subprocess.run(
                command(clients, binary, place, script, arguments),
                cwd=folder,
                text=True,
                env=environment(server, upstream, folder),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=LIMIT_SECONDS,
            )
            found = re.search(r"^RESULT (\d+) (\d+) (\d+)$", done.stdout, re.M)
            lines = [
                line
                for line in done.stdout.splitlines()
                if line.startswith(("FAIL", "OWN", "SLOW"))
            ]
            print("\n".join(lines) if found else done.stdout[-4000:], flush=True)
            passed, failed, own = map(int, found.groups()) if found else (0, 1, 0)
            rows.append((title, passed, failed, own, time.monotonic() - began))
    finally:
        server.stop()
    width = max((len(row[0]) for row in rows), default=0)
    print(f"\n{'client':{width}} | passed | failed | its own | seconds")
    for title, passed, failed, own, seconds in rows:
        print(f"{title:{width}} | {passed:6} | {failed:6} | {own:7} | {seconds:7.0f}")
    shutil.rmtree(folder, ignore_errors=True)
    sys.exit(any(row[2] for row in rows) or not rows)


if __name__ == "__main__":
    main()
