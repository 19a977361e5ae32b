"""What a request to a model says, whichever wire it came by, and values that a schema takes."""

import json
import re

STEER = re.compile(r"\[\[(\w+)(?::([^\]]*))?\]\]")


def text_of(content):
    if isinstance(content, str):
        return content
    parts = content or []
    return "\n".join(
        part.get("text", "") for part in parts if isinstance(part, dict) and part.get("text")
    )


def named_in(text):
    """A schema for JSON that is asked for in words: a schema within them, or the names in quotes."""
    for start in (found.start() for found in re.finditer(r"\{", text)):
        try:
            value, _ = json.JSONDecoder().raw_decode(text[start:])
        except ValueError:
            continue
        if isinstance(value, dict) and "properties" in value:
            return value
    names = re.findall(r"['\"](\w+)['\"]", text)
    return {"type": "object", "properties": {name: {"type": "string"} for name in names}}


class Prompt:
    """A request in words that do not depend on its wire."""

    def __init__(self, wire, body):
        self.tools, self.choice, self.parallel = [], "auto", True
        self.called, self.has_result, self.has_final = set(), False, False
        self.schema, self.size = None, len(json.dumps(body))
        self.is_cached = "cache_control" in json.dumps(body) or bool(body.get("prompt_cache_key"))
        self.user, self.everything = "", []
        getattr(self, wire)(body)
        if self.schema is None and not self.tools and "json" in "\n".join(self.everything).lower():
            self.json_in_words()
        self.text = self.user
        self.words = {name: value or "" for name, value in STEER.findall(self.text)}

    def message(self, role, content):
        self.everything.append(text_of(content))
        # smolagents tells what a tool answered as words of the user.
        if role == "user" and text_of(content).startswith("Observation:"):
            self.has_result = True
        elif role == "user" and text_of(content):
            self.user, self.has_result, self.has_final, self.called = (
                text_of(content),
                False,
                False,
                set(),
            )

    def call(self, name):
        self.called.add(name)
        self.has_final |= name == "final_answer"

    def choose(self, choice, named):
        if isinstance(choice, dict):
            kind = choice.get("type", "auto")
            choice = named(choice) if kind in ("function", "tool") else kind
        self.choice = {"any": "required", None: "auto", "allowed_tools": "auto"}.get(choice, choice)

    def json_in_words(self, must=False):
        schema = named_in("\n".join(self.everything))
        self.schema = schema if must or schema["properties"] else None

    def chat(self, body):
        for message in body["messages"]:
            self.message(message["role"], message.get("content"))
            self.has_result |= message["role"] in ("tool", "function")
            for call in message.get("tool_calls") or []:
                self.call(call["function"]["name"])
        for tool in body.get("tools") or []:
            function = tool.get("function") or {}
            self.tools.append(
                {"name": function.get("name"), "schema": function.get("parameters") or {}}
            )
        self.choose(body.get("tool_choice"), lambda choice: choice["function"]["name"])
        self.parallel = body.get("parallel_tool_calls") is not False
        form = body.get("response_format") or {}
        if form.get("type") == "json_schema":
            self.schema = form["json_schema"].get("schema") or {}
        elif form.get("type") == "json_object":
            self.json_in_words(must=True)
        self.thinks = bool(body.get("reasoning_effort") or body.get("reasoning"))

    def responses(self, body):
        items = (
            body["input"]
            if isinstance(body["input"], list)
            else [{"role": "user", "content": body["input"]}]
        )
        for item in items:
            if item.get("role"):
                self.message(item["role"], item.get("content"))
            self.has_result |= item.get("type") in (
                "function_call_output",
                "custom_tool_call_output",
            )
            if item.get("type") == "function_call":
                self.call(item["name"])
        for tool in body.get("tools") or []:
            if tool.get("type") == "function":
                self.tools.append({"name": tool["name"], "schema": tool.get("parameters") or {}})
        self.choose(body.get("tool_choice"), lambda choice: choice["name"])
        self.parallel = body.get("parallel_tool_calls") is not False
        form = (body.get("text") or {}).get("format") or {}
        if form.get("type") == "json_schema":
            self.schema = form["schema"]
        elif form.get("type") == "json_object":
            self.json_in_words(must=True)
        self.thinks = bool((body.get("reasoning") or {}).get("effort"))

    def anthropic(self, body):
        self.everything.append(text_of(body.get("system")))
        for message in body["messages"]:
            content = message["content"]
            blocks = content if isinstance(content, list) else []
            kinds = {block.get("type") for block in blocks}
            # Words beside a tool's answer are no new turn.
            if "tool_result" in kinds:
                self.has_result = True
            else:
                self.message(message["role"], content)
            for block in blocks:
                if block.get("type") == "tool_use":
                    self.call(block["name"])
        for tool in body.get("tools") or []:
            if "input_schema" in tool:
                self.tools.append({"name": tool["name"], "schema": tool["input_schema"]})
        choice = body.get("tool_choice") or {}
        self.choose(choice, lambda choice: choice["name"])
        self.parallel = not choice.get("disable_parallel_tool_use")
        form = (body.get("output_config") or {}).get("format") or body.get("output_format") or {}
        if form.get("type") == "json_schema":
            self.schema = form["schema"]
        self.thinks = (body.get("thinking") or {}).get("type") in ("enabled", "adaptive")


def value_of(schema, text="", root=None, name=""):
    """A value that the schema takes."""
    root = schema if root is None else root
    if "$ref" in schema:
        target = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            target = target.get(step, {}) if step else target
        return value_of(target, text, root, name)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for word in ("anyOf", "oneOf", "allOf"):
        if schema.get(word):
            choice = next(
                (one for one in schema[word] if one.get("type") != "null"), schema[word][0]
            )
            return value_of(choice, text, root, name)
    kind = schema.get(
        "type", "object" if "properties" in schema else "string" if name else "object"
    )
    kind = next((one for one in kind if one != "null"), "null") if isinstance(kind, list) else kind
    if kind == "object":
        fields = schema.get("properties") or {}
        if not fields and isinstance(schema.get("additionalProperties"), dict):
            return {"key": value_of(schema["additionalProperties"], text, root, "key")}
        return {field: value_of(inner, text, root, field) for field, inner in fields.items()}
    if kind == "array":
        item = schema.get("items") or {"type": "string"}
        return [value_of(item, text, root, name or "item")] * max(1, schema.get("minItems", 1))
    if kind == "integer":
        return max(3, schema.get("minimum", 3))
    if kind == "number":
        return 1.5
    if kind == "boolean":
        return True
    if kind == "null":
        return None
    quoted = [word for word in re.findall(r"'([^']+)'", text) if not word.isascii()]
    return (
        quoted[0]
        if quoted
        else {"city": "Rome", "location": "Rome", "email": "a@example.org"}.get(name, f"a {name}")
    )
