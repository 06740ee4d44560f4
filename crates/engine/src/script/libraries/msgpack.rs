//! `cmsgpack`: `MessagePack`, with the choices of the library that Redis carries.
//!
//! Invariant: nesting is bounded in both directions and nothing recurses over input, so that no data can exhaust the stack.
//! Deliberately absent: binary and extension types, which that library does not know either.

use mlua::{Lua, MultiValue, Table, Value};

use super::arguments::{Call, function, one};

/// Tables in tables that are packed; deeper ones become nil. The original's limit.
const MAX_PACKED_NESTING: usize = 16;
/// Arrays and maps in one another that are unpacked: what fits on Lua's stack of 8,000 places.
const MAX_UNPACKED_NESTING: usize = 3990;

pub(super) fn library(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("_NAME", "cmsgpack")?;
    table.raw_set("_VERSION", "lua-cmsgpack 0.4.0")?;
    table.raw_set("_COPYRIGHT", "Copyright (C) 2012, Salvatore Sanfilippo")?;
    table.raw_set("_DESCRIPTION", "MessagePack C implementation for Lua")?;
    table.raw_set("pack", function(lua, pack)?)?;
    table.raw_set("unpack", function(lua, |call| unpack(call, 0, 0))?)?;
    table.raw_set("unpack_one", function(lua, |call| unpack(call, 1, call.integer_or(2, 0)?))?)?;
    let limited = function(lua, |call| unpack(call, call.integer(2)?, call.integer_or(3, 0)?))?;
    table.raw_set("unpack_limit", limited)?;
    Ok(table)
}

fn pack(call: &Call<'_>) -> mlua::Result<MultiValue> {
    if call.len() == 0 {
        return Err(call.bad_argument(0, "MessagePack pack needs input."));
    }
    let mut out = Vec::new();
    for value in call.iter() {
        write(&mut out, value, 0)?;
    }
    Ok(one(Value::String(call.lua.create_string(out)?)))
}

fn write(out: &mut Vec<u8>, value: &Value, depth: usize) -> mlua::Result<()> {
    match value {
        Value::Boolean(value) => out.push(if *value { 0xc3 } else { 0xc2 }),
        Value::Integer(number) => write_integer(out, *number),
        Value::Number(number) => write_number(out, *number),
        Value::String(text) => {
            let bytes = text.as_bytes();
            match bytes.len() {
                len @ 0..32 => out.push(0xa0 | len as u8),
                len @ 32..=0xff => out.extend([0xd9, len as u8]),
                len => write_len(out, len, 0xda, 0xdb),
            }
            out.extend_from_slice(&bytes);
        }
        Value::Table(table) if depth < MAX_PACKED_NESTING => return write_table(out, table, depth),
        _ => out.push(0xc0),
    }
    Ok(())
}

fn write_len(out: &mut Vec<u8>, len: usize, short: u8, long: u8) {
    match u16::try_from(len) {
        Ok(len) => {
            out.push(short);
            out.extend(len.to_be_bytes());
        }
        Err(_) => {
            out.push(long);
            out.extend((len as u32).to_be_bytes());
        }
    }
}

fn write_number(out: &mut Vec<u8>, number: f64) {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if number.fract() == 0.0 && (-LIMIT..LIMIT).contains(&number) {
        write_integer(out, number as i64);
    } else if !number.is_nan() && f64::from(number as f32).to_bits() == number.to_bits() {
        out.push(0xca);
        out.extend((number as f32).to_be_bytes());
    } else {
        out.push(0xcb);
        out.extend(number.to_be_bytes());
    }
}

