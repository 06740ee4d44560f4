//! `bit`: operations on 32-bit integers.

use mlua::{Lua, MultiValue, Table, Value};

use super::arguments::{Call, function, one};

/// Added to a number, this leaves its integer part, modulo 2^32, in the lowest bits of the float.
const ALIGNING: f64 = 6_755_399_441_055_744.0;

fn operand(call: &Call<'_>, index: usize) -> mlua::Result<u32> {
    Ok((call.number(index)? + ALIGNING).to_bits() as u32)
}

fn result(bits: u32) -> MultiValue {
    one(Value::Integer(i64::from(bits as i32)))
}

pub(super) fn library(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    let unary = |name: &str, run: fn(u32) -> u32| {
        table.raw_set(name, function(lua, move |call| Ok(result(run(operand(call, 1)?))))?)
    };
    unary("tobit", |bits| bits)?;
    unary("bnot", |bits| !bits)?;
    unary("bswap", u32::swap_bytes)?;
    let folded = |name: &str, run: fn(u32, u32) -> u32| {
        let fold = function(lua, move |call| {
            let mut bits = operand(call, 1)?;
            for index in 2..=call.len() {
                bits = run(bits, operand(call, index)?);
            }
            Ok(result(bits))
        })?;
        table.raw_set(name, fold)
    };
    folded("band", |left, right| left & right)?;
    folded("bor", |left, right| left | right)?;
    folded("bxor", |left, right| left ^ right)?;
    let shift = |name: &str, run: fn(u32, u32) -> u32| {
        let shift = function(lua, move |call| {
            let bits = operand(call, 1)?;
            Ok(result(run(bits, operand(call, 2)? & 31)))
        })?;
        table.raw_set(name, shift)
    };
    shift("lshift", |bits, by| bits << by)?;
    shift("rshift", |bits, by| bits >> by)?;
    shift("arshift", |bits, by| (bits as i32 >> by) as u32)?;
    shift("rol", u32::rotate_left)?;
    shift("ror", u32::rotate_right)?;
    let to_hex = function(lua, |call| {
        let bits = operand(call, 1)?;
        let digits = if call.get(2).is_none() { 8 } else { operand(call, 2)? as i32 };
        let text = if digits < 0 { format!("{bits:08X}") } else { format!("{bits:08x}") };
        let keep = (digits.unsigned_abs() as usize).min(8);
        Ok(one(Value::String(call.lua.create_string(text.get(8 - keep..).unwrap_or_default())?)))
    })?;
    table.raw_set("tohex", to_hex)?;
    Ok(table)
}
