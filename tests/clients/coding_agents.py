"""Claude Code and Codex, with their own defaults, do a turn with a tool through the front doors.

    coding_agents.py CONVERGIO CLIENTS

CLIENTS is a folder in which `npm install` has put both. Loopback only; ends 1 when something is not as it should be."""

import json
import os
import subprocess
import sys
import tempfile

from mock import Upstream
from server import start


def run(command, env, folder):
    done = subprocess.run(
        command,
        env={**os.environ, **env},
        cwd=folder,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=180,
    )
    return done.returncode, done.stdout + done.stderr


def claude(clients, server, folder, model):
    env = {
        "HOME": folder,
        "ANTHROPIC_BASE_URL": f"{server.url}/anthropic",
        "ANTHROPIC_AUTH_TOKEN": server.token,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "ANTHROPIC_SMALL_FAST_MODEL": model,
    }
    command = [
        f"{clients}/node_modules/.bin/claude",
        "-p",
        "Read note.txt and say what it says.",
        "--model",
        model,
        "--allowedTools",
        "Read",
    ]
    return run(command, env, folder)


def codex(clients, server, folder, model):
    home = f"{folder}/.codex"
    os.makedirs(home, exist_ok=True)
    with open(f"{home}/config.toml", "w") as file:
        file.write(
            f'model = "{model}"\nmodel_provider = "convergio"\n\n[model_providers.convergio]\nname = "Convergio"\n'
            f'base_url = "{server.url}/openai/v1"\nenv_key = "CONVERGIO_TOKEN"\nwire_api = "responses"\n'
        )
    env = {"HOME": folder, "CODEX_HOME": home, "CONVERGIO_TOKEN": server.token}
    command = [
        f"{clients}/node_modules/.bin/codex",
        "exec",
        "--skip-git-repo-check",
        "--dangerously-bypass-approvals-and-sandbox",
        "Read note.txt and say what it says.",
    ]
    return run(command, env, folder)


def main():
    binary, clients = map(os.path.abspath, sys.argv[1:3])
    folder = tempfile.mkdtemp(prefix="convergio-agents-")
    note = f"{folder}/note.txt"
    with open(note, "w") as file:
        file.write("a note\n")
    upstream = Upstream(note)
    server = start(binary, f"{folder}/data", upstream)
    passed = failed = 0
    try:
        for name, agent, model in (
            ("Claude Code over Anthropic", claude, "anthropic/claude-sonnet-4-6"),
            ("Claude Code over OpenAI", claude, "chat/gpt-5"),
            ("Codex over responses", codex, "native/gpt-5"),
            ("Codex over chat completions", codex, "chat/gpt-5"),
            ("Codex over Anthropic", codex, "anthropic/claude-sonnet-4-6"),
        ):
            before = len(upstream.requests)
            code, output = agent(clients, server, folder, model)
            asked = upstream.requests[before:]
            has_result = any("a note" in json.dumps(request["body"]) for request in asked)
            is_good = code == 0 and "The turn is done." in output and has_result
            passed, failed = passed + is_good, failed + (not is_good)
            print(
                f"{'OK  ' if is_good else 'FAIL'} {name}: {len(asked)} calls, exit {code}, the tool's answer "
                f"{'reached' if has_result else 'did not reach'} the model",
                flush=True,
            )
            if not is_good:
                print(output[-3000:], flush=True)
    finally:
        server.stop()
    print(f"RESULT {passed} {failed} 0")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
