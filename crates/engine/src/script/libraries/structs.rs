//! `struct`: values in the layouts of C.
//!
//! Sizes are those of a 64-bit machine, byte order is little-endian unless the format says otherwise.

use mlua::{Lua, MultiValue, Table, Value};

use super::arguments::{Call, function, one};

/// Bytes of the longest integer. The original's limit.
const MAX_INTEGER: usize = 32;
/// Bytes of the longest string that is packed. Default: 512 MB, as of all strings.
const MAX_PACKED: usize = 512 * 1024 * 1024;

pub(super) fn library(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("pack", function(lua, pack)?)?;
    table.raw_set("unpack", function(lua, unpack)?)?;
    table.raw_set("size", function(lua, size)?)?;
    Ok(table)
}

/// A format while it is read.
struct Format<'f> {
    rest: &'f [u8],
    align: usize,
    big_endian: bool,
}

/// One letter of a format, with the size that belongs to it.
struct Item {
    letter: u8,
    size: usize,
}

impl<'f> Format<'f> {
    fn new(format: &'f [u8]) -> Self {
        // Formats end where C's texts do.
        let end = format.iter().position(|byte| *byte == 0).unwrap_or(format.len());
        Self { rest: format.get(..end).unwrap_or_default(), align: 1, big_endian: false }
    }

    fn next(&mut self, call: &Call<'_>) -> mlua::Result<Option<Item>> {
        let Some((&letter, rest)) = self.rest.split_first() else { return Ok(None) };
        self.rest = rest;
        let size = match letter {
            b'b' | b'B' | b'x' => 1,
            b'h' | b'H' => 2,
            b'f' => 4,
            b'l' | b'L' | b'T' | b'd' => 8,
            b'c' => self.number(call, 1)?,
            b'i' | b'I' => {
                let size = self.number(call, 4)?;
                if size > MAX_INTEGER {
                    return Err(
                        call.error(format!("integral size {size} is larger than limit of {MAX_INTEGER}"))
                    );
                }
                size
            }
            _ => 0,
        };
        Ok(Some(Item { letter, size }))
    }

    fn number(&mut self, call: &Call<'_>, default: usize) -> mlua::Result<usize> {
        const MAX: usize = i32::MAX as usize;
        if !self.rest.first().is_some_and(u8::is_ascii_digit) {
            return Ok(default);
        }
        let mut number = 0_usize;
        while let Some((digit, rest)) = self.rest.split_first().filter(|(byte, _)| byte.is_ascii_digit()) {
            let digit = usize::from(digit - b'0');
            if number > MAX / 10 || number * 10 > MAX - digit {
                return Err(call.error("integral size overflow"));
            }
            number = number * 10 + digit;
            self.rest = rest;
        }
        Ok(number)
    }

    /// Bytes that bring `position` to where the item may stand.
    fn padding(&self, position: usize, item: &Item) -> usize {
        if item.size == 0 || item.letter == b'c' {
            return 0;
        }
        let size = item.size.min(self.align);
        size.wrapping_sub(position & (size - 1)) & (size - 1)
    }

    /// A letter that is no value but changes how those after it are laid out.
    fn control(&mut self, call: &Call<'_>, letter: u8) -> mlua::Result<()> {
        match letter {
            b' ' => {}
            b'>' => self.big_endian = true,
            b'<' => self.big_endian = false,
            b'!' => {
                let align = self.number(call, 8)?;
                if !align.is_power_of_two() {
                    return Err(call.error(format!("alignment {align} is not a power of 2")));
                }
                self.align = align;
            }
            other => {
                return Err(call.bad_argument(1, &format!("invalid format option '{}'", char::from(other))));
            }
        }
        Ok(())
    }
}

/// The bits of a number as an integer of any sign, as x86 converts it.
fn integer_bits(number: f64) -> u64 {
    const HALF: f64 = 9_223_372_036_854_775_808.0;
    if number < HALF {
        super::arguments::truncate(number) as u64
    } else {
        (super::arguments::truncate(number - HALF) as u64) ^ (1 << 63)
    }
}

fn pack(call: &Call<'_>) -> mlua::Result<MultiValue> {
    let format = call.string(1)?;
    let format = format.as_bytes();
    let mut format = Format::new(&format);
    let (mut out, mut index) = (Vec::new(), 2);
    while let Some(item) = format.next(call)? {
        let wanted = if item.letter == b'c' { 0 } else { item.size };
        let padding = format.padding(out.len(), &item);
        if out.len().saturating_add(wanted + padding) > MAX_PACKED {
            return Err(call.error("packed data too long"));
        }
        out.resize(out.len() + padding, 0);
        match item.letter {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                let mut bytes = [0; MAX_INTEGER];
                bytes[..8].copy_from_slice(&integer_bits(packed_number(call, index)?).to_le_bytes());
                let bytes = bytes.get_mut(..item.size).unwrap_or_default();
                if format.big_endian {
                    bytes.reverse();
                }
                out.extend_from_slice(bytes);
                index += 1;
            }
            b'x' => out.push(0),
            b'f' => {
                let bytes = packed_number(call, index)? as f32;
                out.extend(if format.big_endian { bytes.to_be_bytes() } else { bytes.to_le_bytes() });
                index += 1;
            }
            b'd' => {
                let bytes = packed_number(call, index)?;
                out.extend(if format.big_endian { bytes.to_be_bytes() } else { bytes.to_le_bytes() });
                index += 1;
            }
            b'c' | b's' => {
                if call.get(index).is_none() {
                    return Err(missing(call, index, "string"));
                }
                let text = call.string(index)?;
                let text = text.as_bytes();
                let size = if item.size == 0 { text.len() } else { item.size };
                index += 1;
                let Some(part) = text.get(..size) else {
                    return Err(call.bad_argument(index, "string too short"));
                };
                if out.len() + part.len() > MAX_PACKED {
                    return Err(call.error("packed data too long"));
                }
                out.extend_from_slice(part);
                if item.letter == b's' {
                    out.push(0);
                }
            }
            other => format.control(call, other)?,
        }
    }
    Ok(one(Value::String(call.lua.create_string(out)?)))
}

