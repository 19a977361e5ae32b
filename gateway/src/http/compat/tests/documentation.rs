//! The tables of `docs/front-doors.md` are made of what the doors know; `CONVERGIO_BLESS=1` writes
//! them anew.

use std::fmt::Write;

use convergio_domain::chat::{ChatField, ChatInterface, FieldSupport, NATIVE_FIELDS};

use super::super::field_table::{FieldHandling, FieldSpec, ObjectSpec};
use super::super::media;
use super::DOORS;

const BEGIN: &str = "<!-- begin: written by a test -->\n";
const END: &str = "<!-- end -->\n";

fn word(support: FieldSupport) -> &'static str {
    match support {
        FieldSupport::Kept => "kept",
        FieldSupport::LeftOut => "left out, told",
        FieldSupport::Refused => "refused",
    }
}

/// What becomes of a field at every interface, or at each of them.
fn fates(fate: FieldHandling, own: ChatInterface) -> Result<&'static str, Vec<&'static str>> {
    let by = |support: &dyn Fn(ChatInterface) -> FieldSupport| {
        let words: Vec<&str> =
            ChatInterface::ALL.iter().map(|interface| word(support(*interface))).collect();
        match words.iter().all(|word| *word == words[0]) {
            true => Ok(words[0]),
            false => Err(words),
        }
    };
    match fate {
        FieldHandling::Kept => Ok("kept"),
        FieldHandling::Dialect => Ok("the door itself acts on it"),
        FieldHandling::LeftOut => Ok("left out, told"),
        FieldHandling::Refused(_) => Ok("refused, unless it asks for nothing"),
        FieldHandling::Chat(field) | FieldHandling::ChatOption(field) => {
            by(&|interface| field.support_at(interface))
        }
        FieldHandling::Native => by(&|interface| match interface == own {
            true => FieldSupport::Kept,
            false => ChatField::ForeignFields.support_at(interface),
        }),
    }
}

fn row(text: &mut String, name: &str, fate: FieldHandling, own: ChatInterface) {
    let columns = ChatInterface::ALL.len();
    let cells = match fates(fate, own) {
        Ok(word) => vec![word; columns],
        Err(words) => words,
    };
    writeln!(text, "| `{name}` | {} |", cells.join(" | ")).expect("text");
}

fn head(text: &mut String, first: &str) {
    let names: Vec<&str> = ChatInterface::ALL.iter().map(|interface| interface.name()).collect();
    writeln!(text, "| {first} | {} |", names.join(" | ")).expect("text");
    writeln!(text, "|{}", "---|".repeat(names.len() + 1)).expect("text");
}

fn name_of(object: &ObjectSpec, field: &FieldSpec) -> String {
    match object.place.split_once(" (") {
        None if object.place.is_empty() => field.name.to_owned(),
        None => format!("{}.{}", object.place, field.name),
        Some((place, kinds)) => format!("{place}.{} ({kinds}", field.name),
    }
}

fn written() -> String {
    let mut text = String::new();
    let owns =
        [ChatInterface::OpenAiChat, ChatInterface::OpenAiResponses, ChatInterface::Anthropic];
    for (door, own) in DOORS.iter().zip(owns) {
        writeln!(text, "### {}\n", door.name).expect("text");
        head(&mut text, "field");
        for object in door.tables {
            for field in object.fields {
                row(&mut text, &name_of(object, field), field.handling, own);
            }
        }
        text.push('\n');
    }
    for (name, object) in media::TABLES {
        writeln!(text, "### {name}\n\n| field | |\n|---|---|").expect("text");
        for field in object.fields {
            let word = fates(field.handling, ChatInterface::OpenAiChat).unwrap_or("kept");
            writeln!(text, "| `{}` | {word} |", field.name).expect("text");
        }
        text.push('\n');
    }
    writeln!(text, "### By what is asked for, whatever the door\n").expect("text");
    head(&mut text, "what");
    for field in ChatField::ALL {
        row(&mut text, field.name(), FieldHandling::Chat(*field), ChatInterface::OpenAiChat);
    }
    text.push('\n');
    text
}

#[test]
fn the_tables_are_those_of_the_code() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/front-doors.md");
    let document = std::fs::read_to_string(path).expect("the document");
    let (before, rest) = document.split_once(BEGIN).expect("a beginning");
    let (tables, after) = rest.split_once(END).expect("an end");
    let written = written();
    if std::env::var_os("CONVERGIO_BLESS").is_some() {
        std::fs::write(path, format!("{before}{BEGIN}\n{written}{END}{after}")).expect("written");
        return;
    }
    let is_same = tables.trim() == written.trim();
    assert!(is_same, "docs/front-doors.md is not what the doors know: run with CONVERGIO_BLESS=1");
    assert!(!tables.contains("ignored"));
}

#[test]
fn fields_of_one_interface_are_told_by_their_names() {
    let tables = DOORS.iter().flat_map(|door| door.tables);
    for field in tables.flat_map(|object| object.fields) {
        let is_told =
            !matches!(field.handling, FieldHandling::Native) || NATIVE_FIELDS.contains(&field.name);
        assert!(is_told, "{} is not among the fields of one interface", field.name);
    }
}
