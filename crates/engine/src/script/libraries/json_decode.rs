//! JSON to Lua values.
//!
//! Invariant: nothing recurses, so that no text can exhaust the stack; nesting ends at the depth limit. Errors name what was
//! expected, what was found, and where.

use mlua::{Table, Value};

use super::arguments::Call;
use super::json::Settings;

/// Arrays and objects in one another, whatever the setting: what fits on Lua's stack of 8,000 places.
const MAX_NESTING: i64 = 2660;

/// A piece of the text.
enum Token {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    Text(Vec<u8>),
    Number(f64),
    Boolean(bool),
    Null,
    Colon,
    Comma,
    End,
    Error(&'static str),
}

impl Token {
    fn name(&self) -> &'static str {
        match self {
            Self::ObjectBegin => "T_OBJ_BEGIN",
            Self::ObjectEnd => "T_OBJ_END",
            Self::ArrayBegin => "T_ARR_BEGIN",
            Self::ArrayEnd => "T_ARR_END",
            Self::Text(_) => "T_STRING",
            Self::Number(_) => "T_NUMBER",
            Self::Boolean(_) => "T_BOOLEAN",
            Self::Null => "T_NULL",
            Self::Colon => "T_COLON",
            Self::Comma => "T_COMMA",
            Self::End => "T_END",
            Self::Error(what) => what,
        }
    }
}

/// An array or object that is being read.
struct Open {
    table: Table,
    /// Of an array.
    index: i64,
    /// Of an object, for the value that comes.
    key: Option<Value>,
}

struct Reader<'r, 'c> {
    call: &'r Call<'c>,
    settings: &'r Settings,
    text: &'r [u8],
    at: usize,
    /// Where the last token began.
    token_at: usize,
}

pub(super) fn decode(call: &Call<'_>, settings: &Settings) -> mlua::Result<Value> {
    let text = call.string(1)?;
    let text = text.as_bytes();
    if let [first, second, ..] = &*text
        && (*first == 0 || *second == 0)
    {
        return Err(call.error("JSON parser does not support UTF-16 or UTF-32"));
    }
    let mut reader = Reader { call, settings, text: &text, at: 0, token_at: 0 };
    let value = reader.document()?;
    match reader.next() {
        Token::End => Ok(value),
        found => Err(reader.unexpected("the end", &found)),
    }
}

impl Reader<'_, '_> {
    fn document(&mut self) -> mlua::Result<Value> {
        let mut open: Vec<Open> = Vec::new();
        let mut token = self.next();
        loop {
            // A value is due, and begins with `token`.
            let mut value = match token {
                Token::Text(text) => Value::String(self.call.lua.create_string(text)?),
                Token::Number(number) => Value::Number(number),
                Token::Boolean(value) => Value::Boolean(value),
                Token::Null => Value::NULL,
                Token::ObjectBegin => {
                    self.check_depth(&open)?;
                    let table = self.call.lua.create_table()?;
                    match self.next() {
                        Token::ObjectEnd => Value::Table(table),
                        first => {
                            let key = self.key(first)?;
                            open.push(Open { table, index: 0, key: Some(key) });
                            token = self.next();
                            continue;
                        }
                    }
                }
                Token::ArrayBegin => {
                    self.check_depth(&open)?;
                    let table = self.call.lua.create_table()?;
                    token = self.next();
                    if matches!(token, Token::ArrayEnd) {
                        Value::Table(table)
                    } else {
                        open.push(Open { table, index: 1, key: None });
                        continue;
                    }
                }
                found => return Err(self.unexpected("value", &found)),
            };
            // It belongs into what is open, which may end here, as may what that is in.
            loop {
                let Some(top) = open.last_mut() else { return Ok(value) };
                let is_object = top.key.is_some();
                match top.key.take() {
                    Some(key) => top.table.raw_set(key, value)?,
                    None => {
                        top.table.raw_set(top.index, value)?;
                        top.index += 1;
                    }
                }
                match (self.next(), is_object) {
                    (Token::Comma, true) => {
                        let first = self.next();
                        let key = self.key(first)?;
                        if let Some(top) = open.last_mut() {
                            top.key = Some(key);
                        }
                        token = self.next();
                        break;
                    }
                    (Token::Comma, false) => {
                        token = self.next();
                        break;
                    }
                    (Token::ObjectEnd, true) | (Token::ArrayEnd, false) => match open.pop() {
                        Some(done) => value = Value::Table(done.table),
                        None => return Ok(Value::Nil),
                    },
                    (found, true) => return Err(self.unexpected("comma or object end", &found)),
                    (found, false) => return Err(self.unexpected("comma or array end", &found)),
                }
            }
        }
    }

