//! Bytes that are their own stored form, for callers who bring a codec of their own: the Python package makes Python objects of them.
//!
//! Invariant: such bytes go into the cache and come out of it as they are, whatever they are; nothing looks inside. A value says so by
//! the name under which it (de)serializes, which any serde format can be asked for without a walk over the value. Deliberately absent:
//! other types; what is no [`Stored`] or [`Coded`] is turned down at once and takes the codec's way.

use std::fmt;

use serde::de::value::U8Deserializer;
use serde::de::{self, DeserializeSeed, IntoDeserializer, SeqAccess, Visitor};
use serde::ser::{self, Impossible};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::Codec;

/// The name under which [`Stored`] (de)serializes. No type can have it by accident.
const NAME: &str = "$mtcache::Stored";
/// The names of [`Coded`], by the number of its form.
const CODED_NAMES: [&str; 3] = ["$mtcache::Coded", "$mtcache::Coded::Json", "$mtcache::Coded::MessagePack"];

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

/// Bytes that are their own stored form in regions that may be framed, with the codec of that form.
///
/// What is set must have the region's codec, or none in a plain region; others are refused as
/// [`ErrorKind::Unencodable`](crate::ErrorKind::Unencodable). What is read says which it has: a framed region may hold values of both codecs,
/// and plain ones. To other formats than the cache's it is the value that the bytes stand for.
///
/// ```
/// use mtcache_cache::Codec;
/// use mtcache_cache::codec::{Coded, decode, encode};
///
/// let plain = Coded { codec: None, bytes: b"words".to_vec() };
/// assert_eq!(encode(&plain).unwrap(), b"words");
/// assert_eq!(decode::<Coded>(b"words").unwrap(), plain);
/// assert!(encode(&Coded { codec: Some(Codec::Json), bytes: b"1".to_vec() }).is_err());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coded {
    /// The codec of the bytes; none for the plain form.
    pub codec: Option<Codec>,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Serialize for Coded {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            let name = CODED_NAMES[usize::from(number(self.codec))];
            return serializer.serialize_newtype_struct(name, &Inside(&self.bytes));
        }
        let value: Option<Value> = match self.codec {
            None | Some(Codec::Json) => serde_json::from_slice(&self.bytes).ok(),
            Some(Codec::MessagePack) => rmp_serde::from_slice(&self.bytes).ok(),
        };
        match (value, std::str::from_utf8(&self.bytes)) {
            (Some(value), _) => value.serialize(serializer),
            (None, Ok(text)) => serializer.serialize_str(text),
            (None, Err(_)) => serializer.serialize_bytes(&self.bytes),
        }
    }
}

impl<'de> Deserialize<'de> for Coded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TakenWithCodec;

        impl<'de> Visitor<'de> for TakenWithCodec {
            type Value = Coded;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a cache's stored bytes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Coded, A::Error> {
                let codec = match parts.next_element::<u8>()? {
                    Some(0) => None,
                    Some(1) => Some(Codec::Json),
                    Some(2) => Some(Codec::MessagePack),
                    _ => return Err(de::Error::custom("no form of stored bytes")),
                };
                match parts.next_element::<Stored>()? {
                    Some(Stored(bytes)) => Ok(Coded { codec, bytes }),
                    None => Err(de::Error::custom("no stored bytes")),
                }
            }
        }

        deserializer.deserialize_newtype_struct(CODED_NAMES[0], TakenWithCodec)
    }
}

