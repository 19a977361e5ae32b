"""The standard suite of LangChain's integrations, for ChatOpenAI and ChatAnthropic at the doors.

What the suite asks only of models that declare it (audio, documents by URL, recordings) is skipped, as are
its tests of pictures: they fetch one from the network. Its unit tests speak to no server and are not run."""

import os
import re
import subprocess
import sys

from checks import counts, finish

if __name__ == "__main__":
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--no-header",
        "-rfE",
        "--tb=line",
        "--benchmark-disable",
        "-o",
        "python_files=langchain_standard.py",
        "-o",
        "asyncio_mode=auto",
        "-o",
        "asyncio_default_fixture_loop_scope=session",
        "-o",
        "asyncio_default_test_loop_scope=session",
        __file__,
    ]
    done = subprocess.run(
        command,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTEST_ADDOPTS": ""},
    )
    found = {
        name: int(count)
        for count, name in re.findall(
            r"(\d+) (passed|failed|errors?)", done.stdout.splitlines()[-1]
        )
    }
    for line in done.stdout.splitlines():
        if line.startswith(("FAILED", "ERROR")):
            print("FAIL", line.partition("::")[2])
    if not found:
        sys.exit(done.stdout[-4000:])
    counts["passed"], counts["failed"] = (
        found.get("passed", 0),
        found.get("failed", 0) + found.get("errors", 0),
    )
    finish()

from langchain_anthropic import ChatAnthropic  # noqa: E402
from langchain_openai import ChatOpenAI  # noqa: E402
from langchain_tests.integration_tests import ChatModelIntegrationTests  # noqa: E402

from checks import ANTHROPIC, CHAT, CLAUDE, NATIVE, OPENAI, TOKEN  # noqa: E402


class OfOpenAI(ChatModelIntegrationTests):
    asked = CHAT

    @property
    def chat_model_class(self):
        return ChatOpenAI

    @property
    def chat_model_params(self):
        return {
            "model": self.asked,
            "base_url": OPENAI,
            "api_key": TOKEN,
            "max_retries": 0,
            "stream_usage": True,
        }

    @property
    def supports_json_mode(self):
        return True

    @property
    def structured_output_kwargs(self):
        return {"method": "json_schema"}


class TestChatCompletions(OfOpenAI):
    pass


class TestChatCompletionsBeforeAnthropic(OfOpenAI):
    asked = CLAUDE

    @property
    def supports_json_mode(self):
        return False


class TestResponses(OfOpenAI):
    asked = NATIVE

    @property
    def chat_model_params(self):
        return {**super().chat_model_params, "use_responses_api": True}


class OfAnthropic(ChatModelIntegrationTests):
    asked = CLAUDE

    @property
    def chat_model_class(self):
        return ChatAnthropic

    @property
    def chat_model_params(self):
        return {"model": self.asked, "base_url": ANTHROPIC, "api_key": TOKEN, "max_retries": 0}

    @property
    def supports_anthropic_inputs(self):
        return True


class TestMessages(OfAnthropic):
    pass


class TestMessagesBeforeOpenAI(OfAnthropic):
    asked = CHAT