fn packed_number(call: &Call<'_>, index: usize) -> mlua::Result<f64> {
    if call.get(index).is_none() {
        return Err(missing(call, index, "number"));
    }
    call.number(index)
}

/// An argument that is not there: the original sees its own nil just after the last one.
fn missing(call: &Call<'_>, index: usize, expected: &str) -> mlua::Error {
    let found = if index == call.len() + 1 { "nil" } else { "no value" };
    call.bad_argument(index, &format!("{expected} expected, got {found}"))
}

fn unpack(call: &Call<'_>) -> mlua::Result<MultiValue> {
    /// Values of one call: as many as Lua's stack takes.
    const MAX_RESULTS: usize = 7900;
    let format = call.string(1)?;
    let format = format.as_bytes();
    let mut format = Format::new(&format);
    let data = call.string(2)?;
    let data = data.as_bytes();
    let start = call.integer_or(3, 1)?;
    if start == 0 {
        return Err(call.bad_argument(3, "offset must be 1 or greater"));
    }
    let too_short = || call.bad_argument(2, "data string too short");
    let mut position = (start - 1) as usize;
    let mut results: Vec<Value> = Vec::new();
    while let Some(item) = format.next(call)? {
        position = position.wrapping_add(format.padding(position, &item));
        let part = |position: usize, size: usize| {
            position.checked_add(size).and_then(|end| data.get(position..end)).ok_or_else(too_short)
        };
        let bytes = part(position, item.size)?;
        if results.len() >= MAX_RESULTS {
            return Err(call.error("stack overflow (too many results)"));
        }
        let mut size = item.size;
        match item.letter {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                let number = integer(bytes, format.big_endian, item.letter.is_ascii_lowercase());
                results.push(Value::Number(number));
            }
            b'x' => {}
            b'f' => {
                let bits = <[u8; 4]>::try_from(bytes).unwrap_or_default();
                let number =
                    if format.big_endian { f32::from_be_bytes(bits) } else { f32::from_le_bytes(bits) };
                results.push(Value::Number(f64::from(number)));
            }
            b'd' => {
                let bits = <[u8; 8]>::try_from(bytes).unwrap_or_default();
                let number =
                    if format.big_endian { f64::from_be_bytes(bits) } else { f64::from_le_bytes(bits) };
                results.push(Value::Number(number));
            }
            b'c' => {
                if size == 0 {
                    let last = results.pop();
                    let number = match &last {
                        Some(Value::Number(number)) => Some(*number),
                        Some(text @ Value::String(_)) => call.lua.coerce_number(text.clone())?,
                        _ => None,
                    };
                    let Some(number) = number else {
                        return Err(call.error("format 'c0' needs a previous size"));
                    };
                    size = integer_bits(number) as usize;
                }
                let text = part(position, size)?;
                results.push(Value::String(call.lua.create_string(text)?));
            }
            b's' => {
                let rest = data.get(position..).unwrap_or_default();
                let Some(end) = memchr::memchr(0, rest) else {
                    return Err(call.error("unfinished string in data"));
                };
                results.push(Value::String(call.lua.create_string(rest.get(..end).unwrap_or_default())?));
                size = end + 1;
            }
            other => format.control(call, other)?,
        }
        position += size;
    }
    results.push(Value::Number(position.wrapping_add(1) as f64));
    Ok(MultiValue::from_vec(results))
}

/// The number that these bytes are. Of more than eight the lowest count, as long as the sign is not asked for.
fn integer(bytes: &[u8], big_endian: bool, signed: bool) -> f64 {
    let add = |bits: u64, byte: &u8| (bits << 8) | u64::from(*byte);
    let bits = if big_endian { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) };
    if !signed {
        return bits as f64;
    }
    let mask = u64::MAX << ((bytes.len() * 8).wrapping_sub(1) & 63);
    let bits = if bits & mask == 0 { bits } else { bits | mask };
    bits as i64 as f64
}

fn size(call: &Call<'_>) -> mlua::Result<MultiValue> {
    let format = call.string(1)?;
    let format = format.as_bytes();
    let mut format = Format::new(&format);
    let mut position = 0_usize;
    while let Some(item) = format.next(call)? {
        position += format.padding(position, &item);
        match (item.letter, item.size) {
            (b's', _) => return Err(call.bad_argument(1, "option 's' has no fixed size")),
            (b'c', 0) => return Err(call.bad_argument(1, "option 'c0' has no fixed size")),
            (letter, _) if !letter.is_ascii_alphanumeric() => format.control(call, letter)?,
            _ => {}
        }
        position += item.size;
    }
    Ok(one(Value::Number(position as f64)))
}