fn number(codec: Option<Codec>) -> u8 {
    match codec {
        None => 0,
        Some(Codec::Json) => 1,
        Some(Codec::MessagePack) => 2,
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

/// The bytes of a value that has brought its own, and the codec that they are in.
pub(super) enum Brought {
    /// Those of a [`Stored`], which is for plain regions.
    Stored(Vec<u8>),
    Coded(Option<Codec>, Vec<u8>),
}

/// The bytes, if the value is a [`Stored`] or a [`Coded`].
pub(super) fn bytes_of<T: Serialize + ?Sized>(value: &T) -> Option<Brought> {
    value.serialize(Ask { as_what: None }).ok()
}

/// The value of bytes in this form, if its type is a [`Coded`], or a [`Stored`] and the form is the plain one.
pub(super) fn value_of<T: de::DeserializeOwned>(codec: Option<Codec>, bytes: &[u8]) -> Option<T> {
    T::deserialize(Give { codec, bytes }).ok()
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

/// Takes bytes under the names, and nothing else.
struct Ask {
    /// Makes what was brought of the bytes, once the name has been said.
    as_what: Option<fn(Vec<u8>) -> Brought>,
}

macro_rules! turned_down {
    ($($method:ident($($arg:ty),*) -> $result:ty;)*) => {
        $(fn $method(self $(, _: $arg)*) -> Result<$result, Other> { Err(Other) })*
    };
}

impl Serializer for Ask {
    type Ok = Brought;
    type Error = Other;
    type SerializeSeq = Impossible<Brought, Other>;
    type SerializeTuple = Impossible<Brought, Other>;
    type SerializeTupleStruct = Impossible<Brought, Other>;
    type SerializeTupleVariant = Impossible<Brought, Other>;
    type SerializeMap = Impossible<Brought, Other>;
    type SerializeStruct = Impossible<Brought, Other>;
    type SerializeStructVariant = Impossible<Brought, Other>;

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<Brought, Other> {
        let as_what: fn(Vec<u8>) -> Brought = match name {
            NAME => Brought::Stored,
            _ if name == CODED_NAMES[0] => |bytes| Brought::Coded(None, bytes),
            _ if name == CODED_NAMES[1] => |bytes| Brought::Coded(Some(Codec::Json), bytes),
            _ if name == CODED_NAMES[2] => |bytes| Brought::Coded(Some(Codec::MessagePack), bytes),
            _ => return Err(Other),
        };
        value.serialize(Self { as_what: Some(as_what) })
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<Brought, Other> {
        self.as_what.map(|as_what| as_what(bytes.to_vec())).ok_or(Other)
    }

    /// So that a [`Coded`] shows its bytes.
    fn is_human_readable(&self) -> bool {
        false
    }

    turned_down! {
        serialize_bool(bool) -> Brought;
        serialize_i8(i8) -> Brought;
        serialize_i16(i16) -> Brought;
        serialize_i32(i32) -> Brought;
        serialize_i64(i64) -> Brought;
        serialize_u8(u8) -> Brought;
        serialize_u16(u16) -> Brought;
        serialize_u32(u32) -> Brought;
        serialize_u64(u64) -> Brought;
        serialize_f32(f32) -> Brought;
        serialize_f64(f64) -> Brought;
        serialize_char(char) -> Brought;
        serialize_str(&str) -> Brought;
        serialize_none() -> Brought;
        serialize_unit() -> Brought;
        serialize_unit_struct(&'static str) -> Brought;
        serialize_unit_variant(&'static str, u32, &'static str) -> Brought;
        serialize_seq(Option<usize>) -> Self::SerializeSeq;
        serialize_tuple(usize) -> Self::SerializeTuple;
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Self::SerializeTupleVariant;
        serialize_map(Option<usize>) -> Self::SerializeMap;
        serialize_struct(&'static str, usize) -> Self::SerializeStruct;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Self::SerializeStructVariant;
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<Brought, Other> {
        Err(Other)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<Brought, Other> {
        Err(Other)
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, _: &T) -> Result<Brought, Other> {
        Err(Other)
    }
}

/// Gives bytes to who asks for them under the name, and nothing to anybody else.
struct Give<'a> {
    codec: Option<Codec>,
    bytes: &'a [u8],
}

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
        match name {
            NAME if self.codec.is_none() => visitor.visit_bytes(self.bytes),
            _ if name == CODED_NAMES[0] => visitor.visit_seq(Parts { of: self, given: 0 }),
            _ => Err(Other),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct seq
        tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// A form's number and its bytes, one after the other.
struct Parts<'a> {
    of: Give<'a>,
    given: u8,
}

impl<'de> SeqAccess<'de> for Parts<'_> {
    type Error = Other;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Other> {
        self.given = self.given.saturating_add(1);
        match self.given {
            1 => {
                let number: U8Deserializer<Other> = number(self.of.codec).into_deserializer();
                seed.deserialize(number).map(Some)
            }
            2 => seed.deserialize(Give { codec: None, bytes: self.of.bytes }).map(Some),
            _ => Ok(None),
        }
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
        assert!(bytes_of(&Some(1)).is_none() && value_of::<Option<u8>>(None, b"1").is_none());
    }

    #[test]
    fn bytes_in_a_frame_say_their_codec_and_are_refused_by_another() {
        for codec in [Codec::Json, Codec::MessagePack] {
            let coded = Coded { codec: Some(codec), bytes: vec![0x91, 0xff] };
            assert_eq!(codec.encode(&coded).unwrap(), coded.bytes);
            assert_eq!(codec.decode::<Coded>(&coded.bytes).unwrap(), coded);
            assert_eq!(encode(&coded).unwrap_err().kind(), crate::ErrorKind::Unencodable);
            let plain = Coded { codec: None, ..coded };
            assert_eq!(codec.encode(&plain).unwrap_err().kind(), crate::ErrorKind::Unencodable);
            assert_eq!(encode(&plain).unwrap(), plain.bytes);
        }
    }

    #[test]
    fn another_format_sees_the_value_of_coded_bytes() {
        let shown =
            |codec, bytes: &[u8]| serde_json::to_value(Coded { codec, bytes: bytes.to_vec() }).unwrap();
        assert_eq!(shown(None, b"{ \"a\" : 1 }"), serde_json::json!({"a": 1}));
        assert_eq!(shown(None, b"words"), serde_json::json!("words"));
        assert_eq!(shown(Some(Codec::MessagePack), &[0x93, 1, 2, 3]), serde_json::json!([1, 2, 3]));
    }

    #[test]
    fn another_format_keeps_them_too() {
        let json = serde_json::to_string(&Stored(vec![1, 255])).unwrap();
        assert_eq!(serde_json::from_str::<Stored>(&json).unwrap(), Stored(vec![1, 255]));
    }
}
