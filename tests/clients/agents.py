"""Claude Code and Codex, with their own defaults, do a turn with a tool through the front doors.

    agents.py CONVERGIO CLIENTS

CLIENTS is a folder in which `npm install` has put both. Loopback only; ends 1 when something is not as it should be."""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request

from mock import Upstream

PORT = int(os.environ.get("CONVERGIO_PORT", "7980"))


def start(binary, data, upstream):
    providers = [
        {"name": "anthropic", "api": "anthropic", "base_url": f"{upstream.url}/v1",
         "models": [{"id": "claude-sonnet-4-6"}, {"id": "claude-haiku-4-5"}]},
        {"name": "openai", "base_url": f"{upstream.url}/v1", "models": [{"id": "gpt-5"}]},
        {"name": "native", "api": "openai_responses", "base_url": f"{upstream.url}/v1", "models": [{"id": "gpt-5"}]},
    ]
    os.makedirs(data, mode=0o700)
    with open(f"{data}/providers.json", "w") as file:
        json.dump(providers, file)
    env = {**os.environ, "HOME": data, "NO_COLOR": "1"}
    trust = subprocess.run([binary, "--data", data, "trust", data], env=env, capture_output=True, text=True)
    if trust.returncode:
        sys.exit(f"the folder cannot be trusted: {trust.stderr}")
    server = subprocess.Popen([binary, "--data", data, "serve", "--listen", f"127.0.0.1:{PORT}"], env=env,
                              stdout=open(f"{data}/server.log", "w"), stderr=subprocess.STDOUT)
    for _ in range(600):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{PORT}/readyz", timeout=1)
            break
        except OSError:
            if server.poll() is not None:
                sys.exit(open(f"{data}/server.log").read())
            time.sleep(0.1)
    token = open(f"{data}/token").read().strip()
    return server, token


def run(command, env, folder):
    done = subprocess.run(command, env={**os.environ, **env}, cwd=folder, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=180)
    return done.returncode, done.stdout + done.stderr


def claude(clients, token, folder, model):
    env = {"HOME": folder, "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{PORT}/anthropic", "ANTHROPIC_AUTH_TOKEN": token,
           "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1", "ANTHROPIC_SMALL_FAST_MODEL": model}
    command = [f"{clients}/node_modules/.bin/claude", "-p", "Read note.txt and say what it says.", "--model", model,
               "--allowedTools", "Read"]
    return run(command, env, folder)


def codex(clients, token, folder, model):
    home = f"{folder}/.codex"
    os.makedirs(home, exist_ok=True)
    with open(f"{home}/config.toml", "w") as file:
        file.write(f'model = "{model}"\nmodel_provider = "convergio"\n\n[model_providers.convergio]\nname = "Convergio"\n'
                   f'base_url = "http://127.0.0.1:{PORT}/openai/v1"\nenv_key = "CONVERGIO_TOKEN"\nwire_api = "responses"\n')
    env = {"HOME": folder, "CODEX_HOME": home, "CONVERGIO_TOKEN": token}
    command = [f"{clients}/node_modules/.bin/codex", "exec", "--skip-git-repo-check",
               "--dangerously-bypass-approvals-and-sandbox", "Read note.txt and say what it says."]
    return run(command, env, folder)


def main():
    binary, clients = map(os.path.abspath, sys.argv[1:3])
    folder = tempfile.mkdtemp(prefix="convergio-agents-")
    note = f"{folder}/note.txt"
    with open(note, "w") as file:
        file.write("a note\n")
    upstream = Upstream(note)
    server, token = start(binary, f"{folder}/data", upstream)
    failed = False
    try:
        for name, agent, model in (
            ("Claude Code over Anthropic", claude, "anthropic/claude-sonnet-4-6"),
            ("Claude Code over OpenAI", claude, "openai/gpt-5"),
            ("Codex over responses", codex, "native/gpt-5"),
            ("Codex over chat completions", codex, "openai/gpt-5"),
            ("Codex over Anthropic", codex, "anthropic/claude-sonnet-4-6"),
        ):
            before = len(upstream.requests)
            code, output = agent(clients, token, folder, model)
            asked = upstream.requests[before:]
            has_result = any("a note" in json.dumps(request["body"]) for request in asked)
            is_good = code == 0 and "The turn is done." in output and has_result
            failed |= not is_good
            print(f"{'OK  ' if is_good else 'FAIL'} {name}: {len(asked)} calls, exit {code}, the tool's answer "
                  f"{'reached' if has_result else 'did not reach'} the model", flush=True)
            if not is_good:
                print(output[-3000:], flush=True)
    finally:
        server.terminate()
        server.wait(30)
    sys.exit(failed)


if __name__ == "__main__":
    main()
