//! The libraries that scripts find besides Lua's own: `cjson`, `cmsgpack`, `bit`, `struct`.
//!
//! They are written against Lua's values, hold no state but cjson's settings, and check arguments in Lua's words.

pub(super) mod arguments;
mod bit;
mod json;
mod json_decode;
mod json_encode;
mod msgpack;
mod structs;

use mlua::{Lua, Table};

/// All of them, by name.
pub(super) fn all(lua: &Lua) -> mlua::Result<[(&'static str, Table); 4]> {
    Ok([
        ("bit", bit::library(lua)?),
        ("cjson", json::library(lua)?),
        ("cmsgpack", msgpack::library(lua)?),
        ("struct", structs::library(lua)?),
    ])
}
