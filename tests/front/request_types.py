"""The SDKs' own request types, and values for every field of them.

A case is a field: a request with it, and the same request without it or with another value."""

import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Union

from typing_extensions import is_typeddict

PIXEL = ("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5Erk"
         "Jggg==")
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"],
          "additionalProperties": False}
OTHER_SCHEMA = {**SCHEMA, "properties": {"a": {"type": "integer"}}}
PAGE = ["https://example.org/a.png", "https://example.org/b.png"]
# Texts that must be more than any text, by the name of their field.
TEXTS = {
    "url": PAGE, "image_url": PAGE, "file_url": PAGE, "server_url": PAGE,
    "file_data": ["data:application/pdf;base64,JVBERg==", "data:application/pdf;base64,JVBERi0="],
    "data": [PIXEL, "JVBERi0="],
    "arguments": ['{"a": 1}', '{"a": 2}'],
    "result": [PIXEL, "JVBERi0="],
    "refusal": ["no", "never"],
}
OBJECTS = {"schema": [SCHEMA, OTHER_SCHEMA], "parameters": [SCHEMA, OTHER_SCHEMA],
           "input_schema": [SCHEMA, OTHER_SCHEMA], "json_schema": [SCHEMA, OTHER_SCHEMA],
           "logit_bias": [{"50256": -100}, {"50256": 5}]}
# What a type wants though it does not say so, by its name.
NEEDED = {"JSONSchema": {"schema": SCHEMA}}
# Numbers within the limits of their fields, by name.
NUMBERS = {"max_completion_tokens": [9, 3], "top_p": [0.5, 0.25], "temperature": [0.5, 0.25]}


def plain(annotation):
    """An annotation without what only says whether it must be there."""
    while True:
        origin = typing.get_origin(annotation)
        if origin in (typing.Required, typing.NotRequired, typing.Annotated):
            annotation = typing.get_args(annotation)[0]
        elif hasattr(annotation, "__value__"):
            annotation = annotation.__value__
        else:
            return annotation


def hints(cls):
    """The fields of a type, the required ones among them."""
    fields = typing.get_type_hints(cls, include_extras=True)
    is_needed = {name: typing.get_origin(hint) is typing.Required for name, hint in fields.items()}
    return {name: plain(hint) for name, hint in fields.items()}, is_needed


def arms(annotation):
    """What a value may be, apart from nothing."""
    annotation = plain(annotation)
    origin = typing.get_origin(annotation)
    if origin in (Union, types.UnionType):
        return [arm for part in typing.get_args(annotation) for arm in arms(part)]
    if annotation is type(None):
        return []
    return [annotation]


def is_list(annotation):
    origin = typing.get_origin(annotation)
    return origin in (list, Iterable, Sequence) or getattr(origin, "__name__", "") in (
        "Iterable", "Sequence", "SequenceNotStr", "List")


def values(annotation, name, above=()):
    """Small values of every kind that an annotation allows."""
    found = []
    for arm in arms(annotation):
        origin = typing.get_origin(arm)
        if origin is Literal:
            found += typing.get_args(arm)
        elif is_typeddict(arm):
            if arm not in above:
                found.append(smallest(arm, above))
        elif is_list(arm):
            (inner,) = typing.get_args(arm)
            if typing.get_origin(plain(inner)) is Literal:
                found += [[value] for value in typing.get_args(plain(inner))]
            else:
                found += [[value] for value in values(inner, name, above)]
        elif origin in (dict, Mapping) or arm is dict:
            (inner,) = typing.get_args(arm)[1:] or (object,)
            if inner is object or inner is typing.Any:
                found += OBJECTS.get(name, [{"k": "v"}, {"k": "w"}])
            elif name in OBJECTS:
                found += OBJECTS[name]
            else:
                found += [{"k": value} for value in values(inner, "k", above)]
        elif arm is str:
            found += TEXTS.get(name, ["x", "y"])
        elif arm is bool:
            found += [True, False]
        elif arm is int or arm is float:
            found += NUMBERS.get(name, [7, 3] if arm is int else [0.5, 1.5])
        elif arm is object or arm is typing.Any:
            found += OBJECTS.get(name, [{"k": "v"}, {"k": "w"}])
    # Texts of any kind stand beside the known ones: one of each is enough.
    unique = []
    for value in found:
        if not any(value == other and type(value) is type(other) for other in unique):
            unique.append(value)
    return unique


def smallest(cls, above=()):
    """A value with what must be there, and no more."""
    fields, is_needed = hints(cls)
    value = {}
    for name, hint in fields.items():
        if is_needed[name]:
            options = values(hint, name, (*above, cls))
            value[name] = options[0] if options else []
    return {**value, **NEEDED.get(cls.__name__, {})}


def cases(cls, base, seen=None, above=()):
    """`(path, with, without)` for each field of a type, at every depth. With `seen`, a type that
    stands in several places of a field of the request is looked into once."""
    fields, is_needed = hints(cls)
    for name, hint in fields.items():
        before = base.get(name)
        for value in values(hint, name, (*above, cls)):
            if name in base and value == before:
                continue
            without = dict(base)
            if name in base and not is_needed[name]:
                del without[name]
            yield name, {**base, name: value}, without
        within = seen if above or seen is None else set()
        for path, value, without in inner_cases(hint, within, (*above, cls)):
            yield f"{name}{path}", {**base, name: value}, {**base, name: without}


def inner_cases(annotation, seen, above):
    for arm in arms(annotation):
        if is_typeddict(arm):
            if arm not in above and (seen is None or arm not in seen):
                if seen is not None:
                    seen.add(arm)
                base = smallest(arm, above)
                word = base.get("type") or base.get("role")
                word = f"({word})" if word else ""
                for path, value, without in cases(arm, base, seen, above):
                    yield f"{word}.{path}", value, without
        elif is_list(arm):
            (inner,) = typing.get_args(arm)
            for path, value, without in inner_cases(inner, seen, above):
                yield f"[]{path}", [value], [without]
