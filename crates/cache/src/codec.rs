//! Values to bytes and back, by the rules of the keys that other services share.
//!
//! Rules: a text (anything whose JSON form is a string) is stored as it is, without quotes; everything else as JSON; a read tries
//! JSON first and takes the bytes as a text only when they are not what is wanted as JSON. NaN and the infinities are refused, since JSON has
//! no form for them. Integers are exact in every Rust integer type up to 128 bits; read as an untyped `serde_json::Value` they are
//! exact within `i64` and `u64`, and floats beyond.
//!
//! The first rule has a price that the shared format sets: a text that itself reads as JSON comes back as that JSON to an
//! untyped reader (`"12"` as the number 12), and a text in JSON quotes loses them. In frames, which nobody else reads, JSON is JSON and
//! comes back as it was. Deliberately absent: the frame.

mod finite;
mod stored;
mod text;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use self::stored::Brought;
pub use self::stored::{Coded, Stored};
use crate::error::{Error, ErrorKind, Result};
use crate::frame;

/// The stored form of "there is none".
pub(crate) const NULL: &[u8] = b"null";

/// How values are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Codec {
    /// JSON. In plain regions texts are stored as they are.
    #[default]
    Json,
    /// `MessagePack`, structs as maps with their fields' names. For framed regions only. Integers of 64 bits at the most; NaN and the
    /// infinities come back as they were.
    MessagePack,
}

impl Codec {
    /// The form of a value in a frame.
    pub(crate) fn encode<T: Serialize + ?Sized>(self, value: &T) -> Result<Vec<u8>> {
        if let Some(Brought::Coded(codec, bytes)) = stored::bytes_of(value) {
            return of_this(Some(self), codec, bytes);
        }
        match self {
            Self::Json => json(value),
            Self::MessagePack => rmp_serde::to_vec_named(value).map_err(|_| refused()),
        }
    }

    /// The value of a form in a frame.
    pub(crate) fn decode<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T> {
        if let Some(value) = stored::value_of(Some(self), bytes) {
            return Ok(value);
        }
        match self {
            Self::Json => serde_json::from_slice(bytes).map_err(|error| not_json::<T>(bytes, &error)),
            Self::MessagePack => {
                let mut rest = bytes;
                let value =
                    T::deserialize(&mut rmp_serde::Deserializer::new(&mut rest)).map_err(|error| {
                        undecodable::<T>(bytes, what_is_missing(&error).unwrap_or("it is of another shape"))
                    })?;
                if !rest.is_empty() {
                    return Err(undecodable::<T>(bytes, &format!("{} bytes are left over", rest.len())));
                }
                Ok(value)
            }
        }
    }

    /// Whether the form says that there is none.
    pub(crate) fn says_none(self, bytes: &[u8]) -> bool {
        match self {
            Self::Json => bytes == NULL,
            Self::MessagePack => bytes == [0xC0],
        }
    }
}

/// The plain stored form of a value.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>> {
    match stored::bytes_of(value) {
        Some(Brought::Stored(bytes)) => return Ok(bytes),
        Some(Brought::Coded(codec, bytes)) => return of_this(None, codec, bytes),
        None => {}
    }
    let json = json(value)?;
    if json.first() == Some(&b'"') {
        let text: String = serde_json::from_slice(&json).map_err(unencodable)?;
        return Ok(text.into_bytes());
    }
    Ok(json)
}

/// The bytes that a value has brought, if they are in the form that is wanted.
fn of_this(wanted: Option<Codec>, brought: Option<Codec>, bytes: Vec<u8>) -> Result<Vec<u8>> {
    if wanted == brought {
        return Ok(bytes);
    }
    let name = |codec: Option<Codec>| codec.map_or_else(|| "plain".to_owned(), |codec| format!("{codec:?}"));
    let message = format!("the value is in the form {} and {} is wanted", name(brought), name(wanted));
    Err(Error::new(ErrorKind::Unencodable, message))
}

fn json<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>> {
    let json = serde_json::to_vec(value).map_err(unencodable)?;
    // serde_json writes NaN as null, so only a form with a null in it can hide one.
    if contains_null(&json) {
        finite::check(value).map_err(|what| {
            Error::new(
                ErrorKind::Unencodable,
                format!("the value has no stored form: {what}; replace it, for instance by null"),
            )
        })?;
    }
    Ok(json)
}

