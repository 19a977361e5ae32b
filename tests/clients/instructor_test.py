"""instructor's modes for OpenAI and Anthropic at the doors."""

import anthropic
import instructor
import openai
from pydantic import BaseModel

from checks import ANTHROPIC, CHAT, CLAUDE, NATIVE, OPENAI, TOKEN, check, equal, finish

HI = [{"role": "user", "content": "hi"}]


class Person(BaseModel):
    name: str
    age: int


def is_person(made):
    equal(made.model_dump(), {"name": "a name", "age": 3})


MODES = ["TOOLS", "TOOLS_STRICT", "JSON", "JSON_SCHEMA", "MD_JSON", "RESPONSES_TOOLS"]
ANTHROPIC_MODES = ["ANTHROPIC_TOOLS", "ANTHROPIC_JSON"]


def of_openai(mode, kind=openai.OpenAI):
    return instructor.from_openai(kind(base_url=OPENAI, api_key=TOKEN), mode=instructor.Mode[mode])


def of_anthropic(mode, kind=anthropic.Anthropic):
    return instructor.from_anthropic(
        kind(base_url=ANTHROPIC, api_key=TOKEN), mode=instructor.Mode[mode]
    )


for mode in MODES:
    for place in (NATIVE, CHAT) if "RESPONSES" in mode else (CHAT, CLAUDE):
        # Anthropic has no form for "any JSON": it is refused by its name.
        if mode == "JSON" and place == CLAUDE:
            continue

        @check(f"{mode} at {place}")
        def _():
            client = of_openai(mode)
            is_person(
                client.chat.completions.create(
                    model=place, response_model=Person, messages=HI, max_retries=0
                )
            )

        if "RESPONSES" in mode:
            continue

        @check(f"{mode} at {place}, async")
        async def _():
            client = of_openai(mode, openai.AsyncOpenAI)
            is_person(
                await client.chat.completions.create(
                    model=place, response_model=Person, messages=HI, max_retries=0
                )
            )

        @check(f"{mode} at {place}, growing piece by piece")
        def _():
            parts = list(
                of_openai(mode).chat.completions.create_partial(
                    model=place, response_model=Person, messages=HI, max_retries=0
                )
            )
            is_person(parts[-1])


for mode in ANTHROPIC_MODES:
    for place in (CLAUDE, CHAT):

        @check(f"{mode} at {place}")
        def _():
            made = of_anthropic(mode).messages.create(
                model=place, max_tokens=500, response_model=Person, messages=HI, max_retries=0
            )
            is_person(made)

        @check(f"{mode} at {place}, async")
        async def _():
            made = await of_anthropic(mode, anthropic.AsyncAnthropic).messages.create(
                model=place, max_tokens=500, response_model=Person, messages=HI, max_retries=0
            )
            is_person(made)


finish()
