//! The arguments of a library's function, checked and complained about as Lua's own libraries do.
//!
//! An error raised here is a [`Raised`]: what a script catches is a string with the position of the call before it. The
//! position is that of the caller, found while the function runs.

use std::fmt;

use mlua::{Lua, LuaString, MultiValue, Value};

/// An error that a function of ours raises: what a script sees when it catches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Raised {
    /// A string.
    Text(Vec<u8>),
    /// A table with this text as its `err`, as the errors of commands are.
    Command(Vec<u8>),
}

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Text(text) | Self::Command(text)) = self;
        f.write_str(&String::from_utf8_lossy(text))
    }
}

impl std::error::Error for Raised {}

impl Raised {
    /// The error of ours inside what the binding wrapped around it.
    pub(crate) fn of(error: &mlua::Error) -> Option<&Self> {
        match error {
            mlua::Error::CallbackError { cause, .. } => Self::of(cause),
            mlua::Error::ExternalError(error) => error.downcast_ref(),
            _ => None,
        }
    }

    /// An error with the code of a command's.
    pub(crate) fn command(text: impl Into<Vec<u8>>) -> mlua::Error {
        mlua::Error::external(Self::Command(text.into()))
    }

    /// A string as it is.
    pub(crate) fn plain(text: impl Into<Vec<u8>>) -> mlua::Error {
        mlua::Error::external(Self::Text(text.into()))
    }
}

/// A call of one of our functions.
pub(crate) struct Call<'l> {
    pub(crate) lua: &'l Lua,
    args: MultiValue,
}

impl<'l> Call<'l> {
    pub(crate) fn new(lua: &'l Lua, args: MultiValue) -> Self {
        Self { lua, args }
    }

    pub(crate) fn len(&self) -> usize {
        self.args.len()
    }

    /// An argument, from 1 on.
    pub(crate) fn get(&self, index: usize) -> Option<&Value> {
        self.args.get(index.wrapping_sub(1))
    }

    /// Whether there is an argument other than nil.
    pub(crate) fn has(&self, index: usize) -> bool {
        self.get(index).is_some_and(|value| !value.is_nil())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Value> {
        self.args.iter()
    }

    /// A number, or a string that reads as one.
    pub(crate) fn number(&self, index: usize) -> mlua::Result<f64> {
        match self.get(index) {
            Some(Value::Integer(number)) => Ok(*number as f64),
            Some(Value::Number(number)) => Ok(*number),
            Some(text @ Value::String(_)) => match self.lua.coerce_number(text.clone())? {
                Some(number) => Ok(number),
                None => Err(self.wrong_type(index, "number")),
            },
            _ => Err(self.wrong_type(index, "number")),
        }
    }

    /// A number without its fraction.
    pub(crate) fn integer(&self, index: usize) -> mlua::Result<i64> {
        self.number(index).map(truncate)
    }

    /// As [`integer`](Self::integer), with a default for nil and nothing.
    pub(crate) fn integer_or(&self, index: usize, default: i64) -> mlua::Result<i64> {
        if self.has(index) { self.integer(index) } else { Ok(default) }
    }

    /// A string, or a number as text.
    pub(crate) fn string(&self, index: usize) -> mlua::Result<LuaString> {
        match self.get(index) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(number @ (Value::Integer(_) | Value::Number(_))) => {
                match self.lua.coerce_string(number.clone())? {
                    Some(text) => Ok(text),
                    None => Err(self.wrong_type(index, "string")),
                }
            }
            _ => Err(self.wrong_type(index, "string")),
        }
    }

    pub(crate) fn wrong_type(&self, index: usize, expected: &str) -> mlua::Error {
        let found = self.get(index).map_or("no value", type_name);
        self.bad_argument(index, &format!("{expected} expected, got {found}"))
    }

    /// An error about one argument, under the name by which the script has called the function.
    pub(crate) fn bad_argument(&self, index: usize, what: &str) -> mlua::Error {
        let names = self.lua.inspect_stack(0, |frame| {
            let names = frame.names();
            (names.name.map(|name| name.into_owned()), names.name_what == Some("method"))
        });
        let (name, is_method) = names.unwrap_or_default();
        let name = name.unwrap_or_else(|| "?".to_owned());
        if is_method && index == 1 {
            return self.error(format!("calling '{name}' on bad self ({what})"));
        }
        let index = if is_method { index.saturating_sub(1) } else { index };
        self.error(format!("bad argument #{index} to '{name}' ({what})"))
    }

    /// An error with the caller's position.
    pub(crate) fn error(&self, text: impl AsRef<[u8]>) -> mlua::Error {
        let mut whole = position(self.lua, 1).into_bytes();
        whole.extend_from_slice(text.as_ref());
        Raised::plain(whole)
    }
}

/// `user_script:1: ` for the function at this level, or nothing where it has no lines.
pub(crate) fn position(lua: &Lua, level: usize) -> String {
    let found = lua.inspect_stack(level, |frame| {
        let line = frame.current_line()?;
        Some(format!("{}:{line}: ", frame.source().short_src?))
    });
    found.flatten().unwrap_or_default()
}

/// What Lua 5.1 calls the type of a value.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Integer(_) => "number",
        Value::LightUserData(_) | Value::Error(_) => "userdata",
        other => other.type_name(),
    }
}

/// What x86 makes of a float where C asks for a 64-bit integer: the smallest one for NaN and what does not fit.
pub(crate) fn truncate(number: f64) -> i64 {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if (-LIMIT..LIMIT).contains(&number) { number as i64 } else { i64::MIN }
}

/// Makes a function of a library. Its errors are made by its [`Call`].
pub(crate) fn function(
    lua: &Lua,
    run: impl Fn(&Call<'_>) -> mlua::Result<MultiValue> + Send + 'static,
) -> mlua::Result<mlua::Function> {
    lua.create_function(move |lua, args: MultiValue| run(&Call::new(lua, args)))
}

/// One result.
pub(crate) fn one(value: Value) -> MultiValue {
    MultiValue::from_iter([value])
}