/// The value of a plain stored form.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    if let Some(value) = stored::value_of(None, bytes) {
        return Ok(value);
    }
    let error = match serde_json::from_slice(bytes) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(value) = T::deserialize(text::Text(text))
    {
        return Ok(value);
    }
    if frame::is_framed(bytes) {
        return Err(Error::new(
            ErrorKind::Undecodable,
            "the stored bytes are a frame and this reader is a plain one; read the key through a region whose policy is framed, or \
             delete it",
        ));
    }
    Err(not_json::<T>(bytes, &error))
}

/// Whether the stored form, plain or a frame, says that there is none, to a reader whose type has no place for that.
pub(crate) fn is_null(bytes: &[u8]) -> bool {
    bytes == NULL || frame::says_none(bytes)
}

/// What serde says is not told, as it quotes what it has read: a value has no place in an error, which ends in logs.
fn undecodable<T>(bytes: &[u8], what: &str) -> Error {
    let message = format!(
        "the {} stored bytes are no value of type {}: {what}",
        bytes.len(),
        std::any::type_name::<T>()
    );
    Error::new(ErrorKind::Undecodable, message)
}

fn not_json<T>(bytes: &[u8], error: &serde_json::Error) -> Error {
    let what = match error.classify() {
        Category::Data => what_is_missing(error).unwrap_or("it is JSON of another shape").to_owned(),
        Category::Eof => "it is JSON that ends too early".to_owned(),
        Category::Syntax | Category::Io => {
            format!("it is not JSON at line {}, column {}", error.line(), error.column())
        }
    };
    undecodable::<T>(bytes, &what)
}

/// The one thing that serde says in words of the type alone.
fn what_is_missing(error: &impl std::fmt::Display) -> Option<&'static str> {
    error.to_string().starts_with("missing field").then_some("it lacks a field of the type")
}

/// Whether a type has a place for "there is none". A text has not: to it [`NULL`] would be a word.
pub(crate) fn has_none<T: DeserializeOwned>() -> bool {
    stored::value_of::<T>(None, NULL).is_some() || serde_json::from_slice::<T>(NULL).is_ok()
}

fn contains_null(json: &[u8]) -> bool {
    json.windows(NULL.len()).any(|w| w == NULL)
}

fn unencodable(error: serde_json::Error) -> Error {
    match error.classify() {
        // In the words of the value's own type, which may quote it.
        Category::Data => refused(),
        _ => Error::caused(ErrorKind::Unencodable, format!("the value has no stored form: {error}"), error),
    }
}

