//! Scrubbing of provider messages for logs and errors: no keys, no prompts, no control characters,
//! bounded length.

use super::config::Secret;

/// Maximum characters of a scrubbed message.
const LENGTH_LIMIT: usize = 300;
/// Characters in a row that, if they are also in the prompt, count as a quotation of it.
const QUOTE_LENGTH: usize = 24;
/// Prefixes of keys of well-known providers.
const KEY_MARKS: [&str; 6] = ["sk-", "sk_", "AIza", "key-", "xai-", "gsk_"];
/// Characters after such a prefix that make a word a key.
const KEY_LENGTH: usize = 8;

/// Returns the provider's message without secrets. `key` is masked wherever it occurs; a message
/// that quotes the `prompt` is replaced as a whole.
pub(crate) fn scrub_message(message: &str, key: Option<&Secret>, prompt: &str) -> String {
    let masked = match key {
        Some(key) if !key.is_empty() => message.replace(key.expose_secret(), &key.to_string()),
        _ => message.to_owned(),
    };
    // After the configured key, so that it is shown by its last four characters where it is known.
    let words: Vec<&str> = split_words(&masked).map(hide_key).collect();
    let scrubbed: String = words.join(" ").chars().take(LENGTH_LIMIT).collect();
    if quotes_prompt(&scrubbed, prompt) {
        "(its words repeat the prompt)".to_owned()
    } else {
        scrubbed
    }
}

/// Returns a short name given by a provider, such as a model or a finish reason, without control
/// characters and cut to `limit` characters.
pub(crate) fn clean_name(text: &str, limit: usize) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(limit).collect()
}

/// Splits a text at white space and control characters.
fn split_words(text: &str) -> impl Iterator<Item = &str> {
    let is_between = |letter: char| letter.is_whitespace() || letter.is_control();
    text.split(is_between).filter(|word| !word.is_empty())
}

/// Replaces a word that contains a key by `[key]`. The prefix must not follow a letter or digit:
/// `risk-` does not contain `sk-`.
fn hide_key(word: &str) -> &str {
    let begins_key = |mark: &&str| {
        let is_begin =
            |at: usize| !word[..at].ends_with(|letter: char| letter.is_ascii_alphanumeric());
        let mut places = word.match_indices(*mark);
        places.any(|(at, _)| is_begin(at) && word.len() - at >= mark.len() + KEY_LENGTH)
    };
    if KEY_MARKS.iter().any(begins_key) { "[key]" } else { word }
}

/// Returns whether any stretch of the message is in the prompt. Errors are rare and short, so a
/// search for every stretch is fast enough.
fn quotes_prompt(message: &str, prompt: &str) -> bool {
    // White space is normalised as in the message, which may wrap lines differently.
    let prompt = split_words(prompt).collect::<Vec<_>>().join(" ");
    let ends = message.char_indices().map(|(at, _)| at).chain([message.len()]).skip(QUOTE_LENGTH);
    message.char_indices().zip(ends).any(|((begin, _), end)| prompt.contains(&message[begin..end]))
}

#[cfg(test)]
mod tests {
    use super::scrub_message;
    use crate::provider::Secret;

    #[test]
    fn keys_are_hidden_whoever_repeats_them() {
        let key = Secret::new("canary-key-0123456789");
        let said = "Incorrect API key provided: canary-key-0123456789.\nUse AIzaSyCanary0001 or \
            (sk-proj-canary0002)";
        let text = scrub_message(said, Some(&key), "");
        assert_eq!(text, "Incorrect API key provided: …6789. Use [key] or [key]");
        let harmless = "the risk-management desk-organisation sk-1";
        assert_eq!(scrub_message(harmless, None, ""), harmless);
    }

    #[test]
    fn a_quoted_prompt_is_left_out() {
        let prompt = "Dear diary,\n  today I told nobody";
        let said = "cannot parse: Dear diary, today I told nobody";
        assert_eq!(scrub_message(said, None, prompt), "(its words repeat the prompt)");
        assert_eq!(scrub_message("model `x` not found", None, prompt), "model `x` not found");
        assert_eq!(scrub_message("", None, prompt), "");
    }

    #[test]
    fn control_characters_and_length_are_bounded() {
        assert_eq!(scrub_message("a\u{1b}[31mb\r\nc", None, ""), "a [31mb c");
        assert_eq!(scrub_message(&"ü".repeat(1000), None, "").chars().count(), 300);
    }
}
