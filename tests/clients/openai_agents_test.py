"""openai-agents: tools, a handoff, streams, an output of a type, at both of OpenAI's interfaces."""

import json

import openai
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    SQLiteSession,
    function_tool,
    set_tracing_disabled,
)
from openai.types.shared import Reasoning
from pydantic import BaseModel

from checks import CHAT, CLAUDE, NATIVE, OPENAI, TEXT, TOKEN, check, equal, finish, sent

set_tracing_disabled(True)
client = openai.AsyncOpenAI(base_url=OPENAI, api_key=TOKEN, max_retries=0)
MODELS = {
    "chat": OpenAIChatCompletionsModel(CHAT, client),
    "chat before Anthropic": OpenAIChatCompletionsModel(CLAUDE, client),
    "responses": OpenAIResponsesModel(NATIVE, client),
    "responses before chat": OpenAIResponsesModel(CHAT, client),
    "responses before Anthropic": OpenAIResponsesModel(CLAUDE, client),
}


class Person(BaseModel):
    name: str
    age: int


@function_tool
def get_weather(city: str) -> str:
    """The weather."""
    return f"sunny in {city}"


@function_tool
def get_time() -> str:
    """The time."""
    return "noon"


for title, model in MODELS.items():

    @check(f"{title}: a plain answer")
    async def _():
        equal(
            (await Runner.run(Agent("a", instructions="be kind", model=model), "hi")).final_output,
            TEXT,
        )

    @check(f"{title}: tools to the end")
    async def _():
        result = await Runner.run(
            Agent("a", tools=[get_weather, get_time], model=model), "[[calls:2]]"
        )
        equal(result.final_output, TEXT)
        assert "sunny in Rome" in json.dumps(sent()[-1]) and "noon" in json.dumps(sent()[-1])

    @check(f"{title}: a stream with a tool")
    async def _():
        stream = Runner.run_streamed(Agent("a", tools=[get_weather], model=model), "hi")
        heard = [
            event.data.delta
            async for event in stream.stream_events()
            if event.type == "raw_response_event"
            and event.data.type == "response.output_text.delta"
        ]
        equal(("".join(heard), stream.final_output), (TEXT, TEXT))

    @check(f"{title}: a handoff")
    async def _():
        second = Agent("second", instructions="I am second", model=model)
        result = await Runner.run(Agent("first", handoffs=[second], model=model), "hi")
        equal((result.last_agent.name, result.final_output), ("second", TEXT))

    @check(f"{title}: an output of a type, whole and streamed")
    async def _():
        agent = Agent("a", output_type=Person, model=model)
        equal((await Runner.run(agent, "hi")).final_output, Person(name="a name", age=3))
        stream = Runner.run_streamed(agent, "hi")
        async for _ in stream.stream_events():
            pass
        equal(stream.final_output, Person(name="a name", age=3))

    @check(f"{title}: a session of two turns")
    async def _():
        session, agent = SQLiteSession(title), Agent("a", model=model)
        await Runner.run(agent, "my name is Ann", session=session)
        equal((await Runner.run(agent, "who am I?", session=session)).final_output, TEXT)
        assert "my name is Ann" in json.dumps(sent()[-1])


@check("responses: reasoning with a tool, its items go back")
async def _():
    settings = ModelSettings(
        reasoning=Reasoning(effort="high", summary="auto"),
        response_include=["reasoning.encrypted_content"],
    )
    agent = Agent("a", tools=[get_weather], model=MODELS["responses"], model_settings=settings)
    equal((await Runner.run(agent, "hi")).final_output, TEXT)
    assert "SEALED" in json.dumps(sent()[-1])


@check("responses: a turn goes on by the id of the last")
async def _():
    agent = Agent("a", model=MODELS["responses"])
    first = await Runner.run(agent, "my name is Ann")
    await Runner.run(agent, "who am I?", previous_response_id=first.last_response_id)
    assert "my name is Ann" in json.dumps(sent()[-1])


finish()
