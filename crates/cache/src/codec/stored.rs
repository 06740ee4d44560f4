//! Bytes that are their own stored form, for callers who bring a codec of their own: the Python package makes Python objects of them.
//!
//! Invariant: such bytes go into the cache and come out of it as they are, whatever they are; nothing looks inside. A value says so by
//! the name under which it (de)serializes, which any serde format can be asked for without a walk over the value. Deliberately absent:
//! other types; what is no [`Stored`] is turned down at once and takes the codec's way.

use std::fmt;

use serde::de::{self, Visitor};
use serde::ser::{self, Impossible};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The name under which [`Stored`] (de)serializes. No type can have it by accident.
const NAME: &str = "$mtcache::Stored";

/// Bytes that are their own stored form.
///
/// ```
/// use mtcache_cache::codec::{Stored, decode, encode};
///
/// let stored = Stored(vec![0xff, b'"']);
/// assert_eq!(encode(&stored).unwrap(), [0xff, b'"']);
/// assert_eq!(decode::<Stored>(&[0xff, b'"']).unwrap(), stored);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored(pub Vec<u8>);

impl Serialize for Stored {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(NAME, &Inside(&self.0))
    }
}

struct Inside<'a>(&'a [u8]);

impl Serialize for Inside<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de> Deserialize<'de> for Stored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(NAME, Taken)
    }
}

struct Taken;

impl<'de> Visitor<'de> for Taken {
    type Value = Stored;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stored bytes")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Stored, E> {
        Ok(Stored(bytes.to_vec()))
    }

    fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Stored, E> {
        Ok(Stored(bytes))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Stored, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = items.next_element()? {
            bytes.push(byte);
        }
        Ok(Stored(bytes))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inside: D) -> Result<Stored, D::Error> {
        inside.deserialize_byte_buf(self)
    }
}

/// The bytes, if the value is a [`Stored`].
pub(super) fn bytes_of<T: Serialize + ?Sized>(value: &T) -> Option<Vec<u8>> {
    value.serialize(Ask { named: false }).ok()
}

/// The value, if its type is a [`Stored`].
pub(super) fn value_of<T: de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    T::deserialize(Give(bytes)).ok()
}

/// Turned down. Without a text, since it is thrown away at once.
#[derive(Debug)]
struct Other;

impl fmt::Display for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no stored bytes")
    }
}

impl std::error::Error for Other {}

impl ser::Error for Other {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

impl de::Error for Other {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

/// Takes bytes under the name, and nothing else.
struct Ask {
    named: bool,
}

macro_rules! turned_down {
    ($($method:ident($($arg:ty),*) -> $result:ty;)*) => {
        $(fn $method(self $(, _: $arg)*) -> Result<$result, Other> { Err(Other) })*
    };
}

impl Serializer for Ask {
    type Ok = Vec<u8>;
    type Error = Other;
    type SerializeSeq = Impossible<Vec<u8>, Other>;
    type SerializeTuple = Impossible<Vec<u8>, Other>;
    type SerializeTupleStruct = Impossible<Vec<u8>, Other>;
    type SerializeTupleVariant = Impossible<Vec<u8>, Other>;
    type SerializeMap = Impossible<Vec<u8>, Other>;
    type SerializeStruct = Impossible<Vec<u8>, Other>;
    type SerializeStructVariant = Impossible<Vec<u8>, Other>;

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<Vec<u8>, Other> {
        if name == NAME { value.serialize(Self { named: true }) } else { Err(Other) }
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<Vec<u8>, Other> {
        if self.named { Ok(bytes.to_vec()) } else { Err(Other) }
    }

    turned_down! {
        serialize_bool(bool) -> Vec<u8>;
        serialize_i8(i8) -> Vec<u8>;
        serialize_i16(i16) -> Vec<u8>;
        serialize_i32(i32) -> Vec<u8>;
        serialize_i64(i64) -> Vec<u8>;
        serialize_u8(u8) -> Vec<u8>;
        serialize_u16(u16) -> Vec<u8>;
        serialize_u32(u32) -> Vec<u8>;
        serialize_u64(u64) -> Vec<u8>;
        serialize_f32(f32) -> Vec<u8>;
        serialize_f64(f64) -> Vec<u8>;
        serialize_char(char) -> Vec<u8>;
        serialize_str(&str) -> Vec<u8>;
        serialize_none() -> Vec<u8>;
        serialize_unit() -> Vec<u8>;
        serialize_unit_struct(&'static str) -> Vec<u8>;
        serialize_unit_variant(&'static str, u32, &'static str) -> Vec<u8>;
        serialize_seq(Option<usize>) -> Self::SerializeSeq;
        serialize_tuple(usize) -> Self::SerializeTuple;
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Self::SerializeTupleVariant;
        serialize_map(Option<usize>) -> Self::SerializeMap;
        serialize_struct(&'static str, usize) -> Self::SerializeStruct;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Self::SerializeStructVariant;
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<Vec<u8>, Other> {
        Err(Other)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<Vec<u8>, Other> {
        Err(Other)
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, _: &T) -> Result<Vec<u8>, Other> {
        Err(Other)
    }
}

/// Gives bytes to who asks for them under the name, and nothing to anybody else.
struct Give<'a>(&'a [u8]);

impl<'de> Deserializer<'de> for Give<'_> {
    type Error = Other;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Other> {
        Err(Other)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Other> {
        if name == NAME { visitor.visit_bytes(self.0) } else { Err(Other) }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct seq
        tuple tuple_struct map struct enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{decode, encode};
    use super::*;

    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    struct Wrapped(Vec<u8>);

    proptest! {
        #[test]
        fn any_bytes_go_in_and_come_out_as_they_are(bytes in any::<Vec<u8>>()) {
            let stored = Stored(bytes.clone());
            prop_assert_eq!(encode(&stored).unwrap(), bytes.clone());
            prop_assert_eq!(decode::<Stored>(&bytes).unwrap(), stored);
        }
    }

    #[test]
    fn other_types_take_the_codecs_way() {
        assert_eq!(encode(&Wrapped(vec![1, 2])).unwrap(), b"[1,2]");
        assert_eq!(decode::<Wrapped>(b"[1,2]").unwrap(), Wrapped(vec![1, 2]));
        assert_eq!(encode("text").unwrap(), b"text");
        assert!(bytes_of(&Some(1)).is_none() && value_of::<Option<u8>>(b"1").is_none());
    }

    #[test]
    fn another_format_keeps_them_too() {
        let json = serde_json::to_string(&Stored(vec![1, 255])).unwrap();
        assert_eq!(serde_json::from_str::<Stored>(&json).unwrap(), Stored(vec![1, 255]));
    }
}
