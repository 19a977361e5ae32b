//! Deserialises an event whose wire type is known before its data.
//!
//! Serde reads an adjacently tagged enum without a buffer only if the tag comes first. Presenting
//! the event as a map of two entries, `type` first, sends the data straight into its struct.

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};

use super::Event;

/// An event as a map of two entries, `type` first.
struct TypedEventText<'a> {
    type_name: &'a str,
    data: &'a str,
    entries_read: usize,
}

/// Deserialises an event of a current version from its wire type and the JSON of its data.
pub(super) fn deserialize_event(type_name: &str, data: &str) -> Result<Event, serde_json::Error> {
    Event::deserialize(TypedEventText { type_name, data, entries_read: 0 })
}

impl<'de> MapAccess<'de> for TypedEventText<'de> {
    type Error = serde_json::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Self::Error> {
        let Some(key) = ["type", "data"].get(self.entries_read).copied() else { return Ok(None) };
        seed.deserialize(BorrowedStrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, Self::Error> {
        self.entries_read += 1;
        if self.entries_read == 1 {
            return seed.deserialize(BorrowedStrDeserializer::new(self.type_name));
        }
        let mut data = serde_json::Deserializer::from_str(self.data);
        let value = seed.deserialize(&mut data)?;
        // The deserialiser stops after one value; trailing text would pass unnoticed.
        data.end()?;
        Ok(value)
    }
}

impl<'de> Deserializer<'de> for TypedEventText<'de> {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_map(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier
        ignored_any
    }
}
