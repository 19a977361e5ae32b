"""Conversations of every kind of block, in the words of the doors, and answers in the words of the
providers. What is made depends on the seed alone."""

import base64
import json

ODD = ["ä", "好", "👩‍👩‍👧", "e\u0301", "\u202e", "\u2028", "\x7f", "\"\\", "\n", "\r\n", "\t", "</s>", "data: x", "\ufeff",
       "𝔘", "؀", "{}", "\u0000"]
WORDS = ["snow", "in", "Oslo", "the", "answer", "is", "forty-two", "not", "yet"]
TOOLS = ["weather", "read_file", "search"]
# What an interface has a place for, apart from texts, calls and their results.
TAKES = {
    "openai_chat": {"image", "file", "audio", "name"},
    "openai_responses": {"image", "file", "file_url"},
    "anthropic": {"image", "file", "file_url"},
    "gemini": {"image", "file", "file_url", "audio"},
    "gemini_interactions": {"image", "file", "file_url"},
    "ollama": {"image"},
}


class Maker:
    """Makes pieces of a conversation."""

    def __init__(self, chance, door, dialect):
        self.chance, self.door, self.dialect = chance, door, dialect
        self.is_own = door == dialect
        self.takes = TAKES[dialect]
        self.count = 0

    def often(self, share):
        return self.chance.random() < share

    def number(self):
        self.count += 1
        return self.count

    def text(self):
        pieces = self.chance.choices(WORDS, k=self.chance.randint(1, 8))
        for _ in range(self.chance.randint(0, 3)):
            pieces.insert(self.chance.randrange(len(pieces) + 1), self.chance.choice(ODD))
        return f"{self.number()} " + " ".join(pieces) + "."

    def bytes(self):
        return base64.b64encode(self.chance.randbytes(self.chance.randint(3, 60))).decode()

    def opaque(self):
        return base64.b64encode(self.chance.randbytes(self.chance.randint(8, 90))).decode()

    def arguments(self):
        values = [self.text(), self.chance.randint(-9, 2**53), 0.5, None, True, [1, {"a": []}], {"ü": "\n"}, -0.25]
        names = ["city", "path", "ä b", "n"]
        return {name: self.chance.choice(values) for name in names[: self.chance.randint(0, 4)]}

    def arguments_text(self):
        value = self.arguments()
        form = self.chance.choice([{}, {"separators": (",", ":")}, {"ensure_ascii": False}, {"indent": 1}])
        return json.dumps(value, **form)

    def id(self, prefix="call"):
        if self.often(0.05) and self.door != "anthropic":
            return f"{prefix}:{self.number()}/ü"
        return f"{prefix}_{self.number()}{self.chance.choice('abc')}"

    def split(self, text):
        """A text in pieces, which no letter is cut by."""
        cuts = sorted(self.chance.randrange(len(text) + 1) for _ in range(self.chance.randint(0, 4)))
        ends = [0, *cuts, len(text)]
        return [text[one:other] for one, other in zip(ends, ends[1:]) if one < other]

    # Turns in the words of a door.

    def history(self, turns):
        """The turns of a conversation, the last of them the person's: a list for each."""
        told = []
        open_calls = []
        while len(told) < turns or len(told) % 2 == 0:
            if len(told) % 2 == 0:
                told.append(getattr(self, f"{self.door}_user")(open_calls))
                open_calls = []
            else:
                turn, open_calls = getattr(self, f"{self.door}_assistant")()
                told.append(turn)
        return told

    def picture_url(self):
        return f"https://example.org/{self.number()}.png"

    def calls(self):
        count = self.chance.choice([0, 0, 1, 1, 2, 3])
        return [(self.id("toolu" if self.door == "anthropic" else "call"), self.chance.choice(TOOLS))
                for _ in range(count)]

    # Anthropic's messages.

    def marked(self, block):
        if self.often(0.08):
            block["cache_control"] = {"type": "ephemeral", **self.chance.choice([{}, {"ttl": "1h"}])}
        return block

    def anthropic_image(self):
        if self.often(0.3) and self.dialect != "ollama":
            return self.marked({"type": "image", "source": {"type": "url", "url": self.picture_url()}})
        source = {"type": "base64", "media_type": "image/png", "data": self.bytes()}
        return self.marked({"type": "image", "source": source})

    def anthropic_document(self):
        kind = self.chance.choice(["base64", "text", "url"])
        if kind == "url" and "file_url" in self.takes:
            source = {"type": "url", "url": f"https://example.org/{self.number()}.pdf"}
        elif kind == "text":
            source = {"type": "text", "media_type": "text/plain", "data": self.text()}
        else:
            source = {"type": "base64", "media_type": "application/pdf", "data": self.bytes()}
        block = {"type": "document", "source": source}
        if self.often(0.3):
            block["title"] = self.text()
        if self.often(0.2):
            block["citations"] = {"enabled": True}
        return self.marked(block)

    def anthropic_text(self):
        return self.marked({"type": "text", "text": self.text()})

    def anthropic_user(self, open_calls):
        blocks = []
        for call, _ in open_calls:
            block = {"type": "tool_result", "tool_use_id": call}
            if self.often(0.5):
                block["content"] = self.text()
            elif self.often(0.9):
                parts = [self.anthropic_text() for _ in range(self.chance.randint(1, 2))]
                if "image" in self.takes and self.often(0.5):
                    parts.append(self.anthropic_image())
                block["content"] = parts
            if self.often(0.2):
                block["is_error"] = True
            blocks.append(self.marked(block))
        if not blocks or self.often(0.5):
            if not blocks and self.often(0.3):
                return [{"role": "user", "content": self.text()}]
            for _ in range(self.chance.randint(1, 3)):
                blocks.append(self.anthropic_text())
                if "image" in self.takes and self.often(0.2):
                    blocks.append(self.anthropic_image())
                if "file" in self.takes and self.often(0.2):
                    blocks.append(self.anthropic_document())
        turn = [{"role": "user", "content": blocks}]
        if self.often(0.05):
            turn.append({"role": "system", "content": self.text()})
        return turn

    def anthropic_assistant(self):
        blocks = []
        if self.often(0.4):
            blocks.append({"type": "thinking", "thinking": self.text(), "signature": self.opaque()})
        if self.is_own and self.often(0.15):
            blocks.append({"type": "redacted_thinking", "data": self.opaque()})
        if self.is_own and self.often(0.15):
            blocks += self.anthropic_search()
        if self.often(0.7):
            block = self.anthropic_text()
            if self.often(0.15):
                block["citations"] = [self.anthropic_citation()]
            blocks.append(block)
        calls = self.calls()
        for call, name in calls:
            if self.often(0.2):
                blocks.append({"type": "thinking", "thinking": self.text(), "signature": self.opaque()})
            block = {"type": "tool_use", "id": call, "name": name, "input": self.arguments()}
            blocks.append(self.marked(block))
        if not any(block["type"] in ("text", "tool_use") for block in blocks):
            blocks.append(self.anthropic_text())
        return [{"role": "assistant", "content": blocks}], calls

    def anthropic_citation(self):
        return {"type": "char_location", "cited_text": self.text(), "document_index": 0, "document_title": None,
                "start_char_index": 0, "end_char_index": self.number()}

    def anthropic_search(self):
        id = f"srvtoolu_{self.number()}"
        found = {"type": "web_search_result", "url": self.picture_url(), "title": self.text(),
                 "encrypted_content": self.opaque(), "page_age": None}
        return [{"type": "server_tool_use", "id": id, "name": "web_search", "input": {"query": self.text()}},
                {"type": "web_search_tool_result", "tool_use_id": id, "content": [found]}]

    # OpenAI's chat completions.

    def chat_part(self):
        choice = self.chance.random()
        if choice < 0.25 and "image" in self.takes:
            url = f"data:image/png;base64,{self.bytes()}"
            if self.often(0.3) and self.dialect != "ollama":
                url = self.picture_url()
            image = {"url": url}
            if self.often(0.3):
                image["detail"] = self.chance.choice(["low", "high", "auto"])
            return {"type": "image_url", "image_url": image}
        if choice < 0.4 and "file" in self.takes:
            data = f"data:application/pdf;base64,{self.bytes()}"
            return {"type": "file", "file": {"filename": f"{self.number()}.pdf", "file_data": data}}
        if choice < 0.5 and "audio" in self.takes:
            return {"type": "input_audio", "input_audio": {"data": self.bytes(), "format": "wav"}}
        return {"type": "text", "text": self.text()}

    def openai_chat_user(self, open_calls):
        turn = []
        for call, _ in open_calls:
            content = self.text()
            if self.often(0.3):
                content = [{"type": "text", "text": self.text()} for _ in range(self.chance.randint(1, 2))]
            turn.append({"role": "tool", "tool_call_id": call, "content": content})
        if not turn or self.often(0.4):
            if self.often(0.1):
                turn.append({"role": self.chance.choice(["system", "developer"]), "content": self.text()})
            content = self.text()
            if self.often(0.6):
                content = [{"type": "text", "text": self.text()}]
                content += [self.chat_part() for _ in range(self.chance.randint(0, 3))]
            message = {"role": "user", "content": content}
            if self.often(0.1):
                message["name"] = self.chance.choice(["ann", "bob"])
            turn.append(message)
        return turn

    def openai_chat_assistant(self):
        message = {"role": "assistant", "content": None}
        if self.often(0.7):
            message["content"] = self.text()
        if self.often(0.1) and not message["content"]:
            message["refusal"] = self.text()
        if self.often(0.1):
            message["content"] = [{"type": "text", "text": self.text()}]
        if self.often(0.1):
            message["name"] = "eve"
        if self.often(0.2):
            message["reasoning_content"] = self.text()
        calls = self.calls()
        if calls:
            message["tool_calls"] = [
                {"id": call, "type": "function", "function": {"name": name, "arguments": self.arguments_text()}}
                for call, name in calls]
        elif not message["content"] and "refusal" not in message:
            message["content"] = self.text()
        return [message], calls

    # OpenAI's responses.

    def responses_part(self):
        choice = self.chance.random()
        if choice < 0.25 and "image" in self.takes:
            url = f"data:image/png;base64,{self.bytes()}"
            if self.often(0.3) and self.dialect != "ollama":
                url = self.picture_url()
            image = {"type": "input_image", "image_url": url}
            if self.often(0.3):
                image["detail"] = self.chance.choice(["low", "high", "auto"])
            return image
        if choice < 0.4 and "file" in self.takes:
            data = f"data:application/pdf;base64,{self.bytes()}"
            if self.often(0.3) and "file_url" in self.takes:
                return {"type": "input_file", "file_url": f"https://example.org/{self.number()}.pdf"}
            return {"type": "input_file", "filename": f"{self.number()}.pdf", "file_data": data}
        return {"type": "input_text", "text": self.text()}

    def openai_responses_user(self, open_calls):
        turn = []
        for call, _ in open_calls:
            output = self.text()
            if self.often(0.3):
                output = [{"type": "input_text", "text": self.text()}]
                if "image" in self.takes and self.often(0.5):
                    output.append({"type": "input_image", "image_url": f"data:image/png;base64,{self.bytes()}"})
            turn.append({"type": "function_call_output", "call_id": call, "output": output})
        if not turn or self.often(0.4):
            if self.often(0.1):
                role = self.chance.choice(["system", "developer"])
                turn.append({"type": "message", "role": role,
                             "content": [{"type": "input_text", "text": self.text()}]})
            content = [{"type": "input_text", "text": self.text()}]
            content += [self.responses_part() for _ in range(self.chance.randint(0, 3))]
            if self.often(0.2):
                content = self.text()
            turn.append({"type": "message", "role": "user", "content": content})
        return turn

    def openai_responses_assistant(self):
        items = []
        if self.often(0.4):
            items.append(self.reasoning())
        if self.is_own and self.often(0.15):
            items.append({"type": "web_search_call", "id": f"ws_{self.number()}", "status": "completed",
                          "action": {"type": "search", "query": self.text()}})
        if self.often(0.7):
            items.append(self.message())
        calls = self.calls()
        for call, name in calls:
            if self.often(0.2):
                items.append(self.reasoning())
            item = {"type": "function_call", "call_id": call, "name": name, "arguments": self.arguments_text()}
            if self.often(0.5):
                item |= {"id": f"fc_{self.number()}", "status": "completed"}
            items.append(item)
        if not any(item["type"] in ("message", "function_call") for item in items):
            items.append(self.message())
        return items, calls

    def reasoning(self):
        summary = [{"type": "summary_text", "text": self.text()} for _ in range(self.chance.randint(0, 2))]
        return {"type": "reasoning", "id": f"rs_{self.number()}", "summary": summary,
                "encrypted_content": self.opaque()}

    def message(self):
        part = {"type": "output_text", "text": self.text(), "annotations": []}
        if self.often(0.2):
            part["annotations"] = [{"type": "url_citation", "url": self.picture_url(), "title": self.text(),
                                    "start_index": 0, "end_index": 1}]
        if self.often(0.1):
            part = {"type": "refusal", "refusal": self.text()}
        item = {"type": "message", "role": "assistant", "content": [part], "id": f"msg_{self.number()}",
                "status": "completed"}
        if self.often(0.2):
            item["phase"] = self.chance.choice(["commentary", "final_answer"])
        return item

    def request(self, turns):
        """A whole request of a conversation."""
        said = [entry for turn in turns for entry in turn]
        tools = [(name, {"type": "object", "properties": {"city": {"type": "string"}}}) for name in TOOLS]
        if self.door == "anthropic":
            return {"max_tokens": 4096, "messages": said,
                    "tools": [{"name": name, "input_schema": schema} for name, schema in tools]}
        if self.door == "openai_chat":
            functions = [{"name": name, "parameters": schema} for name, schema in tools]
            return {"messages": said, "tools": [{"type": "function", "function": it} for it in functions]}
        return {"input": said, "store": False, "include": ["reasoning.encrypted_content"],
                "tools": [{"type": "function", "name": name, "parameters": schema} for name, schema in tools]}
