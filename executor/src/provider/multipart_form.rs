//! Multipart forms with one file (RFC 7578), in which providers expect recordings.

use bytes::Bytes;
use uuid::Uuid;

use super::error::ModelError;

/// The file of a form.
pub(super) struct FormFile<'a> {
    pub(super) name: &'a str,
    pub(super) media_type: &'a str,
    pub(super) bytes: &'a [u8],
}

/// Writes a form; returns its bytes and its media type with the boundary.
///
/// # Errors
/// `request.invalid`: the file's media type is malformed.
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
    // One allocation: recordings are large.
    let mut form = Vec::with_capacity(bytes.len() + 1024);
    for (name, value) in fields {
        let field_header =
            format!("--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n");
        form.extend_from_slice(format!("{field_header}\r\n{value}\r\n").as_bytes());
    }
    let file_header = format!(
        "--{boundary}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{}\"\r\n\
         content-type: {media_type}\r\n\r\n",
        file_name(name, media_type)
    );
    form.extend_from_slice(file_header.as_bytes());
    form.extend_from_slice(bytes);
    form.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    Ok((form.into(), format!("multipart/form-data; boundary={boundary}")))
}

/// Returns the file name as a quoted parameter may hold it. A missing name is made up from the
/// media type: providers recognise the format by its extension.
fn file_name(name: &str, media_type: &str) -> String {
    if name.is_empty() {
        let (_, ending) = media_type.split_once('/').unwrap_or_default();
        let ending = ending.split(';').next().unwrap_or_default().trim_end();
        return format!("audio.{ending}");
    }
    let escape = |letter: char| match letter {
        '"' => "%22".to_owned(),
        letter if letter.is_control() => format!("%{:02X}", u32::from(letter)),
        letter => letter.to_string(),
    };
    name.chars().map(escape).collect()
}

/// Returns whether a text is a media type on a single line, with or without parameters. A line
/// break would add headers to the form.
fn is_media_type(text: &str) -> bool {
    let is_line = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    is_line && text.split_once('/').is_some_and(|(kind, rest)| !kind.is_empty() && !rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::{file_name, is_media_type};

    #[test]
    fn nothing_leaves_its_header() {
        assert_eq!(file_name("a\"b\r\nx: y.mp3", "audio/mpeg"), "a%22b%0D%0Ax: y.mp3");
        assert_eq!(file_name("", "audio/wav"), "audio.wav");
        assert_eq!(file_name("", "audio/webm;codecs=opus"), "audio.webm");
        for media_type in ["audio/x-wav", "application/octet-stream", "audio/webm;codecs=opus"] {
            assert!(is_media_type(media_type), "{media_type}");
        }
        for odd in ["audio/wav\r\nx: y", "audio", "/wav", "audio/"] {
            assert!(!is_media_type(odd), "{odd}");
        }
    }
}
