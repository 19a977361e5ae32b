//! Splitting documents as people write them.

use convergio_domain::time::Timestamp;
use convergio_executor::tool::call_pure_tool;
use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};
use serde_json::{Value, json};

fn split(arguments: &Value) -> Vec<(String, String)> {
    let pieces = call_pure_tool("text.split", arguments, Timestamp(0)).expect("a text");
    let text = |piece: &Value, name: &str| piece[name].as_str().expect("a text").to_owned();
    let pieces = pieces.as_array().expect("a list");
    pieces.iter().map(|piece| (text(piece, "title"), text(piece, "text"))).collect()
}

fn titles(text: &str) -> Vec<String> {
    split(&json!({"text": text})).into_iter().map(|(title, _)| title).collect()
}

fn texts(arguments: &Value) -> Vec<String> {
    split(arguments).into_iter().map(|(_, text)| text).collect()
}

#[test]
fn markdown_headings_divide() {
    let text =
        "before\n# One #\nfirst\n\n## Two\r\nsecond\r\n\nThree\n=====\nthird\n\nFour\n---\nfourth";
    let expected = [
        ("", "before"),
        ("One", "first"),
        ("Two", "second"),
        ("Three", "third"),
        ("Four", "fourth"),
    ];
    let expected: Vec<_> = expected.map(|(a, b)| (a.to_owned(), b.to_owned())).into();
    assert_eq!(split(&json!({"text": text})), expected);
}

#[test]
fn what_only_looks_like_a_heading_does_not() {
    let texts = [
        "#hashtag is no heading\ntext",
        "####### seven marks\ntext",
        "#\ntext",
        "text\nLOUD in the middle\ntext",
        "A sentence.\nNASA\nAnother.",
        "1. Buy milk\n2. Buy bread\n",
        "Shopping:\n\n1. Buy milk.\n\n2. Buy bread.\n\ntext",
        "Section 1. The judicial Power of the United States, shall be vested in one supreme Court",
        "1984 Was a year\n\ntext",
        "I love you\n\ntext",
        "中文标题\n\n没有大写",
        "***\n\ntext",
        "```\n# a comment\n```\ntext",
        "~~~\n\nLOUD\n\n~~~\n",
    ];
    for text in texts {
        assert_eq!(titles(text), [""], "{text}");
    }
}

#[test]
fn plain_headings_stand_by_themselves() {
    let cases = [
        ("ARTICLE III", true),
        ("THE END OF THE STORY", true),
        ("CHAPTER I. THE WHALE", true),
        ("IV", true),
        ("I.", true),
        ("Chapter 3", true),
        ("Article. I.", true),
        ("Section 2: Limits", false),
        ("1. Introduction", false),
        ("2.3 Related Work", false),
        ("4 Results", false),
        ("XII) Of Truth", false),
    ];
    for (heading, may_touch) in cases {
        let expected = ["", heading];
        assert_eq!(titles(&format!("before\n\n{heading}\n\ntext")), expected, "{heading}");
        let touching = titles(&format!("before\n\n{heading}\ntext"));
        assert_eq!(touching == expected, may_touch, "{heading} {touching:?}");
    }
}

#[test]
fn a_real_document_divides_at_its_headings() {
    let text = include_str!("../../../examples/documents/constitution.md");
    let marked: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# ")).collect();
    assert_eq!(titles(text), marked);
    let pieces = split(&json!({"text": text, "max_chars": 1500}));
    assert!(pieces.iter().all(|(title, text)| !title.is_empty() && text.chars().count() <= 1500));
    assert!(pieces.iter().all(|(_, text)| text.ends_with('.')), "cut at the ends of sentences");
}

#[test]
fn paragraphs_lines_and_characters_divide() {
    let text = "one\ntwo\n \t\nthree\r\n\r\n\n\nfour";
    assert_eq!(texts(&json!({"text": text, "by": "paragraph"})), ["one\ntwo", "three", "four"]);
    assert_eq!(texts(&json!({"text": text, "by": "lines"})), ["one", "two", "three", "four"]);
    let arguments = json!({"text": "äöü€😀x", "by": "chars", "max_chars": 2});
    assert_eq!(texts(&arguments), ["äö", "ü€", "😀x"]);
    assert_eq!(texts(&json!({"text": " \n ", "by": "lines"})), Vec::<String>::new());
}

#[test]
fn long_texts_are_cut_at_sentences_or_words() {
    let text = "One sentence here. Another sentence there. And a third one.";
    let expected = ["One sentence here. Another sentence there.", "And a third one."];
    assert_eq!(texts(&json!({"text": text, "by": "chars", "max_chars": 45})), expected);
    let expected = ["One sentence", "here. Another", "sentence", "there. And a", "third one."];
    assert_eq!(texts(&json!({"text": text, "by": "chars", "max_chars": 14})), expected);
}

proptest! {
    #[test]
    fn nothing_but_white_space_is_lost_and_no_piece_is_too_long(
        words in prop::collection::vec("[a-zäß€.]{1,12}|\n|\n\n| ", 0..80),
        max_chars in 1..40_usize, by in prop::sample::select(vec!["paragraph", "lines", "chars"]),
    ) {
        let text = words.join(" ");
        let pieces = texts(&json!({"text": text, "by": by, "max_chars": max_chars}));
        let letters = |text: &str| text.split_whitespace().collect::<String>();
        prop_assert_eq!(letters(&pieces.join(" ")), letters(&text));
        prop_assert!(pieces.iter().all(|piece| piece.chars().count() <= max_chars));
        prop_assert!(pieces.iter().all(|piece| piece.trim() == piece && !piece.is_empty()));
    }

    #[test]
    fn any_text_divides_at_headings(text in any::<String>(), max_chars in 1..10_usize) {
        let pieces = split(&json!({"text": text, "max_chars": max_chars}));
        prop_assert!(pieces.iter().all(|(_, text)| text.chars().count() <= max_chars));
    }
}
