//! Every field alone is kept or refused by name; every other name is refused, at every place.

use convergio_domain::chat::{ChatField, ChatInterface, MessagePart};
use serde_json::{Value, json};

use super::super::field_table::{FieldHandling, FieldSpec, ValueKind};
use super::{DOORS, Tested};

/// A body with everything that a door reads itself.
fn full(door: &Tested) -> Value {
    let text = match door.name {
        "POST /openai/v1/chat/completions" => include_str!("full_chat.json"),
        "POST /openai/v1/responses" => include_str!("full_responses.json"),
        _ => include_str!("full_messages.json"),
    };
    serde_json::from_str(text).expect("JSON")
}

/// Names below which everything is the caller's own, or the provider's.
const OPEN: [&str; 26] = [
    "access_programs",
    "annotations",
    "cache_control",
    "caller",
    "citations",
    "context_management",
    "extra_content",
    "image",
    "input_schema",
    "input",
    "logit_bias",
    "metadata",
    "moderation",
    "native",
    "output_schema",
    "parameters",
    "prediction",
    "prompt_cache_breakpoint",
    "prompt_cache_options",
    "reasoning_details",
    "schema",
    "summary",
    "thinking",
    "web_search_options",
    "client_metadata",
    "input_examples",
];

/// The places of all objects whose fields a door checks, as pointers.
fn places(value: &Value, pointer: &str, is_native: &dyn Fn(&Value) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    match value {
        Value::Object(fields) if !is_native(value) => {
            found.push(pointer.to_owned());
            for (name, value) in fields {
                // The items of a response are its input; Anthropic's metadata has one field.
                let is_read = (name == "input" && pointer.is_empty())
                    || (name == "metadata" && value["user_id"].is_string());
                let is_open = OPEN.contains(&name.as_str()) && !is_read;
                if !is_open {
                    found.extend(places(value, &format!("{pointer}/{name}"), is_native));
                }
            }
        }
        Value::Array(list) => {
            for (place, value) in list.iter().enumerate() {
                found.extend(places(value, &format!("{pointer}/{place}"), is_native));
            }
        }
        _ => {}
    }
    found
}

fn is_native(value: &Value) -> bool {
    value["type"].as_str().is_some_and(|kind| {
        kind.starts_with("web_search") || matches!(kind, "item_reference" | "search_result")
    })
}

#[test]
fn a_body_with_everything_is_read() {
    for door in &DOORS {
        let read = (door.read)(&full(door));
        assert!(read.is_ok(), "{}: {:?}", door.name, read.err());
    }
}

#[test]
fn everything_that_is_known_stands_in_it() {
    for door in &DOORS {
        let text = full(door).to_string();
        let fields = door.tables.iter().flat_map(|table| table.fields);
        // What can only stand in the place of something else.
        let others = ["custom", "previous_response_id"];
        let missing: Vec<&str> = fields
            .filter(|field| !matches!(field.handling, FieldHandling::Refused(_)))
            .filter(|field| !text.contains(&format!("\"{}\":", field.name)))
            .map(|field| field.name)
            .filter(|name| !others.contains(name))
            .collect();
        assert_eq!(missing, [""; 0], "{}", door.name);
    }
}

#[test]
fn a_misspelt_name_is_refused_with_its_path_wherever_it_stands() {
    for door in &DOORS {
        let body = full(door);
        let places = places(&body, "", &is_native);
        assert!(places.len() > 15, "{}: {places:?}", door.name);
        for place in places {
            let mut body = body.clone();
            body.pointer_mut(&place).expect("it is there")["temprature"] = json!(0.5);
            let refusal = (door.read)(&body).err();
            let refusal =
                refusal.unwrap_or_else(|| panic!("{}: {place} takes anything", door.name));
            let param = refusal.param.unwrap_or_default();
            assert!(param.ends_with("temprature"), "{}: {place}: {param}", door.name);
            let depth = place.split('/').filter(|step| !step.is_empty()).count();
            let steps = param.replace('[', ".").split('.').count() - 1;
            assert_eq!(steps, depth, "{}: {place}: {param}", door.name);
        }
    }
}

/// A value that a kind does not take.
fn wrong(kind: ValueKind) -> Option<Value> {
    match kind {
        ValueKind::Any => None,
        ValueKind::Flag => Some(json!("yes")),
        ValueKind::Number(..) => Some(json!("1")),
        ValueKind::Whole => Some(json!(1.5)),
        ValueKind::Count => Some(json!(-1)),
        ValueKind::Tokens => Some(json!(0)),
        ValueKind::Text
        | ValueKind::Words(_)
        | ValueKind::TextOrList(_)
        | ValueKind::TextOrObject => Some(json!(7)),
        ValueKind::Object | ValueKind::List(_) => Some(json!("x")),
    }
}

