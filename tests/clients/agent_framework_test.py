"""Microsoft's agent-framework: its clients for OpenAI's interfaces, with their defaults."""

import json

from agent_framework import Agent, tool
from agent_framework.openai import (
    OpenAIChatClient,
    OpenAIChatCompletionClient,
    OpenAIEmbeddingClient,
)
from pydantic import BaseModel

from checks import CHAT, CLAUDE, NATIVE, OPENAI, TEXT, TOKEN, check, equal, finish, sent

CLIENTS = {
    "chat": OpenAIChatCompletionClient(CHAT, api_key=TOKEN, base_url=OPENAI),
    "chat before Anthropic": OpenAIChatCompletionClient(CLAUDE, api_key=TOKEN, base_url=OPENAI),
    "responses": OpenAIChatClient(NATIVE, api_key=TOKEN, base_url=OPENAI),
    "responses before chat": OpenAIChatClient(CHAT, api_key=TOKEN, base_url=OPENAI),
    "responses before Anthropic": OpenAIChatClient(CLAUDE, api_key=TOKEN, base_url=OPENAI),
}


class Person(BaseModel):
    name: str
    age: int


@tool(approval_mode="never_require")
def get_weather(city: str) -> str:
    """The weather."""
    return f"sunny in {city}"


for title, client in CLIENTS.items():

    @check(f"{title}: a plain answer")
    async def _():
        equal((await Agent(client, "be kind").run("hi")).text, TEXT)

    @check(f"{title}: a stream")
    async def _():
        # Its pieces may stand for those before them: only it knows how they grow together.
        stream = Agent(client).run("hi", stream=True)
        assert TEXT in "".join([part.text or "" async for part in stream])
        equal((await stream.get_final_response()).text, TEXT)

    @check(f"{title}: a tool to the end, whole and streamed")
    async def _():
        agent = Agent(client, tools=[get_weather])
        equal((await agent.run("The weather?")).text, TEXT)
        equal((await agent.run("The weather?", stream=True).get_final_response()).text, TEXT)
        assert "sunny in Rome" in json.dumps(sent()[-1])

    @check(f"{title}: two turns of a session")
    async def _():
        agent = Agent(client)
        session = agent.create_session()
        await agent.run("my name is Ann", session=session)
        equal((await agent.run("who am I?", session=session)).text, TEXT)
        assert "my name is Ann" in json.dumps(sent()[-1])

    @check(f"{title}: an output of a type")
    async def _():
        result = await Agent(client).run("hi", options={"response_format": Person})
        equal(result.value, Person(name="a name", age=3))


@check("embeddings")
async def _():
    client = OpenAIEmbeddingClient(
        model="chat/text-embedding-3-small", api_key=TOKEN, base_url=OPENAI
    )
    made = await client.get_embeddings(["one"])
    equal(list(made[0].vector)[:2], [3.0, 4.0])


finish()
