//! Python objects as stored bytes, by the rules of the keys that other services share.
//!
//! Rules: a `str` as it is, `bytes` as they are, everything else as JSON, and in it `str()` of what JSON has no form for: exactly what
//! `json.dumps(value, default=str)` means, without its spaces and its escapes. Invariants: what is written is valid JSON, so NaN and the
//! infinities are refused; integers and floats are written so that they come back exactly. Deliberately absent: types beyond that rule; a
//! region with a model has them.

use pyo3::exceptions::{PyTypeError, PyUnicodeEncodeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyList, PyMemoryView, PyString, PyTuple,
};

use crate::calling;
use crate::decode::MAX_NESTING;
use crate::errors;
use crate::large::copied;

/// The stored form of a value.
pub(crate) fn encode(value: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    if let Ok(text) = value.cast::<PyString>() {
        return text.to_str().map(|text| copied(value.py(), text.as_bytes())).map_err(|error| {
            let py = value.py();
            if error.is_instance_of::<PyUnicodeEncodeError>(py) {
                return errors::new(py, "UnencodableError", &format!("the text has no UTF-8 form: {error}"));
            }
            error
        });
    }
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(copied(value.py(), bytes.as_bytes()));
    }
    if value.is_instance_of::<PyByteArray>() || value.is_instance_of::<PyMemoryView>() {
        return value
            .call_method0("__bytes__")
            .or_else(|_| value.py().get_type::<PyBytes>().call1((value,)))?
            .extract();
    }
    json(value)
}

/// The form in a JSON frame, where a text stays one whatever it reads as. Bytes have none.
pub(crate) fn encode_json(value: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    let is_binary = value.is_instance_of::<PyBytes>()
        || value.is_instance_of::<PyByteArray>()
        || value.is_instance_of::<PyMemoryView>();
    if is_binary {
        let message = "the value has no stored form: JSON has none for bytes; codec='messagepack' takes them";
        return Err(errors::new(value.py(), "UnencodableError", message));
    }
    json(value)
}

/// The JSON form of a value, of texts and bytes too.
pub(crate) fn json(value: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    let mut writer = Writer { out: Vec::with_capacity(256), depth: 0 };
    writer.value(value)?;
    Ok(writer.out)
}

struct Writer {
    out: Vec<u8>,
    depth: usize,
}

impl Writer {
    fn value(&mut self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        // The exact types first: they are nearly all that comes.
        if let Ok(text) = value.cast_exact::<PyString>() {
            self.string(text)
        } else if let Ok(float) = value.cast_exact::<PyFloat>() {
            self.float(float)
        } else if let Ok(int) = value.cast_exact::<PyInt>() {
            self.int(int)
        } else if let Ok(dict) = value.cast_exact::<PyDict>() {
            self.nested(value, |writer| writer.dict(dict))
        } else if let Ok(list) = value.cast_exact::<PyList>() {
            self.nested(value, |writer| writer.items(list.iter()))
        } else if value.is_none() {
            self.word("null")
        } else if let Ok(bool) = value.cast::<PyBool>() {
            self.word(if bool.is_true() { "true" } else { "false" })
        } else if let Ok(tuple) = value.cast::<PyTuple>() {
            self.nested(value, |writer| writer.items(tuple.iter()))
        } else {
            self.other(value)
        }
    }

    /// Types derived from JSON's, and what is written as its text.
    fn other(&mut self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        if let Ok(text) = value.cast::<PyString>() {
            self.string(text)
        } else if let Ok(int) = value.cast::<PyInt>() {
            self.int(int)
        } else if let Ok(float) = value.cast::<PyFloat>() {
            self.float(float)
        } else if let Ok(list) = value.cast::<PyList>() {
            self.nested(value, |writer| writer.items(list.iter()))
        } else if let Ok(dict) = value.cast::<PyDict>() {
            self.nested(value, |writer| {
                writer.out.push(b'{');
                let mut is_first = true;
                // Its own `items`, which an OrderedDict, say, has in an order of its own.
                for item in dict.call_method0("items")?.try_iter()? {
                    let (name, member): (Bound<'_, PyAny>, Bound<'_, PyAny>) = item?.extract()?;
                    writer.member(&mut is_first, &name, &member)?;
                }
                writer.word("}")
            })
        } else {
            self.string(calling::call(&value.py().get_type::<PyString>(), (value,))?.cast()?)
        }
    }

    fn nested(
        &mut self,
        value: &Bound<'_, PyAny>,
        write: impl FnOnce(&mut Self) -> PyResult<()>,
    ) -> PyResult<()> {
        if self.depth == MAX_NESTING {
            let message = format!(
                "the value has no stored form: it nests more than {MAX_NESTING} lists and dicts, or contains itself"
            );
            return Err(errors::new(value.py(), "UnencodableError", &message));
        }
        self.depth += 1;
        let written = write(self);
        self.depth -= 1;
        written
    }

