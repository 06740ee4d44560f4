//! Python objects as `MessagePack`, for framed regions with that codec.
//!
//! It keeps what JSON cannot: `bytes`, NaN and the infinities, names that are no texts. Rules besides: tuples become lists, integers have 64 bits
//! at the most, and what has no form of its own is written as its `str()`, as in JSON. Invariant: no stored bytes make it panic or nest deeper
//! than a text in JSON may. Deliberately absent: extension types, which nobody here writes; they are refused.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyList, PyMemoryView, PyString, PyTuple,
};
use rmp::Marker;
use rmp::encode as write;

use crate::decode::{MAX_NESTING, note_made};
use crate::errors;
use crate::large::object_of;

/// The form of a value.
pub(crate) fn encode(value: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    let mut out = Vec::with_capacity(256);
    push(&mut out, value, 0)?;
    Ok(out)
}

/// The value of a form.
pub(crate) fn decode(py: Python<'_>, bytes: &[u8]) -> PyResult<Py<PyAny>> {
    let mut reader = Reader { py, rest: bytes };
    let value = reader.value(0).map_err(|fault| fault.raised(py))?;
    match reader.rest.len() {
        0 => Ok(value.unbind()),
        left => Err(Fault::from(format!("{left} bytes are left over")).raised(py)),
    }
}

fn refused(py: Python<'_>, why: &str) -> PyErr {
    errors::new(py, "UnencodableError", &format!("the value has no stored form: {why}"))
}

fn length(py: Python<'_>, length: usize) -> PyResult<u32> {
    u32::try_from(length).map_err(|_| refused(py, "it is longer than MessagePack has a form for"))
}

fn push(out: &mut Vec<u8>, value: &Bound<'_, PyAny>, depth: usize) -> PyResult<()> {
    let py = value.py();
    if depth > MAX_NESTING {
        let why = format!("it nests more than {MAX_NESTING} lists and dicts, or contains itself");
        return Err(refused(py, &why));
    }
    // What is written goes to memory, which takes everything.
    let written = if value.is_none() {
        write::write_nil(out)
    } else if let Ok(bool) = value.cast::<PyBool>() {
        write::write_bool(out, bool.is_true())
    } else if let Ok(text) = value.cast::<PyString>() {
        return push_text(out, text);
    } else if value.is_instance_of::<PyInt>() {
        return push_int(out, value);
    } else if let Ok(float) = value.cast::<PyFloat>() {
        return write::write_f64(out, float.value()).map_err(|error| refused(py, &error.to_string()));
    } else if let Ok(dict) = value.cast::<PyDict>() {
        return push_dict(out, dict, depth);
    } else if let Ok(list) = value.cast::<PyList>() {
        return push_items(out, list.len(), list.iter(), py, depth);
    } else if let Ok(tuple) = value.cast::<PyTuple>() {
        return push_items(out, tuple.len(), tuple.iter(), py, depth);
    } else if let Ok(bytes) = value.cast::<PyBytes>() {
        return push_bytes(out, bytes.as_bytes(), py);
    } else if value.is_instance_of::<PyByteArray>() || value.is_instance_of::<PyMemoryView>() {
        let bytes = py.get_type::<PyBytes>().call1((value,))?;
        return push_bytes(out, bytes.cast::<PyBytes>()?.as_bytes(), py);
    } else {
        return push_text(out, &value.str()?);
    };
    written.map_err(|error| refused(py, &error.to_string()))
}

fn push_text(out: &mut Vec<u8>, text: &Bound<'_, PyString>) -> PyResult<()> {
    let py = text.py();
    let text = text.to_str().map_err(|error| refused(py, &format!("a text has no UTF-8 form: {error}")))?;
    length(py, text.len())?;
    write::write_str(out, text).map_err(|error| refused(py, &error.to_string()))
}

fn push_bytes(out: &mut Vec<u8>, bytes: &[u8], py: Python<'_>) -> PyResult<()> {
    length(py, bytes.len())?;
    write::write_bin(out, bytes).map_err(|error| refused(py, &error.to_string()))
}

fn push_int(out: &mut Vec<u8>, value: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = value.py();
    let written = if let Ok(int) = value.extract::<i64>() {
        write::write_sint(out, int)
    } else if let Ok(int) = value.extract::<u64>() {
        write::write_uint(out, int)
    } else {
        return Err(refused(py, "an integer has more than 64 bits; codec='json' takes it"));
    };
    written.map(drop).map_err(|error| refused(py, &error.to_string()))
}

fn push_dict(out: &mut Vec<u8>, dict: &Bound<'_, PyDict>, depth: usize) -> PyResult<()> {
    let py = dict.py();
    // Not while the dict is walked: str() of a member may change it.
    let members: Vec<_> = dict.iter().collect();
    write::write_map_len(out, length(py, members.len())?).map_err(|error| refused(py, &error.to_string()))?;
    for (name, member) in members {
        push(out, &name, depth + 1)?;
        push(out, &member, depth + 1)?;
    }
    Ok(())
}

fn push_items<'py>(
    out: &mut Vec<u8>,
    count: usize,
    items: impl Iterator<Item = Bound<'py, PyAny>>,
    py: Python<'py>,
    depth: usize,
) -> PyResult<()> {
    write::write_array_len(out, length(py, count)?).map_err(|error| refused(py, &error.to_string()))?;
    let mut written = 0;
    for item in items.take(count) {
        push(out, &item, depth + 1)?;
        written += 1;
    }
    if written < count {
        return Err(PyValueError::new_err("the list became shorter while it was written"));
    }
    Ok(())
}

