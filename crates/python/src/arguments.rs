//! What callers in Python give, as the layer's types.

use std::time::Duration;

use mtcache::cache::Ttl;
use mtcache::cache::codec::Stored;
use mtcache::cache::collections::{Bound as ScoreBound, ScoreRange};
use mtcache::{Condition, ReadOptions, SetOptions};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyString, PyTuple};

use crate::encode::encode;
use crate::errors;

/// A time to live: seconds as a number, or a `timedelta`.
pub(crate) fn ttl(value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    let seconds = seconds(value)?;
    Ttl::from_secs_f64(seconds).map(Ttl::as_duration).map_err(|error| errors::raise(value.py(), &error))
}

/// A span of time that may be zero.
pub(crate) fn span(value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    let seconds = seconds(value)?;
    Duration::try_from_secs_f64(seconds).map_err(|_| {
        PyValueError::new_err(format!("{seconds} seconds are no span of time; it must not be negative"))
    })
}

fn seconds(value: &Bound<'_, PyAny>) -> PyResult<f64> {
    let is_number = value.is_instance_of::<PyFloat>() || value.is_instance_of::<PyInt>();
    if is_number && !value.is_instance_of::<PyBool>() {
        return value.extract();
    }
    if let Ok(seconds) = value.call_method0("total_seconds") {
        return seconds.extract();
    }
    let kind = value.get_type().name()?;
    Err(PyTypeError::new_err(format!("seconds are an int, a float or a timedelta, not {kind}")))
}

/// How a value is set. `ttl` of None: it does not expire.
pub(crate) fn set_options(
    ttl: Option<&Bound<'_, PyAny>>,
    nx: bool,
    xx: bool,
    newer_by: Option<String>,
) -> PyResult<SetOptions> {
    let options = match ttl {
        Some(value) => SetOptions::ttl(self::ttl(value)?),
        None => SetOptions::no_expiry(),
    };
    Ok(match condition(nx, xx, newer_by)? {
        Condition::IfAbsent => options.if_absent(),
        Condition::IfPresent => options.if_present(),
        Condition::IfNewer { field } => options.if_newer(field),
        _ => options,
    })
}

pub(crate) fn condition(nx: bool, xx: bool, newer_by: Option<String>) -> PyResult<Condition> {
    match (nx, xx, newer_by) {
        (false, false, None) => Ok(Condition::Always),
        (true, false, None) => Ok(Condition::IfAbsent),
        (false, true, None) => Ok(Condition::IfPresent),
        (false, false, Some(field)) => Ok(Condition::IfNewer { field }),
        _ => Err(PyValueError::new_err("nx, xx and newer_by exclude each other")),
    }
}

/// What a reader demands; None of each: nothing.
pub(crate) fn read_options(
    max_age: Option<&Bound<'_, PyAny>>,
    backend_timeout: Option<&Bound<'_, PyAny>>,
    deadline: Option<&Bound<'_, PyAny>>,
    fresh_only: bool,
) -> PyResult<ReadOptions> {
    let mut options = ReadOptions::new();
    options.max_age = max_age.map(span).transpose()?;
    options.backend_timeout = backend_timeout.map(span).transpose()?;
    options.deadline = deadline.map(span).transpose()?;
    options.fresh_only = fresh_only;
    Ok(options)
}

/// What names an entry of a region: a text, a number, or a tuple of them.
pub(crate) fn parts(id: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    match id.cast::<PyTuple>() {
        Ok(parts) => parts.iter().map(|part| part_text(&part)).collect(),
        Err(_) => Ok(vec![part_text(id)?]),
    }
}

fn part_text(part: &Bound<'_, PyAny>) -> PyResult<String> {
    if let Ok(text) = part.cast::<PyString>() {
        return Ok(text.to_str()?.to_owned());
    }
    if part.is_instance_of::<PyInt>() && !part.is_instance_of::<PyBool>() {
        return part.str()?.extract();
    }
    let kind = part.get_type().name()?;
    Err(PyTypeError::new_err(format!("what names an entry is a str, an int or a tuple of them, not {kind}")))
}

/// Fields and values of a hash.
pub(crate) fn fields(mapping: &Bound<'_, PyDict>) -> PyResult<Vec<(String, Stored)>> {
    mapping.iter().map(|(field, value)| Ok((field.str()?.extract()?, Stored(encode(&value)?)))).collect()
}

/// Members and scores of a sorted set.
pub(crate) fn members(mapping: &Bound<'_, PyDict>) -> PyResult<Vec<(Stored, f64)>> {
    mapping.iter().map(|(member, score)| Ok((Stored(encode(&member)?), score.extract()?))).collect()
}

/// A range of scores in redis-py's words: a number, `"-inf"`, `"+inf"`, or `"(5"` for what lies beyond 5.
pub(crate) fn score_range(low: &Bound<'_, PyAny>, high: &Bound<'_, PyAny>) -> PyResult<ScoreRange> {
    ScoreRange::new(bound(low)?, bound(high)?).map_err(|error| errors::raise(low.py(), &error))
}

fn bound(value: &Bound<'_, PyAny>) -> PyResult<ScoreBound> {
    let Ok(text) = value.cast::<PyString>() else { return Ok(ScoreBound::Including(value.extract()?)) };
    let text = text.to_str()?;
    let number = |text: &str| {
        text.parse::<f64>()
            .map_err(|_| PyValueError::new_err(format!("{text:?} is no bound of a range of scores")))
    };
    match text.strip_prefix('(') {
        Some(beyond) => Ok(ScoreBound::Excluding(number(beyond)?)),
        None => Ok(ScoreBound::Including(number(text)?)),
    }
}