    /// A key of an object, and the colon after it.
    fn key(&mut self, token: Token) -> mlua::Result<Value> {
        let Token::Text(text) = token else { return Err(self.unexpected("object key string", &token)) };
        let key = Value::String(self.call.lua.create_string(text)?);
        match self.next() {
            Token::Colon => Ok(key),
            found => Err(self.unexpected("colon", &found)),
        }
    }

    fn check_depth(&self, open: &[Open]) -> mlua::Result<()> {
        let depth = open.len() as i64 + 1;
        if depth <= self.settings.decode_max_depth.min(MAX_NESTING) {
            return Ok(());
        }
        Err(self
            .call
            .error(format!("Found too many nested data structures ({depth}) at character {}", self.at)))
    }

    fn unexpected(&self, expected: &str, found: &Token) -> mlua::Error {
        let (found, place) = (found.name(), self.token_at + 1);
        self.call.error(format!("Expected {expected} but found {found} at character {place}"))
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.text.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn next(&mut self) -> Token {
        while matches!(self.peek(0), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
        self.token_at = self.at;
        let single = match self.peek(0) {
            b'{' => Token::ObjectBegin,
            b'}' => Token::ObjectEnd,
            b'[' => Token::ArrayBegin,
            b']' => Token::ArrayEnd,
            b':' => Token::Colon,
            b',' => Token::Comma,
            // Texts end where C's do.
            0 => return Token::End,
            _ => return self.longer(),
        };
        self.at += 1;
        single
    }

    fn longer(&mut self) -> Token {
        let rest = self.text.get(self.at..).unwrap_or_default();
        match self.peek(0) {
            b'"' => self.string(),
            b'-' | b'0'..=b'9' => {
                if !self.settings.decode_invalid && is_invalid_number(rest) {
                    return Token::Error("invalid number");
                }
                self.number()
            }
            _ => {
                let words =
                    [("true", Token::Boolean(true)), ("false", Token::Boolean(false)), ("null", Token::Null)];
                for (word, token) in words {
                    if rest.starts_with(word.as_bytes()) {
                        self.at += word.len();
                        return token;
                    }
                }
                let may_be_number = matches!(self.peek(0), b'+' | b'n' | b'N' | b'i' | b'I');
                if may_be_number && self.settings.decode_invalid && is_invalid_number(rest) {
                    return self.number();
                }
                Token::Error("invalid token")
            }
        }
    }

    fn number(&mut self) -> Token {
        let rest = self.text.get(self.at..).unwrap_or_default();
        match c_number(rest) {
            Some((number, len)) => {
                self.at += len;
                Token::Number(number)
            }
            None => Token::Error("invalid number"),
        }
    }

    fn string(&mut self) -> Token {
        self.at += 1;
        let mut text = Vec::new();
        loop {
            let byte = self.peek(0);
            match byte {
                b'"' => {
                    self.at += 1;
                    return Token::Text(text);
                }
                0 => return self.failed("unexpected end of string"),
                b'\\' => match self.peek(1) {
                    b'u' => match self.unicode() {
                        Some((character, len)) => {
                            let mut bytes = [0; 4];
                            text.extend_from_slice(character.encode_utf8(&mut bytes).as_bytes());
                            self.at += len;
                        }
                        None => return self.failed("invalid unicode escape code"),
                    },
                    escape => {
                        text.push(match escape {
                            b'"' | b'\\' | b'/' => escape,
                            b'b' => 8,
                            b't' => b'\t',
                            b'n' => b'\n',
                            b'f' => 12,
                            b'r' => b'\r',
                            _ => return self.failed("invalid escape code"),
                        });
                        self.at += 2;
                    }
                },
                _ => {
                    // What needs no thought goes in one piece.
                    let rest = self.text.get(self.at..).unwrap_or_default();
                    let plain = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0));
                    let plain = rest.get(..plain.unwrap_or(rest.len())).unwrap_or_default();
                    text.extend_from_slice(plain);
                    self.at += plain.len();
                }
            }
        }
    }

    fn failed(&mut self, what: &'static str) -> Token {
        self.token_at = self.at;
        Token::Error(what)
    }