fn write_integer(out: &mut Vec<u8>, number: i64) {
    match number {
        0..=0x7f => out.push(number as u8),
        0x80..=0xff => out.extend([0xcc, number as u8]),
        0x100..=0xffff => {
            out.push(0xcd);
            out.extend((number as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(0xce);
            out.extend((number as u32).to_be_bytes());
        }
        0x1_0000_0000.. => {
            out.push(0xcf);
            out.extend(number.to_be_bytes());
        }
        -32..=-1 => out.push(number as u8),
        -128..=-33 => out.extend([0xd0, number as u8]),
        -0x8000..=-129 => {
            out.push(0xd1);
            out.extend((number as i16).to_be_bytes());
        }
        -0x8000_0000..=-0x8001 => {
            out.push(0xd2);
            out.extend((number as i32).to_be_bytes());
        }
        _ => {
            out.push(0xd3);
            out.extend(number.to_be_bytes());
        }
    }
}

fn write_table(out: &mut Vec<u8>, table: &Table, depth: usize) -> mlua::Result<()> {
    let (len, is_array) = shape(table)?;
    if is_array {
        match len {
            0..16 => out.push(0x90 | len as u8),
            _ => write_len(out, len, 0xdc, 0xdd),
        }
        for index in 1..=len {
            write(out, &table.raw_get(index)?, depth + 1)?;
        }
        return Ok(());
    }
    match len {
        0..16 => out.push(0x80 | len as u8),
        _ => write_len(out, len, 0xde, 0xdf),
    }
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair?;
        write(out, &key, depth + 1)?;
        write(out, &value, depth + 1)?;
    }
    Ok(())
}

/// How many pairs there are, and whether their keys are the numbers from 1 on without a gap.
fn shape(table: &Table) -> mlua::Result<(usize, bool)> {
    let (mut len, mut largest) = (0, 0);
    for pair in table.pairs::<Value, Value>() {
        largest = match pair?.0 {
            Value::Integer(number) if number > 0 => largest.max(number),
            _ => i64::MAX,
        };
        len += 1;
    }
    Ok((len, usize::try_from(largest) == Ok(len)))
}

fn unpack(call: &Call<'_>, limit: i64, offset: i64) -> mlua::Result<MultiValue> {
    let text = call.string(1)?;
    let text = text.as_bytes();
    let (limit, offset) = (limit as i32, offset as i32);
    let everything = limit == 0 && offset == 0;
    let (Ok(count), Ok(start)) = (usize::try_from(limit), usize::try_from(offset)) else {
        let text = format!("Invalid request to unpack with offset of {offset} and limit of {}.", text.len());
        return Err(call.error(text));
    };
    let Some(rest) = text.get(start..) else {
        let text = format!("Start offset {offset} greater than input length {}.", text.len());
        return Err(call.error(text));
    };
    let mut input = Input { call, rest };
    let mut results = Vec::new();
    while !input.rest.is_empty() && (everything || results.len() < count) {
        if results.len() >= MAX_UNPACKED_NESTING * 2 {
            return Err(call.error("stack overflow (in function mp_unpack_full)"));
        }
        results.push(input.value()?);
    }
    if !everything {
        let next = if input.rest.is_empty() { -1 } else { (text.len() - input.rest.len()) as i64 };
        results.insert(0, Value::Integer(next));
    }
    Ok(MultiValue::from_vec(results))
}

/// What is left to be unpacked.
struct Input<'i, 'c> {
    call: &'i Call<'c>,
    rest: &'i [u8],
}

/// An array or map that is being filled.
struct Open {
    table: Table,
    /// Values that are still to come; of a map, keys count too.
    missing: usize,
    /// The index of the next element of an array.
    index: i64,
    is_map: bool,
    key: Option<Value>,
}

/// One step of unpacking.
enum Step {
    Value(Value),
    Array(usize),
    Map(usize),
}

impl Input<'_, '_> {
    /// One value with all that is in it.
    fn value(&mut self) -> mlua::Result<Value> {
        let mut open: Vec<Open> = Vec::new();
        loop {
            let mut done = match self.step()? {
                Step::Value(value) => value,
                Step::Array(len) | Step::Map(len) if len == 0 => Value::Table(self.call.lua.create_table()?),
                container => {
                    let (len, is_map, name) = match container {
                        Step::Map(len) => (len, true, "mp_decode_to_lua_hash"),
                        Step::Array(len) => (len, false, "mp_decode_to_lua_array"),
                        Step::Value(_) => (0, false, ""),
                    };
                    if open.len() >= MAX_UNPACKED_NESTING {
                        return Err(self.call.error(format!("stack overflow (in function {name})")));
                    }
                    let missing = if is_map { len * 2 } else { len };
                    let table = self.call.lua.create_table()?;
                    open.push(Open { table, missing, index: 1, is_map, key: None });
                    continue;
                }
            };
            loop {
                let Some(top) = open.last_mut() else { return Ok(done) };
                top.add(done)?;
                if top.missing > 0 {
                    break;
                }
                match open.pop() {
                    Some(full) => done = Value::Table(full.table),
                    None => return Err(self.bad_format()),
                }
            }
        }
    }

    fn step(&mut self) -> mlua::Result<Step> {
        let Some((&tag, rest)) = self.rest.split_first() else { return Err(self.missing()) };
        self.rest = rest;
        let value = match tag {
            0..=0x7f => Value::Integer(i64::from(tag)),
            0xe0.. => Value::Integer(i64::from(tag as i8)),
            0x80..=0x8f => return Ok(Step::Map(usize::from(tag & 0x0f))),
            0x90..=0x9f => return Ok(Step::Array(usize::from(tag & 0x0f))),
            0xa0..=0xbf => self.text(usize::from(tag & 0x1f))?,
            0xc0 => Value::Nil,
            0xc2 => Value::Boolean(false),
            0xc3 => Value::Boolean(true),
            0xca => Value::Number(f64::from(f32::from_be_bytes(self.take()?))),
            0xcb => Value::Number(f64::from_be_bytes(self.take()?)),
            0xcc => Value::Integer(i64::from(u8::from_be_bytes(self.take()?))),
            0xcd => Value::Integer(i64::from(u16::from_be_bytes(self.take()?))),
            0xce => Value::Integer(i64::from(u32::from_be_bytes(self.take()?))),
            0xcf => Value::Number(u64::from_be_bytes(self.take()?) as i64 as f64),
            0xd0 => Value::Integer(i64::from(i8::from_be_bytes(self.take()?))),
            0xd1 => Value::Integer(i64::from(i16::from_be_bytes(self.take()?))),
            0xd2 => Value::Integer(i64::from(i32::from_be_bytes(self.take()?))),
            0xd3 => Value::Number(i64::from_be_bytes(self.take()?) as f64),
            0xd9 => {
                let len = u8::from_be_bytes(self.take()?);
                self.text(usize::from(len))?
            }
            0xda => {
                let len = u16::from_be_bytes(self.take()?);
                self.text(usize::from(len))?
            }
            0xdb => {
                let len = u32::from_be_bytes(self.take()?);
                self.text(len as usize)?
            }
            0xdc => return Ok(Step::Array(usize::from(u16::from_be_bytes(self.take()?)))),
            0xdd => return Ok(Step::Array(u32::from_be_bytes(self.take()?) as usize)),
            0xde => return Ok(Step::Map(usize::from(u16::from_be_bytes(self.take()?)))),
            0xdf => return Ok(Step::Map(u32::from_be_bytes(self.take()?) as usize)),
            _ => return Err(self.bad_format()),
        };
        Ok(Step::Value(value))
    }

    fn take<const N: usize>(&mut self) -> mlua::Result<[u8; N]> {
        let Some((bytes, rest)) = self.rest.split_first_chunk::<N>() else { return Err(self.missing()) };
        self.rest = rest;
        Ok(*bytes)
    }

    fn text(&mut self, len: usize) -> mlua::Result<Value> {
        let Some((bytes, rest)) = self.rest.split_at_checked(len) else { return Err(self.missing()) };
        self.rest = rest;
        Ok(Value::String(self.call.lua.create_string(bytes)?))
    }

    fn missing(&self) -> mlua::Error {
        self.call.error("Missing bytes in input.")
    }

    fn bad_format(&self) -> mlua::Error {
        self.call.error("Bad data format in input.")
    }
}

impl Open {
    fn add(&mut self, value: Value) -> mlua::Result<()> {
        self.missing -= 1;
        if !self.is_map {
            let index = self.index;
            self.index += 1;
            return self.table.raw_set(index, value);
        }
        let Some(key) = self.key.take() else {
            self.key = Some(value);
            return Ok(());
        };
        match &key {
            Value::Nil => Err(super::arguments::Raised::plain("table index is nil")),
            Value::Number(number) if number.is_nan() => {
                Err(super::arguments::Raised::plain("table index is NaN"))
            }
            _ => self.table.raw_set(key, value),
        }
    }
}
