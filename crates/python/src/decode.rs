//! Stored bytes as Python objects: JSON first, else text, else the bytes; and JSON alone, where a frame says that it is.
//!
//! Invariant: what `json.loads` makes of a text, this makes of it too: integers of any size exactly, floats to the last bit, NaN and the
//! infinities as old writers left them, lone surrogates, the last of equal names; and what it refuses is a text. No value is built twice and
//! none is shared. Names of members are taken from a small table, as they come again and again. Deliberately absent: types beyond JSON's.

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, RandomState};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString};

use crate::errors;
use crate::large::{object_of, unlocked_if_large};

/// How deep arrays and objects may nest: what Python's own reader takes.
pub(crate) const MAX_NESTING: usize = 1000;
/// Names that are kept for the next time, in each thread.
const KEPT_NAMES: usize = 1024;
/// Longest name that is kept.
const MAX_KEPT_NAME: usize = 40;
/// Values that are made before other threads get a chance to run.
const BETWEEN_PAUSES: u32 = 20_000;

thread_local! {
    /// Values that this thread has made since the last pause.
    static MADE: Cell<u32> = const { Cell::new(0) };
}

/// The value of stored bytes, made anew.
pub(crate) fn decode(py: Python<'_>, bytes: &[u8]) -> PyResult<Py<PyAny>> {
    let text = unlocked_if_large(py, bytes.len(), || std::str::from_utf8(bytes));
    let Ok(text) = text else { return Ok(object_of(py, bytes)?.into_any().unbind()) };
    match json(py, text) {
        Ok(value) => Ok(value.unbind()),
        Err(Fault::NotJson) => Ok(PyString::new(py, text).into_any().unbind()),
        Err(fault) => Err(fault.raised(py)),
    }
}

/// The value of bytes that are JSON.
pub(crate) fn decode_json(py: Python<'_>, bytes: &[u8]) -> PyResult<Py<PyAny>> {
    let text = std::str::from_utf8(bytes).map_err(|_| Fault::NotJson.raised(py))?;
    json(py, text).map(Bound::unbind).map_err(|fault| fault.raised(py))
}

/// Python switches threads between its own instructions, of which a long value, or a batch of short ones, has none.
#[cold]
#[inline(never)]
fn pause(py: Python<'_>) {
    py.detach(std::thread::yield_now);
}

/// Counts a value that was made of another form than JSON.
pub(crate) fn note_made(py: Python<'_>) {
    MADE.set(MADE.get() + 1);
    pause_if_due(py);
}

fn pause_if_due(py: Python<'_>) {
    if MADE.get() >= BETWEEN_PAUSES {
        MADE.set(0);
        pause(py);
    }
}

enum Fault {
    NotJson,
    TooDeep,
    Python(PyErr),
}

impl Fault {
    fn raised(self, py: Python<'_>) -> PyErr {
        let why = match self {
            Self::Python(error) => return error,
            Self::NotJson => "is no JSON".to_owned(),
            Self::TooDeep => format!("nests more than {MAX_NESTING} arrays and objects"),
        };
        errors::new(py, "UndecodableError", &format!("the stored value {why}"))
    }
}

impl From<PyErr> for Fault {
    fn from(error: PyErr) -> Self {
        Self::Python(error)
    }
}

type Parsed<'py> = Result<Bound<'py, PyAny>, Fault>;

fn json<'py>(py: Python<'py>, text: &str) -> Parsed<'py> {
    let mut reader = Reader { py, text, at: 0, depth: 0, made: 0 };
    reader.skip_space();
    let value = reader.value();
    MADE.set(MADE.get() + reader.made % BETWEEN_PAUSES);
    pause_if_due(py);
    let value = value?;
    reader.skip_space();
    if reader.at == text.len() { Ok(value) } else { Err(Fault::NotJson) }
}

struct Reader<'a, 'py> {
    py: Python<'py>,
    text: &'a str,
    at: usize,
    depth: usize,
    made: u32,
}