    /// The character of an escape, and the length of the escape.
    fn unicode(&self) -> Option<(char, usize)> {
        let first = self.four_digits(2)?;
        if first & 0xf800 != 0xd800 {
            return char::from_u32(first).map(|character| (character, 6));
        }
        if first & 0x400 != 0 || self.peek(6) != b'\\' || self.peek(7) != b'u' {
            return None;
        }
        let second = self.four_digits(8).filter(|second| second & 0xfc00 == 0xdc00)?;
        let character = ((first & 0x3ff) << 10 | (second & 0x3ff)) + 0x1_0000;
        char::from_u32(character).map(|character| (character, 12))
    }

    fn four_digits(&self, ahead: usize) -> Option<u32> {
        (0..4).try_fold(0, |number, digit| {
            Some(number * 16 + char::from(self.peek(ahead + digit)).to_digit(16)?)
        })
    }
}

/// Whether C reads a number here and JSON has none.
fn is_invalid_number(text: &[u8]) -> bool {
    let text = match text {
        [b'+', ..] => return true,
        [b'-', rest @ ..] => rest,
        _ => text,
    };
    match text {
        [b'0', b'x' | b'X' | b'0'..=b'9', ..] => true,
        [0..=b'9', ..] | [] => false,
        _ => text
            .get(..3)
            .is_some_and(|word| word.eq_ignore_ascii_case(b"inf") || word.eq_ignore_ascii_case(b"nan")),
    }
}

/// The number that C's `strtod` finds at the start of a text, and its length.
fn c_number(text: &[u8]) -> Option<(f64, usize)> {
    let (sign, signs) = match text {
        [b'-', ..] => (-1.0, 1),
        [b'+', ..] => (1.0, 1),
        _ => (1.0, 0),
    };
    let rest = text.get(signs..)?;
    let begins = |word: &[u8]| rest.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    if begins(b"infinity") {
        return Some((sign * f64::INFINITY, signs + 8));
    }
    if begins(b"inf") {
        return Some((sign * f64::INFINITY, signs + 3));
    }
    if begins(b"nan") {
        return Some((f64::NAN.copysign(sign), signs + 3));
    }
    if begins(b"0x")
        && let Some((number, len)) = hexadecimal(rest.get(2..)?)
    {
        return Some((sign * number, signs + 2 + len));
    }
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let whole = digits(rest);
    let mut len = whole;
    if rest.get(len) == Some(&b'.') {
        let decimals = digits(rest.get(len + 1..)?);
        if whole + decimals > 0 {
            len += 1 + decimals;
        }
    }
    if len == 0 {
        return None;
    }
    if matches!(rest.get(len), Some(b'e' | b'E')) {
        let exponent_sign = usize::from(matches!(rest.get(len + 1), Some(b'-' | b'+')));
        let exponent = digits(rest.get(len + 1 + exponent_sign..).unwrap_or_default());
        if exponent > 0 {
            len += 1 + exponent_sign + exponent;
        }
    }
    let number: f64 = std::str::from_utf8(rest.get(..len)?).ok()?.parse().ok()?;
    Some((sign * number, signs + len))
}

/// What follows `0x`, and its length. More than fifteen digits lose the last bits.
fn hexadecimal(text: &[u8]) -> Option<(f64, usize)> {
    let (mut number, mut scale, mut len, mut any, mut point) = (0.0_f64, 0_i32, 0, false, false);
    for &byte in text {
        match char::from(byte).to_digit(16) {
            Some(digit) => {
                number = number * 16.0 + f64::from(digit);
                any = true;
                if point {
                    scale -= 4;
                }
            }
            None if byte == b'.' && !point => point = true,
            None => break,
        }
        len += 1;
    }
    if !any {
        return None;
    }
    if matches!(text.get(len), Some(b'p' | b'P')) {
        let sign = usize::from(matches!(text.get(len + 1), Some(b'-' | b'+')));
        let from = len + 1 + sign;
        let digits = text.get(from..)?.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits > 0 {
            let exponent: i32 =
                std::str::from_utf8(text.get(from..from + digits)?).ok()?.parse().unwrap_or(9999);
            let exponent = exponent.min(9999);
            scale += if text.get(len + 1) == Some(&b'-') { -exponent } else { exponent };
            len = from + digits;
        }
    }
    Some((number * 2.0_f64.powi(scale), len))
}
