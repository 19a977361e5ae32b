"""pydantic-ai's models of OpenAI (chat, responses) and Anthropic at the doors."""

import asyncio
import base64
import json

from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, NativeOutput, PromptedOutput, ToolOutput
from pydantic_ai.messages import ThinkingPart
from pydantic_ai.models.anthropic import AnthropicModel, AnthropicModelSettings
from pydantic_ai.models.openai import (
    OpenAIChatModel,
    OpenAIResponsesModel,
    OpenAIResponsesModelSettings,
)
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from checks import (
    ANTHROPIC,
    CHAT,
    CLAUDE,
    NATIVE,
    OPENAI,
    PNG,
    TEXT,
    TOKEN,
    check,
    equal,
    finish,
    sent,
)

openai = OpenAIProvider(base_url=OPENAI, api_key=TOKEN)
anthropic = AnthropicProvider(base_url=ANTHROPIC, api_key=TOKEN)
THINKING = AnthropicModelSettings(
    anthropic_thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=4000
)
MODELS = {
    "chat": (OpenAIChatModel(CHAT, provider=openai), {"openai_reasoning_effort": "high"}),
    "chat before Anthropic": (
        OpenAIChatModel(CLAUDE, provider=openai),
        {"extra_body": {"thinking": {"type": "enabled", "budget_tokens": 1024}}},
    ),
    "responses": (
        OpenAIResponsesModel(NATIVE, provider=openai),
        OpenAIResponsesModelSettings(
            openai_reasoning_effort="high", openai_reasoning_summary="detailed"
        ),
    ),
    "messages": (AnthropicModel(CLAUDE, provider=anthropic), THINKING),
    "messages before OpenAI": (
        AnthropicModel(CHAT, provider=anthropic),
        {"extra_body": {"output_config": {"effort": "high"}}},
    ),
}


class Person(BaseModel):
    name: str
    age: int


PERSON = Person(name="a name", age=3)
# It offers the native output to models of names that it knows alone.
UNKNOWN = "pydantic-ai has native output for names of models that it knows, and sends nothing"

for title, (model, settings) in MODELS.items():

    @check(f"{title}: a plain answer, with instructions")
    def _():
        result = Agent(model, instructions="be kind").run_sync("hi")
        equal(result.output, TEXT)
        equal(result.usage.output_tokens, 9)
        assert "be kind" in json.dumps(sent()[-1])

    @check(f"{title}: a stream")
    async def _():
        async with Agent(model).run_stream("hi") as result:
            equal("".join([piece async for piece in result.stream_text(delta=True)]), TEXT)

    @check(f"{title}: tools to the end")
    def _():
        agent, heard = Agent(model), []

        @agent.tool_plain
        def get_weather(city: str) -> str:
            """The weather."""
            heard.append(city)
            return "sunny"

        @agent.tool_plain
        def get_time() -> str:
            """The time."""
            heard.append("time")
            return "noon"

        equal(agent.run_sync("[[calls:2]]").output, TEXT)
        equal(sorted(heard), ["Rome", "time"])
        assert "sunny" in json.dumps(sent()[-1])

    @check(f"{title}: an output by a tool, whole and streamed")
    async def _():
        agent = Agent(model, output_type=ToolOutput(Person))
        equal((await agent.run("hi")).output, PERSON)
        async with agent.run_stream("hi") as result:
            equal(await result.get_output(), PERSON)

    @check(
        f"{title}: an output in the model's own form", own=UNKNOWN if "messages" in title else None
    )
    def _():
        equal(Agent(model, output_type=NativeOutput(Person)).run_sync("hi").output, PERSON)

    @check(f"{title}: thoughts, whole and streamed")
    async def _():
        agent = Agent(model, model_settings=settings)
        result = await agent.run("hi")
        parts = [part for message in result.all_messages() for part in message.parts]
        equal([part.content for part in parts if isinstance(part, ThinkingPart)], ["I think."])
        equal((await agent.run("go on", message_history=result.all_messages())).output, TEXT)
        async with agent.run_stream("hi") as stream:
            await stream.get_output()
            parts = [part for message in stream.all_messages() for part in message.parts]
        equal([part.content for part in parts if isinstance(part, ThinkingPart)], ["I think."])

    @check(f"{title}: a picture")
    def _():
        Agent(model).run_sync(
            ["what?", BinaryContent(base64.b64decode(PNG), media_type="image/png")]
        )
        assert PNG in json.dumps(sent()[-1])

    @check(f"{title}: four at once")
    async def _():
        results = await asyncio.gather(*(Agent(model).run(f"[[say:n{at}]]") for at in range(4)))
        equal([result.output for result in results], [f"n{at}" for at in range(4)])


@check("an output by a prompt")
def _():
    equal(
        Agent(MODELS["chat"][0], output_type=PromptedOutput(Person)).run_sync("hi").output, PERSON
    )


finish()
