"""What is said in a conversation, whoever's words it is in: texts, calls, results, pictures,
documents and sounds, each in its order."""

import json
from collections import Counter

ASSISTANT = {"assistant", "model"}
SYSTEM = {"system", "developer"}


class View:
    """What was found, by its kind."""

    def __init__(self):
        self.said = {"user": [], "assistant": [], "system": []}
        self.calls, self.results, self.thoughts = [], [], []
        self.images, self.files, self.audio = [], [], []
        self.refusals = 0

    def refusal(self, role, text):
        self.refusals += bool(text)
        self.text(role, text)

    def text(self, role, text):
        if text:
            role = "assistant" if role in ASSISTANT else "system" if role in SYSTEM else "user"
            self.said[role].append(text)

    def call(self, id, name, arguments):
        value = json.loads(arguments) if isinstance(arguments, str) else arguments
        self.calls.append((id, name, json.dumps(value, sort_keys=True)))

    def content(self, role, content):
        """Text, or parts in the words of any of the interfaces."""
        if isinstance(content, str):
            self.text(role, content)
            return
        for part in content or []:
            self.part(role, part)

    def part(self, role, part):
        kind = part.get("type")
        if "inlineData" in part:
            self.media(part["inlineData"]["mimeType"], part["inlineData"]["data"])
        elif "fileData" in part:
            kind = part["fileData"].get("mimeType", "")
            (self.files if kind or part["fileData"]["fileUri"].endswith(".pdf") else self.images).append(
                part["fileData"]["fileUri"])
        elif kind == "image_url":
            self.images.append(plain_data(part["image_url"]["url"]))
        elif kind == "input_image":
            self.images.append(plain_data(part["image_url"]))
        elif kind == "image" and "source" in part:
            self.images.append(part["source"].get("data") or part["source"]["url"])
        elif kind == "image":
            self.images.append(part.get("data") or part["uri"])
        elif kind == "document" and "source" in part:
            self.files.append(part["source"].get("data") or part["source"]["url"])
        elif kind == "document":
            self.files.append(part.get("data") or part["uri"])
        elif kind == "file":
            self.files.append(plain_data(part["file"]["file_data"]))
        elif kind == "input_file":
            self.files.append(plain_data(part.get("file_data") or part["file_url"]))
        elif kind == "input_audio":
            self.audio.append(part["input_audio"]["data"])
        elif kind == "refusal":
            self.refusal(role, part["refusal"])
        elif "text" in part:
            self.text(role, part["text"])

    def media(self, kind, data):
        {"audio": self.audio, "image": self.images}.get(kind.split("/")[0], self.files).append(data)

    def result(self, id, content, is_error):
        """What a tool answered: its texts are the result, what it shows stands beside it."""
        inner = View()
        inner.content("user", content)
        self.images += inner.images
        self.files += inner.files
        self.results.append((id, "\n".join(inner.said["user"]), bool(is_error)))


def plain_data(url):
    return url.split(";base64,", 1)[1] if url.startswith("data:") else url


def of_anthropic(body):
    view = View()
    view.content("system", body.get("system"))
    for message in body["messages"]:
        content = message["content"]
        for block in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            kind = block["type"]
            if kind == "tool_use":
                view.call(block["id"], block["name"], block["input"])
            elif kind == "tool_result":
                view.result(block["tool_use_id"], block.get("content"), block.get("is_error"))
            elif kind == "thinking":
                view.thoughts.append(block["thinking"])
            else:
                view.part(message["role"], block)
    return view


def of_openai_chat(body):
    view = View()
    for message in body["messages"]:
        role = message["role"]
        if role == "tool":
            view.result(message["tool_call_id"], message["content"], False)
            continue
        if message.get("reasoning_content"):
            view.thoughts.append(message["reasoning_content"])
        view.content(role, message.get("content"))
        view.refusal(role, message.get("refusal"))
        for call in message.get("tool_calls", []):
            view.call(call["id"], call["function"]["name"], call["function"]["arguments"])
    return view


def of_openai_responses(body):
    view = View()
    view.text("system", body.get("instructions"))
    for item in body["input"]:
        kind = item["type"]
        if kind == "message":
            view.content(item["role"], item["content"])
        elif kind == "function_call":
            view.call(item["call_id"], item["name"], item["arguments"])
        elif kind == "function_call_output":
            view.result(item["call_id"], item["output"], False)
        elif kind == "reasoning":
            view.thoughts.append("\n\n".join(part["text"] for part in item["summary"]))
    return view


