//! `noun_events!`, which declares the events of one noun, each with its payload and its wire type.

/// Declares an enum of events: each kind is named once, and the compiler asks for it wherever
/// events are matched.
macro_rules! noun_events {
    (
        $(#[$doc:meta])*
        pub enum $events:ident { $($kind:ident($payload:ty) = $type_name:literal,)* }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
        #[serde(tag = "type", content = "data")]
        #[expect(missing_docs, reason = "each kind is documented at its payload")]
        pub enum $events {
            $(#[serde(rename = $type_name)] $kind($payload),)*
        }

        impl $events {
            /// Wire types of the events, in the order of their declaration.
            pub(crate) const TYPE_NAMES: &[&str] = &[$($type_name),*];

            /// Returns the wire type, which ends in the version of the form.
            pub fn type_name(&self) -> &'static str {
                match self {
                    $(Self::$kind(_) => $type_name,)*
                }
            }

            /// Finds the function that reads the data of a wire type; `None` if the type belongs
            /// to another noun.
            pub(crate) fn find_decoder<'de, D: serde::Deserializer<'de>>(
                type_name: &str,
            ) -> Option<fn(D) -> Result<Self, D::Error>> {
                match type_name {
                    $($type_name => Some(|data| {
                        <$payload as serde::Deserialize>::deserialize(data).map(Self::$kind)
                    }),)*
                    _ => None,
                }
            }
        }
    };
}

pub(crate) use noun_events;