#[test]
fn a_value_of_the_wrong_type_is_refused_by_name() {
    for door in &DOORS {
        for field in door.tables[0].fields {
            let Some(value) = wrong(field.kind) else { continue };
            let mut body = full(door);
            body[field.name] = value;
            let refusal = (door.read)(&body).err();
            let param = refusal.and_then(|refusal| refusal.param);
            assert_eq!(param.as_deref(), Some(field.name), "{}", door.name);
        }
    }
}

#[test]
fn nothing_is_as_if_the_field_were_not_there() {
    for door in &DOORS {
        let (mut body, full) = (minimal(door), full(door));
        let without = (door.read)(&body).expect("it is read").0;
        for field in door.tables[0].fields {
            if body[field.name].is_null() {
                body[field.name] = Value::Null;
            }
        }
        assert_eq!((door.read)(&body).expect("it is read").0, without, "{}", door.name);
        assert_ne!((door.read)(&full).expect("it is read").0, without);
    }
}

/// The least that a door takes.
fn minimal(door: &Tested) -> Value {
    match door.name {
        "POST /openai/v1/responses" => json!({"model": "m", "input": "hi"}),
        "POST /openai/v1/chat/completions" => {
            json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]})
        }
        _ => json!({"model": "m", "max_tokens": 9,
            "messages": [{"role": "user", "content": "hi"}]}),
    }
}

fn is_refused(door: &Tested, field: &FieldSpec, value: Value) -> bool {
    let mut body = minimal(door);
    body[field.name] = value;
    let refusal = (door.read)(&body).err();
    refusal.and_then(|refusal| refusal.param).as_deref() == Some(field.name)
}

#[test]
fn a_field_alone_changes_the_request_or_is_refused_by_name() {
    for door in &DOORS {
        let (full, without) = (full(door), (door.read)(&minimal(door)).expect("it is read").0);
        for field in door.tables[0].fields {
            match field.handling {
                FieldHandling::Refused(_) => {
                    assert!(is_refused(door, field, json!("x")), "{}: {}", door.name, field.name);
                }
                FieldHandling::Dialect => {}
                _ if field.name == "tool_choice" || field.name == "previous_response_id" => {}
                _ => {
                    let mut body = minimal(door);
                    body[field.name] = full[field.name].clone();
                    let (request, is_told) = (door.read)(&body).expect("it is read");
                    let is_kept = request != without || is_told || body == minimal(door);
                    assert!(is_kept, "{}: {} is ignored", door.name, field.name);
                }
            }
        }
    }
}

#[test]
fn what_asks_for_nothing_is_not_refused() {
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}], "n": 1,
        "logprobs": false, "top_logprobs": null, "functions": [], "function_call": "none",
        "frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}, "stop": null,
        "parallel_tool_calls": true, "modalities": ["text"]});
    let (request, _) = (DOORS[0].read)(&body).expect("it is read");
    assert!(request.options.is_empty(), "{:?}", request.options);
    for (name, value) in [("n", json!(2)), ("logprobs", json!(true)), ("audio", json!({}))] {
        let mut body = body.clone();
        body[name] = value;
        let refusal = (DOORS[0].read)(&body).expect_err("refused");
        assert_eq!(refusal.param.as_deref(), Some(name));
    }
}

#[test]
fn options_keep_their_words() {
    let body = json!({"model": "m", "max_tokens": 2_147_483_647_u32, "top_k": 5, "speed": "fast",
        "thinking": {"type": "enabled", "budget_tokens": 1024}, "metadata": {"user_id": "u"},
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": true},
        "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": {}}},
        "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
        "tools": [{"type": "web_search_20250305", "name": "web_search"}],
        "messages": [{"role": "user", "content": "hi"}, {"role": "system", "content": "now"}]});
    let (request, _) = (DOORS[2].read)(&body).expect("it is read");
    assert_eq!(request.options[&ChatField::TopK], 5);
    assert_eq!(request.options[&ChatField::Thinking]["budget_tokens"], 1024);
    assert_eq!(request.options[&ChatField::User], "u");
    assert_eq!(request.options[&ChatField::ParallelToolCalls], false);
    assert_eq!(
        (request.effort.as_deref(), request.max_tokens),
        (Some("high"), Some(2_147_483_647))
    );
    assert_eq!((request.schema, request.door), (Some(json!({})), Some(ChatInterface::Anthropic)));
    assert_eq!(request.native_tools[0].block["type"], "web_search_20250305");
    assert_eq!(request.system, None);
    let mark = request.messages[0].parts[0].cache_control();
    assert_eq!(mark, Some(&json!({"type": "ephemeral"})));
    assert_eq!(request.messages[2].parts, vec![MessagePart::from_text("now")]);
}
