"""smolagents: its model for servers of OpenAI's interface, with tools, streams and agents."""

import json

from smolagents import OpenAIServerModel, ToolCallingAgent, tool

from checks import CHAT, CLAUDE, NATIVE, OPENAI, TEXT, TOKEN, check, equal, finish, sent

HI = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]


@tool
def get_weather(city: str) -> str:
    """The weather.

    Args:
        city: A city.
    """
    return f"sunny in {city}"


for place in (CHAT, NATIVE, CLAUDE):
    model = OpenAIServerModel(place, api_base=OPENAI, api_key=TOKEN)

    @check(f"{place}: a plain answer")
    def _():
        equal(model.generate(HI).content, TEXT)

    @check(f"{place}: a stream")
    def _():
        equal("".join(delta.content or "" for delta in model.generate_stream(HI)), TEXT)

    @check(f"{place}: an agent with a tool, to its end")
    def _():
        equal(
            ToolCallingAgent(tools=[get_weather], model=model, verbosity_level=0).run(
                "The weather?"
            ),
            TEXT,
        )
        assert "sunny in Rome" in json.dumps(sent()[-1])


finish()
