//! Reading an event from its written text: the type is known before the data is read, so the data
//! goes into its form at once and nothing is kept in between.

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};

use super::Event;

/// An event as a map of two entries, the type first.
struct Written<'a> {
    type_name: &'a str,
    data: &'a str,
    given: usize,
}

/// Reads an event of a current form from its type and the JSON of its data.
pub(super) fn read(type_name: &str, data: &str) -> Result<Event, serde_json::Error> {
    Event::deserialize(Written { type_name, data, given: 0 })
}

impl<'de> MapAccess<'de> for Written<'de> {
    type Error = serde_json::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Self::Error> {
        let Some(key) = ["type", "data"].get(self.given).copied() else { return Ok(None) };
        seed.deserialize(BorrowedStrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, Self::Error> {
        self.given += 1;
        if self.given == 1 {
            return seed.deserialize(BorrowedStrDeserializer::new(self.type_name));
        }
        let mut data = serde_json::Deserializer::from_str(self.data);
        let value = seed.deserialize(&mut data)?;
        data.end()?;
        Ok(value)
    }
}

impl<'de> Deserializer<'de> for Written<'de> {
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