impl<'py> Reader<'_, 'py> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    fn rest(&self) -> &[u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn takes(&mut self, word: &str) -> bool {
        let found = self.rest().starts_with(word.as_bytes());
        if found {
            self.at += word.len();
        }
        found
    }

    fn value(&mut self) -> Parsed<'py> {
        self.made += 1;
        if self.made.is_multiple_of(BETWEEN_PAUSES) {
            pause(self.py);
        }
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                Ok(self.string()?.into_any())
            }
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') if self.takes("true") => Ok(PyBool::new(self.py, true).to_owned().into_any()),
            Some(b'f') if self.takes("false") => Ok(PyBool::new(self.py, false).to_owned().into_any()),
            Some(b'n') if self.takes("null") => Ok(self.py.None().into_bound(self.py)),
            Some(b'N') if self.takes("NaN") => Ok(PyFloat::new(self.py, f64::NAN).into_any()),
            Some(b'I') if self.takes("Infinity") => Ok(PyFloat::new(self.py, f64::INFINITY).into_any()),
            _ => Err(Fault::NotJson),
        }
    }

    fn nested(&mut self, read: fn(&mut Self) -> Parsed<'py>) -> Parsed<'py> {
        if self.depth == MAX_NESTING {
            return Err(Fault::TooDeep);
        }
        self.at += 1;
        self.depth += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }

    fn array(&mut self) -> Parsed<'py> {
        let list = PyList::empty(self.py);
        self.skip_space();
        if self.takes("]") {
            return Ok(list.into_any());
        }
        loop {
            self.skip_space();
            list.append(self.value()?)?;
            self.skip_space();
            if self.takes(",") {
                continue;
            }
            return if self.takes("]") { Ok(list.into_any()) } else { Err(Fault::NotJson) };
        }
    }

    fn object(&mut self) -> Parsed<'py> {
        let dict = PyDict::new(self.py);
        self.skip_space();
        if self.takes("}") {
            return Ok(dict.into_any());
        }
        loop {
            self.skip_space();
            if !self.takes("\"") {
                return Err(Fault::NotJson);
            }
            let name = self.name()?;
            self.skip_space();
            if !self.takes(":") {
                return Err(Fault::NotJson);
            }
            self.skip_space();
            dict.set_item(name, self.value()?)?;
            self.skip_space();
            if self.takes(",") {
                continue;
            }
            return if self.takes("}") { Ok(dict.into_any()) } else { Err(Fault::NotJson) };
        }
    }

    /// How long the text is up to its first byte that is not itself; none if that is no end or escape.
    fn plain(&self) -> Option<(usize, u8)> {
        let rest = self.rest();
        let length = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f))?;
        rest.get(length).map(|byte| (length, *byte))
    }

    fn name(&mut self) -> Result<Bound<'py, PyString>, Fault> {
        match self.plain() {
            Some((length, b'"')) => {
                let text = self.text.get(self.at..self.at + length).unwrap_or_default();
                self.at += length + 1;
                Ok(kept_name(self.py, text))
            }
            _ => self.string(),
        }
    }

    /// A string whose opening quote has been read.
    fn string(&mut self) -> Result<Bound<'py, PyString>, Fault> {
        match self.plain() {
            Some((length, b'"')) => {
                let text = self.text.get(self.at..self.at + length).unwrap_or_default();
                self.at += length + 1;
                Ok(PyString::new(self.py, text))
            }
            Some((_, b'\\')) => self.escaped_string(),
            _ => Err(Fault::NotJson),
        }
    }

    fn escaped_string(&mut self) -> Result<Bound<'py, PyString>, Fault> {
        let mut text = Vec::new();
        let mut has_surrogate = false;
        loop {
            let Some((length, end)) = self.plain() else { return Err(Fault::NotJson) };
            text.extend_from_slice(self.rest().get(..length).unwrap_or_default());
            self.at += length + 1;
            match end {
                b'"' => break,
                b'\\' => {}
                _ => return Err(Fault::NotJson),
            }
            let escape = self.peek().ok_or(Fault::NotJson)?;
            self.at += 1;
            match escape {
                b'"' | b'\\' | b'/' => text.push(escape),
                b'b' => text.push(8),
                b'f' => text.push(12),
                b'n' => text.push(b'\n'),
                b'r' => text.push(b'\r'),
                b't' => text.push(b'\t'),
                b'u' => has_surrogate |= push_code_point(&mut text, self.code_point()?),
                _ => return Err(Fault::NotJson),
            }
        }
        if has_surrogate {
            let bytes = PyBytes::new(self.py, &text);
            return Ok(PyString::from_encoded_object(&bytes, Some(c"utf-8"), Some(c"surrogatepass"))?);
        }
        // Valid text and what was pushed as text is valid text.
        Ok(PyString::new(self.py, &String::from_utf8_lossy(&text)))
    }

    fn code_point(&mut self) -> Result<u32, Fault> {
        let high = self.four_digits()?;
        if (0xd800..0xdc00).contains(&high) && self.rest().starts_with(b"\\u") {
            let before = self.at;
            self.at += 2;
            // What follows need not be digits, and then it is not this code point's fault.
            match self.four_digits() {
                Ok(low) if (0xdc00..0xe000).contains(&low) => {
                    return Ok(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00));
                }
                _ => self.at = before,
            }
        }
        Ok(high)
    }

    fn four_digits(&mut self) -> Result<u32, Fault> {
        let digits = self.rest().get(..4).ok_or(Fault::NotJson)?;
        let mut code = 0;
        for digit in digits {
            code = code * 16 + char::from(*digit).to_digit(16).ok_or(Fault::NotJson)?;
        }
        self.at += 4;
        Ok(code)
    }

    fn skip_digits(&mut self) -> bool {
        let before = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        self.at > before
    }

    fn number(&mut self) -> Parsed<'py> {
        let start = self.at;
        if self.takes("-") && self.takes("Infinity") {
            return Ok(PyFloat::new(self.py, f64::NEG_INFINITY).into_any());
        }
        let whole = self.at;
        if !self.skip_digits() || (self.at > whole + 1 && self.text.as_bytes().get(whole) == Some(&b'0')) {
            return Err(Fault::NotJson);
        }
        let end_of_whole = self.at;
        if self.takes(".") && !self.skip_digits() {
            return Err(Fault::NotJson);
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            if !self.skip_digits() {
                return Err(Fault::NotJson);
            }
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        if self.at > end_of_whole {
            return text
                .parse()
                .map(|float| PyFloat::new(self.py, float).into_any())
                .map_err(|_| Fault::NotJson);
        }
        match text.parse::<i64>() {
            Ok(int) => Ok(PyInt::new(self.py, int).into_any()),
            Err(_) => big_int(self.py, text),
        }
    }
}