enum Fault {
    Undecodable(String),
    Python(PyErr),
}

impl Fault {
    fn raised(self, py: Python<'_>) -> PyErr {
        match self {
            Self::Undecodable(why) => {
                errors::new(py, "UndecodableError", &format!("the stored value cannot be read: {why}"))
            }
            Self::Python(error) => error,
        }
    }
}

impl From<String> for Fault {
    fn from(why: String) -> Self {
        Self::Undecodable(why)
    }
}

impl From<PyErr> for Fault {
    fn from(error: PyErr) -> Self {
        Self::Python(error)
    }
}

type Made<'py> = Result<Bound<'py, PyAny>, Fault>;

struct Reader<'a, 'py> {
    py: Python<'py>,
    rest: &'a [u8],
}

impl<'a, 'py> Reader<'a, 'py> {
    fn value(&mut self, depth: usize) -> Made<'py> {
        if depth > MAX_NESTING {
            return Err(format!("it nests more than {MAX_NESTING} arrays and maps").into());
        }
        let py = self.py;
        note_made(py);
        let int = |int: i64| Ok(PyInt::new(py, int).into_any());
        match Marker::from_u8(self.number::<1>()?[0]) {
            Marker::Null => Ok(py.None().into_bound(py)),
            Marker::True => Ok(PyBool::new(py, true).to_owned().into_any()),
            Marker::False => Ok(PyBool::new(py, false).to_owned().into_any()),
            Marker::FixPos(small) => int(small.into()),
            Marker::FixNeg(small) => int(small.into()),
            Marker::U8 => int(self.number::<1>()?[0].into()),
            Marker::U16 => int(u16::from_be_bytes(self.number()?).into()),
            Marker::U32 => int(u32::from_be_bytes(self.number()?).into()),
            Marker::U64 => Ok(PyInt::new(py, u64::from_be_bytes(self.number()?)).into_any()),
            Marker::I8 => int(i8::from_be_bytes(self.number()?).into()),
            Marker::I16 => int(i16::from_be_bytes(self.number()?).into()),
            Marker::I32 => int(i32::from_be_bytes(self.number()?).into()),
            Marker::I64 => int(i64::from_be_bytes(self.number()?)),
            Marker::F32 => Ok(PyFloat::new(py, f32::from_be_bytes(self.number()?).into()).into_any()),
            Marker::F64 => Ok(PyFloat::new(py, f64::from_be_bytes(self.number()?)).into_any()),
            Marker::FixStr(length) => self.text(length.into()),
            Marker::Str8 => self.length::<1>().and_then(|length| self.text(length)),
            Marker::Str16 => self.length::<2>().and_then(|length| self.text(length)),
            Marker::Str32 => self.length::<4>().and_then(|length| self.text(length)),
            Marker::Bin8 => self.length::<1>().and_then(|length| self.binary(length)),
            Marker::Bin16 => self.length::<2>().and_then(|length| self.binary(length)),
            Marker::Bin32 => self.length::<4>().and_then(|length| self.binary(length)),
            Marker::FixArray(length) => self.array(length.into(), depth),
            Marker::Array16 => self.length::<2>().and_then(|length| self.array(length, depth)),
            Marker::Array32 => self.length::<4>().and_then(|length| self.array(length, depth)),
            Marker::FixMap(length) => self.map(length.into(), depth),
            Marker::Map16 => self.length::<2>().and_then(|length| self.map(length, depth)),
            Marker::Map32 => self.length::<4>().and_then(|length| self.map(length, depth)),
            other => Err(format!("it holds {other:?}, which this codec does not write").into()),
        }
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (number, rest) =
            self.rest.split_first_chunk().ok_or_else(|| Fault::from("it breaks off".to_owned()))?;
        self.rest = rest;
        Ok(*number)
    }

    fn length<const N: usize>(&mut self) -> Result<usize, Fault> {
        let bytes: [u8; N] = self.number()?;
        Ok(bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
    }

    fn taken(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) =
            self.rest.split_at_checked(length).ok_or_else(|| Fault::from("it breaks off".to_owned()))?;
        self.rest = rest;
        Ok(taken)
    }

    fn text(&mut self, length: usize) -> Made<'py> {
        let py = self.py;
        let text = self.taken(length)?;
        let text = std::str::from_utf8(text).map_err(|error| Fault::from(error.to_string()))?;
        Ok(PyString::new(py, text).into_any())
    }

    fn binary(&mut self, length: usize) -> Made<'py> {
        let py = self.py;
        Ok(object_of(py, self.taken(length)?)?.into_any())
    }

    fn array(&mut self, length: usize, depth: usize) -> Made<'py> {
        // Not with room for all at once: how many there are is only what the bytes say.
        let list = PyList::empty(self.py);
        for _ in 0..length {
            list.append(self.value(depth + 1)?)?;
        }
        Ok(list.into_any())
    }

    fn map(&mut self, length: usize, depth: usize) -> Made<'py> {
        let dict = PyDict::new(self.py);
        for _ in 0..length {
            let name = self.value(depth + 1)?;
            let member = self.value(depth + 1)?;
            dict.set_item(name, member)
                .map_err(|_| Fault::from("a name in it is a list or a map".to_owned()))?;
        }
        Ok(dict.into_any())
    }
}
