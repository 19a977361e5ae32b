"""What the scripts of the clients share: checks that count, and what reached the provider."""

import asyncio
import inspect
import json
import os
import sys
import time
import traceback
import urllib.error
import urllib.request

URL, TOKEN, MOCK = (
    os.environ.get(name, "") for name in ("CONVERGIO_URL", "CONVERGIO_TOKEN", "MOCK_URL")
)
OPENAI, ANTHROPIC = f"{URL}/openai/v1", f"{URL}/anthropic"
CHAT, NATIVE, CLAUDE = "chat/gpt-5", "native/gpt-5", "anthropic/claude-sonnet-4-6"
# Providers of which one is only asked what fails.
LIMITED, FAULTY, PASSING = "limited-chat/gpt-5", "faulty-chat/gpt-5", "passing-chat/gpt-5"
LIMITED_CLAUDE, FAULTY_CLAUDE, PASSING_CLAUDE = (
    f"{kind}-{CLAUDE}" for kind in ("limited", "faulty", "passing")
)
TEXT = "The turn is done."
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PDF = "JVBERi0xLjEKMSAwIG9iago8PC9UeXBlL0NhdGFsb2c+PgplbmRvYmoKdHJhaWxlcgo8PC9Sb290IDEgMCBSPj4KJSVFT0YK"

counts = {"passed": 0, "failed": 0, "own": 0}
begin = 0
# One for all checks: clients keep their connections.
loop = asyncio.Runner()


def requests(place=0):
    with urllib.request.urlopen(f"{MOCK}/requests?from={place}") as answer:
        return json.load(answer)


def sent():
    """The bodies that reached the provider since the check began."""
    return [request["body"] for request in requests(begin)]


def sent_headers():
    return [
        {name.lower(): value for name, value in request["headers"].items()}
        for request in requests(begin)
    ]


def put(path):
    """The status and the body of a call with a method that no endpoint has."""
    request = urllib.request.Request(
        f"{URL}{path}", b"{}", {"authorization": f"Bearer {TOKEN}"}, method="PUT"
    )
    try:
        urllib.request.urlopen(request)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
    raise AssertionError("it was taken")


def check(name, own=None):
    """Runs what it stands before. `own` says why a failure is the client's own fault."""

    def run(function):
        global begin
        begin, clock = len(requests()), time.monotonic()
        try:
            if inspect.iscoroutinefunction(function):
                loop.run(function())
            else:
                function()
            counts["passed"] += 1
        except Exception as error:  # a check may fail by anything
            lines = traceback.format_exception_only(error)
            places = [
                f"line {frame.lineno}"
                for frame in traceback.extract_tb(error.__traceback__)
                if os.path.basename(frame.filename) == os.path.basename(sys.argv[0])
            ]
            why = " ".join("".join(lines).split())[:600]
            if own:
                counts["own"] += 1
                print(f"OWN  {name}: {own} ({why[:160]})", flush=True)
            else:
                counts["failed"] += 1
                print(f"FAIL {name}: {why} ({', '.join(places)})", flush=True)
        if time.monotonic() - clock > 5:
            print(f"SLOW {name}: {time.monotonic() - clock:.0f} s", flush=True)
        return function

    return run


def each(names):
    """The checks of a table: `(name, value)` pairs or a dict."""
    return names.items() if isinstance(names, dict) else names


def raises(kind, function, **fields):
    """That the call fails so, with these fields of the error."""
    try:
        function()
    except kind as error:
        for field, value in fields.items():
            found = getattr(error, field)
            assert found == value, f"{field} is {found!r}, not {value!r}: {error}"
        return error
    raise AssertionError(f"no {kind.__name__}")


def equal(found, right):
    assert found == right, f"{found!r} is not {right!r}"


def finish():
    print(f"RESULT {counts['passed']} {counts['failed']} {counts['own']}", flush=True)
    sys.exit(counts["failed"] > 0)
