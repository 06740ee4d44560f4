//! `cjson`: its functions and their settings. A setting stays for the scripts that come after, as in Redis.
//!
//! What encodes and decodes is in `json_encode.rs` and `json_decode.rs`.

use std::sync::Arc;

use mlua::{Lua, MultiValue, Table, Value};
use parking_lot::Mutex;

use super::arguments::{Call, function, one};
use super::{json_decode, json_encode};

/// What becomes of numbers that JSON does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Invalid {
    /// An error.
    Refused,
    /// Written or read as C does.
    Allowed,
    /// Written as null.
    Null,
}

/// The settings of one `cjson`.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) sparse_convert: bool,
    pub(super) sparse_ratio: i64,
    pub(super) sparse_safe: i64,
    pub(super) encode_max_depth: i64,
    pub(super) decode_max_depth: i64,
    pub(super) precision: i64,
    keep_buffer: bool,
    pub(super) encode_invalid: Invalid,
    pub(super) decode_invalid: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sparse_convert: false,
            sparse_ratio: 2,
            sparse_safe: 10,
            encode_max_depth: 1000,
            decode_max_depth: 1000,
            precision: 14,
            keep_buffer: true,
            encode_invalid: Invalid::Refused,
            decode_invalid: true,
        }
    }
}

const OFF_ON: &[&str] = &["off", "on"];
const MAX: i64 = i32::MAX as i64;

pub(super) fn library(lua: &Lua) -> mlua::Result<Table> {
    let settings = Arc::new(Mutex::new(Settings::default()));
    let table = lua.create_table()?;
    table.raw_set("_NAME", "cjson")?;
    table.raw_set("_VERSION", "2.1.0")?;
    table.raw_set("null", Value::NULL)?;
    let with = |run: fn(&Call<'_>, &mut Settings) -> mlua::Result<MultiValue>, takes: usize| {
        let settings = Arc::clone(&settings);
        function(lua, move |call| {
            if call.len() > takes {
                return Err(call.bad_argument(takes + 1, "found too many arguments"));
            }
            // Each works on a copy, so that nothing is locked while Lua runs.
            let mut copy = settings.lock().clone();
            let result = run(call, &mut copy);
            // What was set before an argument that is wrong stays.
            *settings.lock() = copy;
            result
        })
    };
    let shared = Arc::clone(&settings);
    let encode = function(lua, move |call| {
        if call.len() != 1 {
            return Err(call.bad_argument(1, "expected 1 argument"));
        }
        let settings = shared.lock().clone();
        json_encode::encode(call, &settings).map(one)
    })?;
    table.raw_set("encode", encode)?;
    let shared = Arc::clone(&settings);
    let decode = function(lua, move |call| {
        if call.len() != 1 {
            return Err(call.bad_argument(1, "expected 1 argument"));
        }
        let settings = shared.lock().clone();
        json_decode::decode(call, &settings).map(one)
    })?;
    table.raw_set("decode", decode)?;
    table.raw_set("encode_sparse_array", with(sparse_array, 3)?)?;
    table.raw_set(
        "encode_max_depth",
        with(|call, settings| integer(call, 1, &mut settings.encode_max_depth, 1, MAX).map(one), 1)?,
    )?;
    table.raw_set(
        "decode_max_depth",
        with(|call, settings| integer(call, 1, &mut settings.decode_max_depth, 1, MAX).map(one), 1)?,
    )?;
    table.raw_set(
        "encode_number_precision",
        with(|call, settings| integer(call, 1, &mut settings.precision, 1, 14).map(one), 1)?,
    )?;
    table.raw_set("encode_keep_buffer", with(keep_buffer, 1)?)?;
    table.raw_set("encode_invalid_numbers", with(encode_invalid, 1)?)?;
    table.raw_set("decode_invalid_numbers", with(decode_invalid, 1)?)?;
    table.raw_set("new", function(lua, |call| library(call.lua).map(|table| one(Value::Table(table))))?)?;
    Ok(table)
}

/// Sets an integer if one is given, and tells it.
fn integer(call: &Call<'_>, index: usize, setting: &mut i64, min: i64, max: i64) -> mlua::Result<Value> {
    if call.has(index) {
        let value = i64::from(call.integer(index)? as i32);
        if !(min..=max).contains(&value) {
            return Err(call.bad_argument(1, &format!("expected integer between {min} and {max}")));
        }
        *setting = value;
    }
    Ok(Value::Integer(*setting))
}

/// The number of the word, or of the boolean, if there is one.
fn choice(call: &Call<'_>, words: &[&str]) -> mlua::Result<Option<usize>> {
    match call.get(1) {
        None | Some(Value::Nil) => Ok(None),
        Some(Value::Boolean(value)) => Ok(Some(usize::from(*value))),
        Some(_) => {
            let word = call.string(1)?.to_string_lossy();
            match words.iter().position(|known| *known == word) {
                Some(number) => Ok(Some(number)),
                None => Err(call.bad_argument(1, &format!("invalid option '{word}'"))),
            }
        }
    }
}

fn sparse_array(call: &Call<'_>, settings: &mut Settings) -> mlua::Result<MultiValue> {
    if let Some(number) = choice(call, OFF_ON)? {
        settings.sparse_convert = number == 1;
    }
    let convert = Value::Boolean(settings.sparse_convert);
    let ratio = integer(call, 2, &mut settings.sparse_ratio, 0, MAX)?;
    let safe = integer(call, 3, &mut settings.sparse_safe, 0, MAX)?;
    Ok(MultiValue::from_iter([convert, ratio, safe]))
}

fn keep_buffer(call: &Call<'_>, settings: &mut Settings) -> mlua::Result<MultiValue> {
    if let Some(number) = choice(call, OFF_ON)? {
        settings.keep_buffer = number == 1;
    }
    Ok(one(Value::Boolean(settings.keep_buffer)))
}

fn encode_invalid(call: &Call<'_>, settings: &mut Settings) -> mlua::Result<MultiValue> {
    if let Some(number) = choice(call, &["off", "on", "null"])? {
        settings.encode_invalid = match number {
            0 => Invalid::Refused,
            1 => Invalid::Allowed,
            _ => Invalid::Null,
        };
    }
    Ok(one(match settings.encode_invalid {
        Invalid::Refused => Value::Boolean(false),
        Invalid::Allowed => Value::Boolean(true),
        Invalid::Null => Value::String(call.lua.create_string("null")?),
    }))
}

fn decode_invalid(call: &Call<'_>, settings: &mut Settings) -> mlua::Result<MultiValue> {
    if let Some(number) = choice(call, OFF_ON)? {
        settings.decode_invalid = number == 1;
    }
    Ok(one(Value::Boolean(settings.decode_invalid)))
}
