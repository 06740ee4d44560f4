//! Lua values to JSON.
//!
//! Invariant: nothing recurses, so that no table can exhaust the stack; a table that contains itself ends at the depth limit.

use mlua::{Table, Value};

use super::arguments::{Call, type_name};
use super::json::{Invalid, Settings};

/// Tables in one another, whatever the setting: what fits on Lua's stack of 8,000 places.
const MAX_NESTING: i64 = 2660;
/// Bytes of the longest text. Default: 512 MB, as of all strings.
const MAX_TEXT: usize = 512 * 1024 * 1024;

/// A table that is being written.
enum Open {
    Array { table: Table, next: i64, len: i64 },
    Object { table: Table, keys: std::vec::IntoIter<Key>, is_first: bool },
}

/// A key of an object. Not a Lua value: no more than some thousands of those that are no plain numbers can be held at once.
enum Key {
    Text(Vec<u8>),
    Number(Value),
    /// What no text can be made of, by its type.
    Other(&'static str),
}

impl Key {
    fn of(value: Value) -> Self {
        match value {
            Value::String(text) => Self::Text(text.as_bytes().to_vec()),
            Value::Integer(_) | Value::Number(_) => Self::Number(value),
            other => Self::Other(type_name(&other)),
        }
    }
}

pub(super) fn encode(call: &Call<'_>, settings: &Settings) -> mlua::Result<Value> {
    let mut out = Vec::new();
    let mut open = Vec::new();
    if let Some(value) = call.get(1) {
        write(call, settings, value, &mut out, &mut open)?;
    }
    while let Some(top) = open.last_mut() {
        if out.len() > MAX_TEXT {
            return Err(call.error("Cannot serialise: text too long"));
        }
        let value = match top {
            Open::Array { table, next, len } => {
                if *next > *len {
                    out.push(b']');
                    open.pop();
                    continue;
                }
                if *next > 1 {
                    out.push(b',');
                }
                *next += 1;
                table.raw_get::<Value>(*next - 1)?
            }
            Open::Object { table, keys, is_first } => {
                let Some(key) = keys.next() else {
                    out.push(b'}');
                    open.pop();
                    continue;
                };
                if !*is_first {
                    out.push(b',');
                }
                *is_first = false;
                write_key(call, settings, &key, &mut out)?;
                match &key {
                    Key::Text(text) => table.raw_get(call.lua.create_string(text)?)?,
                    Key::Number(number) => table.raw_get(number)?,
                    Key::Other(_) => Value::Nil,
                }
            }
        };
        write(call, settings, &value, &mut out, &mut open)?;
    }
    Ok(Value::String(call.lua.create_string(out)?))
}

fn refuse(call: &Call<'_>, kind: &str, reason: &str) -> mlua::Error {
    call.error(format!("Cannot serialise {kind}: {reason}"))
}

fn write_key(call: &Call<'_>, settings: &Settings, key: &Key, out: &mut Vec<u8>) -> mlua::Result<()> {
    match key {
        Key::Text(text) => write_text(text, out),
        Key::Number(number) => {
            out.push(b'"');
            write_number(call, settings, number, out)?;
            out.push(b'"');
        }
        Key::Other(kind) => return Err(refuse(call, kind, "table key must be a number or string")),
    }
    out.push(b':');
    Ok(())
}

fn write(
    call: &Call<'_>,
    settings: &Settings,
    value: &Value,
    out: &mut Vec<u8>,
    open: &mut Vec<Open>,
) -> mlua::Result<()> {
    match value {
        Value::Nil => out.extend_from_slice(b"null"),
        Value::LightUserData(pointer) if pointer.0.is_null() => out.extend_from_slice(b"null"),
        Value::Boolean(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        Value::Integer(_) | Value::Number(_) => write_number(call, settings, value, out)?,
        Value::String(text) => write_text(&text.as_bytes(), out),
        Value::Table(table) => {
            let depth = open.len() as i64 + 1;
            if depth > settings.encode_max_depth.min(MAX_NESTING) {
                return Err(call.error(format!("Cannot serialise, excessive nesting ({depth})")));
            }
            match array_len(call, settings, table)? {
                Some(len) if len > 0 => {
                    out.push(b'[');
                    open.push(Open::Array { table: table.clone(), next: 1, len });
                }
                _ => {
                    out.push(b'{');
                    let keys = table.pairs::<Value, Value>().map(|pair| Ok(Key::of(pair?.0)));
                    let keys = keys.collect::<mlua::Result<Vec<_>>>()?.into_iter();
                    open.push(Open::Object { table: table.clone(), keys, is_first: true });
                }
            }
        }
        other => return Err(refuse(call, type_name(other), "type not supported")),
    }
    Ok(())
}

/// The length of the array that the table is, if it is one.
fn array_len(call: &Call<'_>, settings: &Settings, table: &Table) -> mlua::Result<Option<i64>> {
    let (mut items, mut largest) = (0_i64, 0);
    for pair in table.pairs::<Value, Value>() {
        match pair?.0 {
            Value::Integer(number) if number >= 1 => largest = largest.max(number),
            _ => return Ok(None),
        }
        items += 1;
    }
    if settings.sparse_ratio > 0
        && largest > items.saturating_mul(settings.sparse_ratio)
        && largest > settings.sparse_safe
    {
        if !settings.sparse_convert {
            return Err(refuse(call, "table", "excessively sparse array"));
        }
        return Ok(None);
    }
    Ok(Some(largest))
}

fn write_text(text: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.reserve(text.len() + 2);
    out.push(b'"');
    for &byte in text {
        match byte {
            b'"' | b'\\' | b'/' => out.extend([b'\\', byte]),
            8 => out.extend_from_slice(b"\\b"),
            9 => out.extend_from_slice(b"\\t"),
            10 => out.extend_from_slice(b"\\n"),
            12 => out.extend_from_slice(b"\\f"),
            13 => out.extend_from_slice(b"\\r"),
            0..=31 | 127 => {
                out.extend_from_slice(b"\\u00");
                let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0');
                out.extend([digit(byte >> 4), digit(byte & 15)]);
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

fn write_number(call: &Call<'_>, settings: &Settings, value: &Value, out: &mut Vec<u8>) -> mlua::Result<()> {
    let number = match value {
        Value::Integer(number) => *number as f64,
        Value::Number(number) => *number,
        _ => 0.0,
    };
    if !number.is_finite() {
        match settings.encode_invalid {
            Invalid::Refused => return Err(refuse(call, "number", "must not be NaN or Inf")),
            Invalid::Null => out.extend_from_slice(b"null"),
            Invalid::Allowed if number.is_nan() => out.extend_from_slice(b"nan"),
            Invalid::Allowed if number > 0.0 => out.extend_from_slice(b"inf"),
            Invalid::Allowed => out.extend_from_slice(b"-inf"),
        }
        return Ok(());
    }
    write_shortened(number, usize::try_from(settings.precision).unwrap_or(14), out);
    Ok(())
}

/// The number with this many significant digits, as `%.14g` writes it.
fn write_shortened(number: f64, precision: usize, out: &mut Vec<u8>) {
    let precision = precision.max(1);
    if number.fract() == 0.0
        && number.abs() < 1e6
        && precision >= 6
        && number.to_bits() != (-0.0_f64).to_bits()
    {
        out.extend_from_slice(itoa::Buffer::new().format(number as i64).as_bytes());
        return;
    }
    let scientific = format!("{number:.*e}", precision - 1);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let trimmed = |text: &str| {
        let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text };
        text.to_owned()
    };
    let text = if exponent < -4 || exponent >= precision as i32 {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{}e{sign}{:02}", trimmed(mantissa), exponent.abs())
    } else {
        let decimals = usize::try_from(precision as i32 - 1 - exponent).unwrap_or_default();
        trimmed(&format!("{number:.decimals$}"))
    };
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::write_shortened;

    #[test]
    fn numbers_are_written_as_c_writes_them() {
        for (number, precision, text) in [
            (0.0, 14, "0"),
            (-0.0, 14, "-0"),
            (1.0 / 3.0, 14, "0.33333333333333"),
            (1e15, 14, "1e+15"),
            (99_999_999_999_999.0, 14, "99999999999999"),
            (999_999_999_999_999.0, 14, "1e+15"),
            (1e-5, 14, "1e-05"),
            (0.0001, 14, "0.0001"),
            (1.5e300, 14, "1.5e+300"),
            (123_456.0, 3, "1.23e+05"),
            (2.5, 1, "2"),
            (-12.375, 14, "-12.375"),
        ] {
            let mut out = Vec::new();
            write_shortened(number, precision, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), text);
        }
    }
}
