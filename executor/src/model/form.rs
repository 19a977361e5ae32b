//! Forms with a file (RFC 7578), as providers take recordings.

use bytes::Bytes;
use uuid::Uuid;

use super::error::ModelError;

/// A file in a form.
pub(super) struct FormFile<'a> {
    pub(super) name: &'a str,
    pub(super) media_type: &'a str,
    pub(super) bytes: &'a [u8],
}

/// A form, and its media type with the boundary.
///
/// # Errors
/// The file's media type is none.
pub(super) fn write_form<'a>(
    fields: impl Iterator<Item = (&'static str, &'a str)>,
    file: FormFile<'_>,
) -> Result<(Bytes, String), ModelError> {
    let FormFile { name, media_type, bytes } = file;
    if !is_media_type(media_type) {
        let message = "a recording has a media type as audio/wav";
        return Err(ModelError::new("request.invalid", false, message));
    }
    let boundary = format!("convergio-{}", Uuid::now_v7().simple());
    let mut form = Vec::with_capacity(bytes.len() + 1024);
    for (name, value) in fields {
        let head = format!("--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n");
        form.extend_from_slice(format!("{head}\r\n{value}\r\n").as_bytes());
    }
    let head = format!(
        "--{boundary}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{}\"\r\n\
         content-type: {media_type}\r\n\r\n",
        file_name(name, media_type)
    );
    form.extend_from_slice(head.as_bytes());
    form.extend_from_slice(bytes);
    form.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    Ok((form.into(), format!("multipart/form-data; boundary={boundary}")))
}

/// A name within quotes; its ending tells providers the format.
fn file_name(name: &str, media_type: &str) -> String {
    if name.is_empty() {
        let (_, ending) = media_type.split_once('/').unwrap_or_default();
        return format!("audio.{ending}");
    }
    let escape = |letter: char| match letter {
        '"' => "%22".to_owned(),
        letter if letter.is_control() => format!("%{:02X}", u32::from(letter)),
        letter => letter.to_string(),
    };
    name.chars().map(escape).collect()
}

/// Whether a text is a media type without parameters.
fn is_media_type(text: &str) -> bool {
    let is_token = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._+".contains(&b))
    };
    text.split_once('/').is_some_and(|(kind, rest)| is_token(kind) && is_token(rest))
}

#[cfg(test)]
mod tests {
    use super::{file_name, is_media_type};

    #[test]
    fn nothing_leaves_its_header() {
        assert_eq!(file_name("a\"b\r\nx: y.mp3", "audio/mpeg"), "a%22b%0D%0Ax: y.mp3");
        assert_eq!(file_name("", "audio/wav"), "audio.wav");
        assert!(is_media_type("audio/x-wav") && is_media_type("application/octet-stream"));
        for odd in ["audio/wav\r\nx: y", "audio", "/wav", "audio/", "audio/wav; codecs=1"] {
            assert!(!is_media_type(odd), "{odd}");
        }
    }
}