fn big_int<'py>(py: Python<'py>, text: &str) -> Parsed<'py> {
    // Python bounds how many digits it reads, and then says so with a ValueError; its JSON reader passes that on.
    py.get_type::<PyInt>().call1((text,)).map_err(|error| {
        if error.is_instance_of::<PyValueError>(py) { Fault::NotJson } else { Fault::Python(error) }
    })
}

/// Pushes a code point; true if it is half of a pair, which is no text in UTF-8.
fn push_code_point(text: &mut Vec<u8>, code: u32) -> bool {
    if let Some(c) = char::from_u32(code) {
        text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        return false;
    }
    text.extend_from_slice(&[
        0xe0 | (code >> 12) as u8,
        0x80 | ((code >> 6) & 0x3f) as u8,
        0x80 | (code & 0x3f) as u8,
    ]);
    true
}

struct Names {
    hasher: RandomState,
    kept: Vec<Option<(Box<str>, Py<PyString>)>>,
}

thread_local! {
    static NAMES: RefCell<Option<Names>> = const { RefCell::new(None) };
}

/// The string of a name, from the table or put into it.
fn kept_name<'py>(py: Python<'py>, text: &str) -> Bound<'py, PyString> {
    if text.len() > MAX_KEPT_NAME {
        return PyString::new(py, text);
    }
    NAMES.with_borrow_mut(|names| {
        let names = names.get_or_insert_with(|| Names {
            hasher: RandomState::new(),
            kept: std::iter::repeat_with(|| None).take(KEPT_NAMES).collect(),
        });
        let place = names.hasher.hash_one(text) as usize % KEPT_NAMES;
        let Some(kept) = names.kept.get_mut(place) else { return PyString::new(py, text) };
        if let Some((name, string)) = kept
            && **name == *text
        {
            return string.bind(py).clone();
        }
        let string = PyString::new(py, text);
        *kept = Some((text.into(), string.clone().unbind()));
        string
    })
}
