//! What `redis` and `math` have that needs nothing of the running command.

use std::sync::Arc;

use mlua::{Lua, MultiValue, Table, Value};
use parking_lot::Mutex;

use super::libraries::arguments::{Raised, function, one};
use super::random::Random;
use super::sha1_hex;

/// `math.random` and `math.randomseed`, on Redis' generator.
pub(super) fn add_random(lua: &Lua, host: &Table, random: &Arc<Mutex<Random>>) -> mlua::Result<()> {
    let state = Arc::clone(random);
    let draw = function(lua, move |call| {
        let fraction = || state.lock().fraction();
        let number = match call.len() {
            0 => fraction(),
            1 => {
                let high = call.integer(1)? as f64;
                if high < 1.0 {
                    return Err(call.bad_argument(1, "interval is empty"));
                }
                (fraction() * high).floor() + 1.0
            }
            2 => {
                let (low, high) = (call.integer(1)? as f64, call.integer(2)? as f64);
                if low > high {
                    return Err(call.bad_argument(2, "interval is empty"));
                }
                (fraction() * (high - low + 1.0)).floor() + low
            }
            _ => return Err(call.error("wrong number of arguments")),
        };
        Ok(one(Value::Number(number)))
    })?;
    host.raw_set("random", draw)?;
    let state = Arc::clone(random);
    let seed = function(lua, move |call| {
        *state.lock() = Random::new(call.integer(1)? as u32);
        Ok(MultiValue::new())
    })?;
    host.raw_set("randomseed", seed)
}

/// Bytes of the longest string that `string.rep` makes. Default: 512 MB, as of all strings.
const MAX_REPEATED: usize = 512 * 1024 * 1024;

/// `string.rep`, which may be asked for more than there is.
pub(super) fn add_repeat(lua: &Lua, host: &Table) -> mlua::Result<()> {
    let repeat = function(lua, |call| {
        let text = call.string(1)?;
        let text = text.as_bytes();
        let times = usize::try_from(call.integer(2)?).unwrap_or(0);
        if text.len().saturating_mul(times) > MAX_REPEATED {
            return Err(call.error("resulting string too large"));
        }
        Ok(one(Value::String(call.lua.create_string(text.repeat(times))?)))
    })?;
    host.raw_set("rep", repeat)
}

/// Of `redis`: `sha1hex`, `status_reply`, `error_reply`, and what does nothing here.
pub(super) fn add_redis(lua: &Lua, host: &Table) -> mlua::Result<()> {
    let redis = lua.create_table()?;
    let sha1hex = function(lua, |call| {
        if call.len() != 1 {
            return Err(Raised::command("ERR wrong number of arguments"));
        }
        // What is no text counts as none.
        let text = call.string(1).map(|text| text.as_bytes().to_vec()).unwrap_or_default();
        Ok(one(Value::String(call.lua.create_string(sha1_hex(&text))?)))
    })?;
    redis.raw_set("sha1hex", sha1hex)?;
    for (name, field) in [("status_reply", "ok"), ("error_reply", "err")] {
        let reply = function(lua, move |call| {
            let text = match (call.len(), call.get(1)) {
                (1, Some(Value::String(text))) => text.as_bytes().to_vec(),
                _ => {
                    return super::call::error_table(call.lua, b"ERR wrong number or type of arguments")
                        .map(one);
                }
            };
            if field == "err" {
                return super::call::error_table(call.lua, &with_code(text)).map(one);
            }
            let table = call.lua.create_table_with_capacity(0, 1)?;
            table.raw_set(field, call.lua.create_string(text)?)?;
            Ok(one(Value::Table(table)))
        })?;
        redis.raw_set(name, reply)?;
    }
    redis.raw_set("replicate_commands", function(lua, |_| Ok(one(Value::Boolean(true))))?)?;
    redis.raw_set("breakpoint", function(lua, |_| Ok(one(Value::Boolean(false))))?)?;
    redis.raw_set("debug", function(lua, |_| Ok(MultiValue::new()))?)?;
    super::call::add_besides(lua, &redis)?;
    host.raw_set("redis", redis)
}

/// The text of an error with its code: the first word, or the general one where there is but one.
fn with_code(text: Vec<u8>) -> Vec<u8> {
    let text = match text.strip_prefix(b"-") {
        Some(rest) => rest.to_vec(),
        None => text,
    };
    if text.contains(&b' ') { text } else { [b"ERR ", &*text].concat() }
}
