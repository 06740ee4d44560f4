//! Replies to Lua values and back, by the table in Redis' manual ("Lua API reference", data type conversion).

use mlua::{Lua, Table, Value};
use mtcache_protocol::{Frame, Reply, Version, decode_frame};

use super::libraries::arguments::truncate;
use crate::error::{CommandError, CommandResult};

/// Tables in tables that a script may return, as deep. Default: 128, as replies may nest.
const MAX_DEPTH: usize = 128;

/// A reply of this version as the script sees it.
pub(super) fn reply_to_lua(lua: &Lua, reply: &[u8], version: Version) -> mlua::Result<Value> {
    match decode_frame(reply) {
        Ok(Some((frame, _))) => frame_to_lua(lua, &frame, version),
        _ => Err(mlua::Error::runtime("a command gave an incomplete reply")),
    }
}

fn frame_to_lua(lua: &Lua, frame: &Frame, version: Version) -> mlua::Result<Value> {
    let text = |bytes: &[u8]| lua.create_string(bytes).map(Value::String);
    let single = |field: &str, value: Value| -> mlua::Result<Value> {
        let table = lua.create_table_with_capacity(0, 1)?;
        table.raw_set(field, value)?;
        Ok(Value::Table(table))
    };
    Ok(match frame {
        Frame::Simple(status) => single("ok", text(status)?)?,
        Frame::Error(error) => single("err", text(error)?)?,
        Frame::Integer(number) => Value::Number(*number as f64),
        Frame::Bulk(bytes) => text(bytes)?,
        // Only RESP3 has a null of its own, and it is Lua's.
        Frame::Null | Frame::NullArray if version == Version::Resp3 => Value::Nil,
        Frame::Null | Frame::NullArray => Value::Boolean(false),
        Frame::Boolean(value) => Value::Boolean(*value),
        Frame::Double(number) => single("double", Value::Number(*number))?,
        Frame::BigNumber(digits) => single("big_number", text(digits)?)?,
        Frame::Array(items) | Frame::Push(items) => {
            let table = lua.create_table_with_capacity(items.len(), 0)?;
            for (index, item) in items.iter().enumerate() {
                table.raw_set(index + 1, frame_to_lua(lua, item, version)?)?;
            }
            Value::Table(table)
        }
        Frame::Map(pairs) => {
            let map = lua.create_table_with_capacity(0, pairs.len())?;
            for (key, value) in pairs {
                map.raw_set(frame_to_lua(lua, key, version)?, frame_to_lua(lua, value, version)?)?;
            }
            single("map", Value::Table(map))?
        }
        Frame::Set(items) => {
            let set = lua.create_table_with_capacity(0, items.len())?;
            for item in items {
                set.raw_set(frame_to_lua(lua, item, version)?, true)?;
            }
            single("set", Value::Table(set))?
        }
        Frame::Attributed { reply, .. } => frame_to_lua(lua, reply, version)?,
        Frame::Verbatim { format, data } => {
            let inner = lua.create_table_with_capacity(0, 2)?;
            inner.raw_set("format", text(format)?)?;
            inner.raw_set("string", text(data)?)?;
            single("verbatim_string", Value::Table(inner))?
        }
    })
}

/// Writes what a script has returned. `script_version` is the one that the script has chosen: only with 3 is `true` a
/// boolean.
pub(super) fn lua_to_reply(value: &Value, script_version: Version, out: &mut Reply) -> CommandResult {
    write(value, script_version, out, 0)
}

fn write(value: &Value, version: Version, out: &mut Reply, depth: usize) -> CommandResult {
    if depth > MAX_DEPTH {
        return Err(CommandError::new("ERR reached lua stack limit"));
    }
    match value {
        Value::String(text) => out.bulk(&text.as_bytes()),
        Value::Integer(number) => out.integer(*number),
        Value::Number(number) => out.integer(truncate(*number)),
        Value::Boolean(value) if version == Version::Resp3 => out.bool(*value),
        Value::Boolean(true) => out.integer(1),
        Value::Table(table) => return write_table(table, version, out, depth),
        _ => out.null(),
    }
    Ok(())
}

/// How many pairs a table has. They are walked twice rather than kept, for Lua lets some thousands of values be held at once.
fn count(table: &Table) -> usize {
    table.pairs::<Value, Value>().flatten().count()
}

fn write_table(table: &Table, version: Version, out: &mut Reply, depth: usize) -> CommandResult {
    let field = |name: &str| table.raw_get::<Value>(name).unwrap_or(Value::Nil);
    if let Value::String(text) = field("err") {
        out.error(text.to_string_lossy());
        return Ok(());
    }
    if let Value::String(text) = field("ok") {
        out.simple(&text.to_string_lossy().replace(['\r', '\n'], " "));
        return Ok(());
    }
    if let Some(number) = field("double").as_f64() {
        out.double(number);
        return Ok(());
    }
    if let Value::Table(map) = field("map") {
        out.map(count(&map));
        for (key, value) in map.pairs::<Value, Value>().flatten() {
            write(&key, version, out, depth + 1)?;
            write(&value, version, out, depth + 1)?;
        }
        return Ok(());
    }
    if let Value::Table(set) = field("set") {
        out.set(count(&set));
        for (member, _) in set.pairs::<Value, Value>().flatten() {
            write(&member, version, out, depth + 1)?;
        }
        return Ok(());
    }
    if let Value::String(digits) = field("big_number") {
        out.big_number(&digits.to_string_lossy().replace(['\r', '\n'], " "));
        return Ok(());
    }
    if let Value::Table(verbatim) = field("verbatim_string")
        && let (Ok(Value::String(format)), Ok(Value::String(data))) =
            (verbatim.raw_get("format"), verbatim.raw_get("string"))
        && let Ok(format) = <[u8; 3]>::try_from(&*format.as_bytes())
    {
        out.verbatim(format, &data.as_bytes());
        return Ok(());
    }
    let mark = out.begin_deferred();
    let mut len = 0;
    loop {
        match table.raw_get::<Value>(len + 1) {
            Ok(Value::Nil) | Err(_) => break,
            Ok(item) => write(&item, version, out, depth + 1)?,
        }
        len += 1;
    }
    out.end_array(mark, len);
    Ok(())
}
