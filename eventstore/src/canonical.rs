//! Canonical JSON (RFC 8785) for what is hashed.
//!
//! Record bodies consist of objects with ASCII names and whole numbers, thousands of them a second:
//! they are serialized as they come, and their members are sorted in place. Any other value is left
//! to `serde_json_canonicalizer`; a property test holds both paths to the same bytes.

use std::cmp::Ordering;
use std::ops::Range;

use serde::Serialize;

/// Maximum digits of a whole number that a double represents exactly, as RFC 8785 requires.
const EXACT_DIGITS: usize = 15;

/// Encodes a value as canonical JSON.
///
/// # Errors
/// The value cannot be serialized, or holds a number that JSON does not have.
pub(crate) fn to_canonical_json(value: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = serde_json::to_vec(value)?;
    match (MemberSorter { bytes: &mut bytes, members: Vec::new(), frames: Vec::new() })
        .sort_members()
    {
        Some(()) => Ok(bytes),
        None => serde_json_canonicalizer::to_vec(value),
    }
}

/// Byte ranges of an object's member: its name without quotes, and all of it.
struct JsonMember {
    name: Range<usize>,
    whole: Range<usize>,
}

/// An object or array that is not closed yet.
#[derive(Clone, Copy)]
enum JsonFrame {
    Object {
        /// Offset of its first member.
        from: usize,
        /// Offset of the member that is being read.
        member: usize,
        /// Number of members of the enclosing objects that were collected before it.
        before: usize,
    },
    List,
}

/// Sorts the members of compact JSON in place, each object as soon as it ends.
struct MemberSorter<'a> {
    bytes: &'a mut [u8],
    /// Members of all open objects, the innermost last.
    members: Vec<JsonMember>,
    frames: Vec<JsonFrame>,
}

