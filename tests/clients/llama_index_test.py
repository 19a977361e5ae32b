"""llama-index's model for servers of OpenAI's interface, with streams, tools, an agent and an output of a type."""

import base64
import json

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage, ImageBlock, TextBlock
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

from checks import CHAT, CLAUDE, OPENAI, PNG, TEXT, TOKEN, check, equal, finish, sent

HI = [ChatMessage(role="system", content="be kind"), ChatMessage(role="user", content="hi")]


def get_weather(city: str) -> str:
    """The weather."""
    return f"sunny in {city}"


class Person(BaseModel):
    """A person."""

    name: str
    age: int


for place in (CHAT, CLAUDE):
    model = OpenAILike(
        model=place,
        api_base=OPENAI,
        api_key=TOKEN,
        is_chat_model=True,
        is_function_calling_model=True,
        context_window=100_000,
        max_retries=0,
    )

    @check(f"{place}: a plain answer")
    def _():
        equal(model.chat(HI).message.content, TEXT)
        equal(model.complete("hi").text, TEXT)

    @check(f"{place}: a stream")
    def _():
        equal("".join(part.delta or "" for part in model.stream_chat(HI)), TEXT)

    @check(f"{place}: async, whole and streamed")
    async def _():
        equal((await model.achat(HI)).message.content, TEXT)
        equal("".join([part.delta or "" async for part in await model.astream_chat(HI)]), TEXT)

    @check(f"{place}: a tool is called")
    def _():
        result = model.predict_and_call(
            [FunctionTool.from_defaults(get_weather)], user_msg="The weather?"
        )
        equal(result.response, "sunny in Rome")

    @check(f"{place}: an agent with a tool, to its end")
    async def _():
        result = await FunctionAgent(tools=[get_weather], llm=model).run("The weather?")
        equal(str(result), TEXT)
        assert "sunny in Rome" in json.dumps(sent()[-1])

    @check(f"{place}: an output of a type")
    def _():
        equal(model.as_structured_llm(Person).complete("hi").raw, Person(name="a name", age=3))

    @check(f"{place}: a picture")
    def _():
        blocks = [
            TextBlock(text="what?"),
            ImageBlock(image=base64.b64decode(PNG), image_mimetype="image/png"),
        ]
        model.chat([ChatMessage(role="user", blocks=blocks)])
        assert PNG in json.dumps(sent()[-1])


finish()