    fn items<'py>(&mut self, items: impl Iterator<Item = Bound<'py, PyAny>>) -> PyResult<()> {
        self.out.push(b'[');
        for (place, item) in items.enumerate() {
            if place > 0 {
                self.out.push(b',');
            }
            self.value(&item)?;
        }
        self.word("]")
    }

    fn dict(&mut self, dict: &Bound<'_, PyDict>) -> PyResult<()> {
        self.out.push(b'{');
        let mut is_first = true;
        // Not while the dict is walked: str() of a member may change it.
        for (name, member) in dict.iter().collect::<Vec<_>>() {
            self.member(&mut is_first, &name, &member)?;
        }
        self.word("}")
    }

    fn member(
        &mut self,
        is_first: &mut bool,
        name: &Bound<'_, PyAny>,
        member: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        if !std::mem::take(is_first) {
            self.out.push(b',');
        }
        self.name(name)?;
        self.out.push(b':');
        self.value(member)
    }

    /// A name, by json.dumps' rules for what is none.
    fn name(&mut self, name: &Bound<'_, PyAny>) -> PyResult<()> {
        if let Ok(text) = name.cast::<PyString>() {
            return self.string(text);
        }
        self.out.push(b'"');
        if let Ok(bool) = name.cast::<PyBool>() {
            self.word(if bool.is_true() { "true" } else { "false" })?;
        } else if let Ok(float) = name.cast::<PyFloat>() {
            self.float(float)?;
        } else if let Ok(int) = name.cast::<PyInt>() {
            self.int(int)?;
        } else if name.is_none() {
            self.word("null")?;
        } else {
            let kind = name.get_type().name()?;
            let message = format!(
                "the value has no stored form: names must be str, int, float, bool or None, not {kind}"
            );
            return Err(errors::new(name.py(), "UnencodableError", &message));
        }
        self.word("\"")
    }

    #[allow(clippy::unnecessary_wraps, reason = "it ends what can fail")]
    fn word(&mut self, word: &str) -> PyResult<()> {
        self.out.extend_from_slice(word.as_bytes());
        Ok(())
    }

    fn int(&mut self, int: &Bound<'_, PyInt>) -> PyResult<()> {
        if let Ok(int) = int.extract::<i64>() {
            return self.word(itoa::Buffer::new().format(int));
        }
        let py = int.py();
        let text = py.get_type::<PyInt>().call_method1("__repr__", (int,)).map_err(|error| {
            if error.is_instance_of::<PyValueError>(py) || error.is_instance_of::<PyTypeError>(py) {
                return errors::new(
                    py,
                    "UnencodableError",
                    &format!("the value has no stored form: {error}"),
                );
            }
            error
        })?;
        self.word(text.cast::<PyString>()?.to_str()?)
    }

    fn float(&mut self, float: &Bound<'_, PyFloat>) -> PyResult<()> {
        let number = float.value();
        if number.is_finite() {
            return self.word(ryu::Buffer::new().format_finite(number));
        }
        let message = format!(
            "the value has no stored form: {} is not a finite number, and JSON has no word for it; replace it, for instance by None",
            float.repr()?
        );
        Err(errors::new(float.py(), "UnencodableError", &message))
    }

    fn string(&mut self, text: &Bound<'_, PyString>) -> PyResult<()> {
        match text.to_str() {
            Ok(text) => self.text(text.as_bytes()),
            Err(_) => self.text_with_surrogates(text),
        }
    }

    fn text(&mut self, text: &[u8]) -> PyResult<()> {
        self.out.push(b'"');
        let mut written = 0;
        for (place, byte) in text.iter().enumerate() {
            if !matches!(byte, b'"' | b'\\' | 0..=0x1f) {
                continue;
            }
            self.out.extend_from_slice(text.get(written..place).unwrap_or_default());
            written = place + 1;
            match byte {
                b'"' | b'\\' => self.out.extend_from_slice(&[b'\\', *byte]),
                b'\n' => self.out.extend_from_slice(b"\\n"),
                b'\r' => self.out.extend_from_slice(b"\\r"),
                b'\t' => self.out.extend_from_slice(b"\\t"),
                other => self.escape(u16::from(*other)),
            }
        }
        self.out.extend_from_slice(text.get(written..).unwrap_or_default());
        self.word("\"")
    }

    fn escape(&mut self, unit: u16) {
        self.out.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
    }

    /// Half of a pair has no UTF-8 form, but an escape.
    fn text_with_surrogates(&mut self, text: &Bound<'_, PyString>) -> PyResult<()> {
        let units: Vec<u8> = text.call_method1("encode", ("utf-16-le", "surrogatepass"))?.extract()?;
        self.out.push(b'"');
        for pair in units.chunks_exact(2) {
            match u16::from_le_bytes([pair[0], pair[1]]) {
                unit @ (0x22 | 0x5c | 0..=0x1f | 0x7f..) => self.escape(unit),
                plain => self.out.push(plain as u8),
            }
        }
        self.word("\"")
    }
}