fn refused() -> Error {
    Error::new(
        ErrorKind::Unencodable,
        "the value has no stored form: its Serialize refuses it, or what is in it does",
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::*;

    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    #[serde(rename_all = "UPPERCASE")]
    enum Side {
        Buy,
        Sell,
    }

    proptest! {
        #[test]
        fn numbers_come_back_exactly(i in any::<i128>(), u in any::<u128>(), small in any::<i64>()) {
            prop_assert_eq!(decode::<i128>(&encode(&i).unwrap()).unwrap(), i);
            prop_assert_eq!(decode::<u128>(&encode(&u).unwrap()).unwrap(), u);
            prop_assert_eq!(decode::<Value>(&encode(&small).unwrap()).unwrap(), json!(small));
        }

        #[test]
        fn finite_floats_come_back_exactly(f in any::<f64>().prop_filter("finite", |f| f.is_finite())) {
            let back: f64 = decode(&encode(&f).unwrap()).unwrap();
            prop_assert_eq!(back.to_bits(), f.to_bits());
        }

        #[test]
        fn a_text_is_stored_as_it_is(text in any::<String>()) {
            prop_assert_eq!(encode(&text).unwrap(), text.as_bytes());
        }

        #[test]
        fn a_text_comes_back_unless_it_is_quoted_json(text in any::<String>()) {
            prop_assume!(serde_json::from_str::<String>(&text).is_err());
            prop_assert_eq!(decode::<String>(&encode(&text).unwrap()).unwrap(), text);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in any::<Vec<u8>>()) {
            let _ = decode::<Value>(&bytes);
            let _ = decode::<BTreeMap<String, f64>>(&bytes);
        }
    }

    #[test]
    fn nan_and_infinities_are_refused_wherever_they_hide() {
        let in_map: BTreeMap<&str, Vec<Option<f64>>> = [("a", vec![None, Some(f64::NAN)])].into();
        for refused in [
            encode(&f64::NAN),
            encode(&f64::INFINITY),
            encode(&f32::NEG_INFINITY),
            encode(&in_map),
            encode(&(1, "null", f64::NAN)),
        ] {
            let error = refused.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unencodable);
            assert!(error.to_string().contains("finite"), "{error}");
        }
    }

    #[test]
    fn bytes_as_they_are_have_a_place_for_none_and_a_text_has_not() {
        assert!(has_none::<Stored>() && has_none::<Option<u8>>());
        assert!(!has_none::<String>() && !has_none::<u8>());
    }

    #[test]
    fn null_is_a_value_like_any_other() {
        assert_eq!(encode(&None::<f64>).unwrap(), NULL);
        assert_eq!(encode(&json!({"a": null, "b": [null, 1.5]})).unwrap(), br#"{"a":null,"b":[null,1.5]}"#);
        assert_eq!(decode::<Option<u8>>(NULL).unwrap(), None);
    }

    #[test]
    fn an_error_quotes_nothing_of_a_value() {
        #[derive(Debug, Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Order {
            price: u64,
            side: Side,
        }
        #[derive(Debug, Serialize, serde::Deserialize)]
        enum Side {
            Buy,
        }
        struct Quoting;
        impl Serialize for Quoting {
            fn serialize<S: serde::Serializer>(&self, _: S) -> std::result::Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("s3cret"))
            }
        }
        let texts = [
            r#"{"price":"s3cret","side":"Buy"}"#,
            r#"{"price":1,"side":"s3cret"}"#,
            r#"{"price":1,"side":"Buy","s3cret":1}"#,
            r#"{"price":1,"side":"s3cret"#,
            r#""s3cret""#,
            "s3cret",
        ];
        let mut errors: Vec<Error> =
            texts.iter().map(|text| decode::<Order>(text.as_bytes()).unwrap_err()).collect();
        for text in &texts[..3] {
            let value: Value = serde_json::from_str(text).unwrap();
            for codec in [Codec::Json, Codec::MessagePack] {
                errors.push(codec.decode::<Order>(&codec.encode(&value).unwrap()).unwrap_err());
            }
        }
        errors.push(encode(&Quoting).unwrap_err());
        errors.extend([Codec::Json, Codec::MessagePack].map(|codec| codec.encode(&Quoting).unwrap_err()));
        for error in errors {
            let source = std::error::Error::source(&error).map(|source| format!("{source} {source:?}"));
            let told = format!("{error} {error:?} {source:?}");
            assert!(!told.contains("s3cret"), "{told}");
        }
        let lacking = decode::<Order>(b"{\"price\":1}").unwrap_err();
        assert!(lacking.to_string().contains("lacks a field"), "{lacking}");
    }

    #[test]
    fn a_plain_text_is_read_as_text_by_every_type_that_takes_one() {
        assert_eq!(decode::<String>(b"hello").unwrap(), "hello");
        assert_eq!(decode::<String>(b"123").unwrap(), "123");
        assert_eq!(decode::<Option<String>>(b"hello").unwrap().as_deref(), Some("hello"));
        assert_eq!(decode::<Value>(b"hello").unwrap(), json!("hello"));
        assert_eq!(decode::<Value>(b"123").unwrap(), json!(123));
        assert_eq!(encode(&Side::Buy).unwrap(), b"BUY");
        assert_eq!(decode::<Side>(b"SELL").unwrap(), Side::Sell);
    }

    #[test]
    fn garbage_is_undecodable_and_nothing_else() {
        assert_eq!(decode::<u32>(b"hello").unwrap_err().kind(), ErrorKind::Undecodable);
        assert_eq!(decode::<Value>(b"\xff\xfe").unwrap_err().kind(), ErrorKind::Undecodable);
        assert_eq!(decode::<u8>(b"").unwrap_err().kind(), ErrorKind::Undecodable);
    }
}
