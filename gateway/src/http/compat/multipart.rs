//! Parsing of multipart forms (RFC 7578) that are completely in memory.

use bytes::Bytes;

use super::refusal::CompatRefusal;

/// Maximum parts of a form.
const PARTS_LIMIT: usize = 64;

/// A field of a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FormPart {
    pub(super) name: String,
    /// File name, if the field is a file.
    pub(super) file_name: Option<String>,
    pub(super) media_type: String,
    pub(super) bytes: Bytes,
}

/// Parses a form.
///
/// # Errors
/// A refusal if it is no form, has too many parts, or is truncated.
pub(super) fn read_form(content_type: &str, body: &Bytes) -> Result<Vec<FormPart>, CompatRefusal> {
    let unreadable_form =
        |why: &str| CompatRefusal::invalid_field("", format!("the form cannot be read: {why}"));
    let (kind, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return Err(unreadable_form("it must be multipart/form-data"));
    }
    let boundary = header_parameter(parameters, "boundary").filter(|text| !text.is_empty());
    let boundary = boundary.ok_or_else(|| unreadable_form("it names no boundary"))?;
    // The first delimiter has no line break before it; the line break before the others belongs to
    // the delimiter, not to the part (RFC 2046, 5.1.1).
    let (first, between) = (format!("--{boundary}"), format!("\r\n--{boundary}"));
    let mut offset =
        find_bytes(body, first.as_bytes(), 0).ok_or_else(|| unreadable_form("it has no parts"))?;
    offset += first.len();
    let mut parts = Vec::new();
    loop {
        match body.get(offset..offset + 2) {
            Some(b"--") => return Ok(parts),
            Some(b"\r\n") if parts.len() < PARTS_LIMIT => offset += 2,
            Some(b"\r\n") => return Err(unreadable_form("it has too many parts")),
            _ => return Err(unreadable_form("it broke off")),
        }
        let end = find_bytes(body, between.as_bytes(), offset)
            .ok_or_else(|| unreadable_form("it broke off"))?;
        let part =
            read_part(body, offset, end).ok_or_else(|| unreadable_form("a part has no name"))?;
        parts.push(part);
        offset = end + between.len();
    }
}

fn read_part(body: &Bytes, from: usize, end: usize) -> Option<FormPart> {
    let head_end = find_bytes(body.get(..end)?, b"\r\n\r\n", from)?;
    let head = String::from_utf8_lossy(body.get(from..head_end)?);
    // Header lines end with CRLF, which `lines` strips.
    let value = |name: &str| {
        head.lines().find_map(|line| {
            let (header, value) = line.split_once(':')?;
            header.trim().eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let disposition = value("content-disposition")?;
    Some(FormPart {
        name: header_parameter(&disposition, "name")?,
        file_name: header_parameter(&disposition, "filename"),
        media_type: value("content-type").unwrap_or_default(),
        // Slices share the body's allocation: a file is not copied.
        bytes: body.slice(head_end + 4..end),
    })
}

/// Returns a parameter of a header value, quoted or bare.
fn header_parameter(value: &str, name: &str) -> Option<String> {
    value.split(';').find_map(|parameter| {
        let (known, value) = parameter.split_once('=')?;
        let value = value.trim().trim_matches('"').to_owned();
        known.trim().eq_ignore_ascii_case(name).then_some(value)
    })
}

/// Finds a needle by its first byte; boundaries are short and rarely repeat it.
fn find_bytes(body: &[u8], needle: &[u8], from: usize) -> Option<usize> {
    let rest = body.get(from..)?;
    let first = *needle.first()?;
    let mut offset = 0;
    while let Some(next) = rest.get(offset..)?.iter().position(|byte| *byte == first) {
        offset += next;
        if rest.get(offset..)?.starts_with(needle) {
            return Some(from + offset);
        }
        offset += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::read_form;

    const KIND: &str = "multipart/form-data; boundary=\"XX\"";

    #[test]
    fn fields_and_files_are_read() {
        let body = "--XX\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n\
            --XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\
            Content-Type: audio/wav\r\n\r\nRI\r\n--XY\r\nFF\r\n--XX--\r\n";
        let form = read_form(KIND, &Bytes::from_static(body.as_bytes())).expect("a form");
        assert_eq!((form[0].name.as_str(), &form[0].bytes[..]), ("model", &b"whisper-1"[..]));
        assert_eq!(form[1].file_name.as_deref(), Some("a.wav"));
        assert_eq!(
            (form[1].media_type.as_str(), &form[1].bytes[..]),
            ("audio/wav", &b"RI\r\n--XY\r\nFF"[..])
        );
    }

    #[test]
    fn what_is_cut_anywhere_is_no_form() {
        let body = "--XX\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb\r\n--XX--";
        for end in 0..body.len() {
            assert!(
                read_form(KIND, &Bytes::from_static(&body.as_bytes()[..end])).is_err(),
                "{end}"
            );
        }
        assert!(read_form("application/json", &Bytes::from_static(body.as_bytes())).is_err());
    }
}