impl MemberSorter<'_> {
    /// Sorts all objects. `None` if a value needs the general encoder; the bytes are unusable then.
    fn sort_members(mut self) -> Option<()> {
        let mut offset = 0;
        while let Some(byte) = self.bytes.get(offset) {
            offset = match byte {
                b'{' => self.open_object(offset + 1),
                b'[' => {
                    self.frames.push(JsonFrame::List);
                    offset + 1
                }
                b']' => {
                    self.frames.pop();
                    offset + 1
                }
                b',' => self.next_member(offset),
                b'}' => self.close_object(offset)?,
                b'"' => self.scan_text(offset)?,
                b'-' | b'0'..=b'9' => self.scan_number(offset)?,
                _ => offset + 1,
            };
        }
        Some(())
    }

    fn open_object(&mut self, from: usize) -> usize {
        self.frames.push(JsonFrame::Object { from, member: from, before: self.members.len() });
        from
    }

    fn next_member(&mut self, at: usize) -> usize {
        // A comma in an array separates values, not members.
        if let Some(JsonFrame::Object { member, .. }) = self.frames.last_mut() {
            if let Some(last) = self.members.last_mut() {
                last.whole.end = at;
            }
            *member = at + 1;
        }
        at + 1
    }

    /// Scans a string, which is a member's name or a value. `None` for a name with escapes or
    /// non-ASCII characters: RFC 8785 sorts names by UTF-16 code units, which differs from byte
    /// order for them.
    fn scan_text(&mut self, at: usize) -> Option<usize> {
        let from = at + 1;
        let mut end = from;
        loop {
            match self.bytes.get(end)? {
                b'"' => break,
                b'\\' => end += 2,
                _ => end += 1,
            }
        }
        if let Some(JsonFrame::Object { member, .. }) = self.frames.last()
            && *member == at
        {
            let is_plain = |byte: &u8| byte.is_ascii() && *byte != b'\\';
            if !self.bytes[from..end].iter().all(is_plain) {
                return None;
            }
            self.members.push(JsonMember { name: from..end, whole: at..end });
        }
        Some(end + 1)
    }

    /// Scans a number. `None` unless it is a whole number whose canonical form is the one it has.
    fn scan_number(&self, at: usize) -> Option<usize> {
        let digits = at + usize::from(self.bytes[at] == b'-');
        let rest = &self.bytes[digits..];
        let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let is_whole = !matches!(rest.get(length), Some(b'.' | b'e' | b'E'));
        // RFC 8785 writes -0 as 0.
        let is_minus_zero = digits > at && rest.first() == Some(&b'0');
        (is_whole && length <= EXACT_DIGITS && !is_minus_zero).then_some(digits + length)
    }

    fn close_object(&mut self, at: usize) -> Option<usize> {
        let Some(JsonFrame::Object { from, before, .. }) = self.frames.pop() else { return None };
        if self.members.len() > before {
            if let Some(last) = self.members.last_mut() {
                last.whole.end = at;
            }
            self.reorder_members(from, before)?;
        }
        Some(at + 1)
    }

    /// Sorts the members from index `before` on by name, and writes them back from offset `from`
    /// on.
    fn reorder_members(&mut self, from: usize, before: usize) -> Option<()> {
        let members = &mut self.members[before..];
        let bytes = &*self.bytes;
        let order =
            |a: &JsonMember, b: &JsonMember| bytes[a.name.clone()].cmp(&bytes[b.name.clone()]);
        let is_sorted = members.windows(2).all(|two| order(&two[0], &two[1]) == Ordering::Less);
        if !is_sorted {
            members.sort_by(order);
            // Duplicate names have no canonical order.
            if members.windows(2).any(|two| order(&two[0], &two[1]) == Ordering::Equal) {
                return None;
            }
            let parts = members.iter().map(|member| &bytes[member.whole.clone()]);
            // Sorting permutes the members, so the length stays and nothing after them moves.
            let sorted = parts.collect::<Vec<_>>().join(&b',');
            self.bytes[from..from + sorted.len()].copy_from_slice(&sorted);
        }
        self.members.truncate(before);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};
    use serde_json::{Value, json};

    use super::{MemberSorter, to_canonical_json};

    fn is_plain(value: &Value) -> bool {
        let mut bytes = serde_json::to_vec(value).unwrap();
        MemberSorter { bytes: &mut bytes, members: Vec::new(), frames: Vec::new() }
            .sort_members()
            .is_some()
    }

    /// An object whose members are serialized in the order of its fields.
    #[derive(serde::Serialize)]
    struct UnsortedObject {
        type_name: u8,
        b: BTreeMap<&'static str, InnerObject>,
        a: Vec<InnerObject>,
        empty: BTreeMap<u8, u8>,
        aa: Option<&'static str>,
    }

    #[derive(Clone, serde::Serialize)]
    struct InnerObject {
        z: i64,
        y: &'static str,
        #[serde(rename = "Z")]
        upper: bool,
    }

    #[test]
    fn members_come_in_the_order_of_their_names() {
        let inner = InnerObject { z: -7, y: "{\"a\":[,]}\\", upper: true };
        let value = UnsortedObject {
            type_name: 1,
            b: [("x", inner.clone())].into(),
            a: vec![inner.clone(), inner],
            empty: BTreeMap::new(),
            aa: None,
        };
        let sorted = to_canonical_json(&value).unwrap();
        assert_eq!(sorted, serde_json_canonicalizer::to_vec(&value).unwrap());
        assert!(
            sorted.starts_with(br#"{"a":[{"Z":true,"y":"#),
            "{}",
            String::from_utf8_lossy(&sorted)
        );
    }

    #[test]
    fn what_is_not_plain_is_left_to_the_library() {
        for plain in [json!({"b": 1, "a": [0, -12, "é\n\"", null, {}]}), json!([]), json!("x")] {
            assert!(is_plain(&plain), "{plain}");
        }
        for odd in [json!({"é": 1}), json!({"a\n": 1}), json!(1.5), json!(1e300), json!(u64::MAX)]
        {
            assert!(!is_plain(&odd), "{odd}");
            let expected = serde_json_canonicalizer::to_vec(&odd).unwrap();
            assert_eq!(to_canonical_json(&odd).unwrap(), expected);
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let names = prop_oneof!["[a-c_Z]{0,2}", Just("é".to_owned()), Just("\"".to_owned())];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1000_i64..1000).prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 40, 5, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::hash_map(names.clone(), inner, 0..5)
                    .prop_map(|fields| fields.into_iter().collect()),
            ]
        })
    }

    /// Serializes the members of every object in reverse order.
    struct Backwards<'a>(&'a Value);

    impl serde::Serialize for Backwards<'_> {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self.0 {
                Value::Array(list) => serializer.collect_seq(list.iter().map(Backwards)),
                Value::Object(fields) => serializer
                    .collect_map(fields.iter().rev().map(|(name, value)| (name, Backwards(value)))),
                other => other.serialize(serializer),
            }
        }
    }

    proptest! {
        #[test]
        fn the_bytes_are_those_of_the_library(value in values()) {
            let expected = serde_json_canonicalizer::to_vec(&value).unwrap();
            prop_assert_eq!(&to_canonical_json(&value).unwrap(), &expected);
            prop_assert_eq!(&to_canonical_json(&Backwards(&value)).unwrap(), &expected);
        }
    }
}