def of_gemini(body):
    view = View()
    view.content("system", body.get("systemInstruction", {}).get("parts"))
    for message in body["contents"]:
        for part in message["parts"]:
            if "functionCall" in part:
                call = part["functionCall"]
                view.call(call.get("id"), call["name"], call["args"])
            elif "functionResponse" in part:
                answer = part["functionResponse"]
                is_error = "error" in answer["response"]
                shown = [{"type": "text", "text": answer["response"]["error" if is_error else "result"]}]
                view.result(answer["id"], shown + answer.get("parts", []), is_error)
            elif part.get("thought"):
                view.thoughts.append(part["text"])
            else:
                view.part(message["role"], part)
    return view


def of_gemini_interactions(body):
    view = View()
    view.text("system", body.get("system_instruction"))
    for step in body["input"]:
        kind = step["type"]
        if kind == "function_call":
            view.call(step["id"], step["name"], step["arguments"])
        elif kind == "function_result":
            view.result(step["call_id"], step["result"], step["is_error"])
        elif kind == "thought":
            view.thoughts.append("".join(part["text"] for part in step.get("summary", [])))
        elif kind in ("user_input", "model_output"):
            view.content("user" if kind == "user_input" else "assistant", step["content"])
    return view


def of_ollama(body):
    view = View()
    for message in body["messages"]:
        if message["role"] == "tool":
            view.result(message["tool_call_id"], message["content"], False)
            continue
        if message.get("thinking"):
            view.thoughts.append(message["thinking"])
        view.text(message["role"], message["content"])
        view.images += message.get("images", [])
        for call in message.get("tool_calls", []):
            view.call(call.get("id"), call["function"]["name"], call["function"]["arguments"])
    return view


VIEWS = {
    "openai_chat": of_openai_chat, "openai_responses": of_openai_responses, "anthropic": of_anthropic,
    "gemini": of_gemini, "gemini_interactions": of_gemini_interactions, "ollama": of_ollama,
}
# Interfaces in which texts of a turn are one.
JOINED = {"ollama": {"user", "assistant", "system"}, "gemini_interactions": {"system"}}


def numbered(view):
    """Calls and results by the place of the call: interfaces differ in the letters of an id."""
    places = {}
    for id, *_ in view.calls:
        places.setdefault(id, len(places))
    view.calls = [(places[id], *rest) for id, *rest in view.calls]
    view.results = [(places.get(id, id), *rest) for id, *rest in view.results]


def differences(sent, came, dialect, left_out):
    """What was said and did not arrive, or arrived otherwise, of which nobody was told."""
    found = []
    if dialect == "anthropic":
        numbered(sent)
        numbered(came)
    missing = list((Counter(sent.files) - Counter(came.files)).elements())
    texts = [text for said in came.said.values() for text in said]
    texts += [text for _, text, _ in came.results]
    for data in missing:
        # A document of plain text is a text where there is no other place for it.
        place = next((text for text in texts if data in text), None)
        if place is None:
            found.append(f"document lost: {data[:60]!r}")
        for said in came.said.values():
            if data in said:
                said.remove(data)
    for role, said in sent.said.items():
        there = came.said[role]
        if role in JOINED.get(dialect, ()):
            said, there = (["".join("".join(texts).split("\n"))] for texts in (said, there))
            if missing and role == "user":
                continue
        if said != there:
            found.append(f"{role} said {first_difference(said, there)}")
    for name in ("calls", "audio"):
        one, other = getattr(sent, name), getattr(came, name)
        if one != other:
            found.append(f"{name}: {first_difference(one, other)}")
    if Counter(sent.images) != Counter(came.images):
        found.append(f"pictures: {first_difference(sorted(sent.images), sorted(came.images))}")
    results, there = sent.results, came.results
    if "tool_result.is_error" in left_out:
        results = [(id, text, False) for id, text, _ in results]
    if results != there:
        found.append(f"results: {first_difference(results, there)}")
    lost = Counter(sent.thoughts) - Counter(came.thoughts)
    if lost and "thinking_of_another" not in left_out:
        found.append(f"thoughts lost: {list(lost)[:2]}")
    return found


def first_difference(one, other):
    for place in range(max(len(one), len(other))):
        left = one[place] if place < len(one) else None
        right = other[place] if place < len(other) else None
        if left != right:
            return f"[{place}] {left!r} is {right!r}"
    return "in their order"
