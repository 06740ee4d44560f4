//! A region's policy out of the options that Python gives.
//!
//! Invariant: what is not given is as the layer has it; a name that is no option is a `TypeError`. Deliberately absent: defaults.

use mtcache::RegionPolicy;
use mtcache::cache::{Codec, Compression, Framing, PlainValues, Undecodable};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict};

use crate::arguments::{span, ttl};

/// The policy with these options changed.
pub(crate) fn changed(mut policy: RegionPolicy, options: &Bound<'_, PyDict>) -> PyResult<RegionPolicy> {
    for (name, value) in options {
        change(&mut policy, &name.extract::<String>()?, &value)?;
    }
    Ok(policy)
}

fn change(policy: &mut RegionPolicy, name: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
    match name {
        "ttl" => policy.ttl = ttl(value)?,
        "key_base" => {
            if let Some(base) = value.extract()? {
                policy.key_base = base;
            }
        }
        "stale" => policy.stale_window = span(value)?,
        "soft_timeout" => policy.soft_timeout = or_none(value, ttl)?,
        "stale_while_revalidate" => policy.stale_while_revalidate = value.extract()?,
        "eager_refresh" => policy.eager_refresh = value.extract()?,
        "xfetch_beta" => policy.xfetch_beta = value.extract()?,
        "none_ttl" => policy.none_ttl = or_none(value, ttl)?,
        "ttl_jitter" => policy.ttl_jitter = value.extract()?,
        "undecodable" => policy.undecodable = undecodable(name, value)?,
        "near" => policy.near = value.extract()?,
        "check_every" => policy.check_every = value.extract()?,
        "load_timeout" => policy.load_timeout = ttl(value)?,
        "max_loads" => policy.max_loads = value.extract()?,
        "max_waiting_loads" => policy.max_waiting_loads = value.extract()?,
        "max_load_wait" => policy.max_load_wait = span(value)?,
        "max_batch" => policy.max_batch = value.extract()?,
        "lease" => policy.lease = or_none(value, ttl)?,
        "codec" => {
            let codecs = [("json", Codec::Json), ("messagepack", Codec::MessagePack)];
            policy.codec = chosen(name, value, &codecs)?;
        }
        "framed" => {
            policy.framing = match value.cast::<PyBool>() {
                Ok(bool) => bool.is_true().then(Framing::new),
                Err(_) => Some(framing(value)?),
            }
        }
        other => return Err(PyTypeError::new_err(format!("a region has no option {other}"))),
    }
    Ok(())
}

fn framing(value: &Bound<'_, PyAny>) -> PyResult<Framing> {
    let compressions = [("none", Compression::None), ("lz4", Compression::Lz4), ("zstd", Compression::Zstd)];
    let plain = [("read", PlainValues::Read), ("miss", PlainValues::Miss), ("error", PlainValues::Error)];
    let option = |name: &str| value.getattr(name);
    Ok(Framing::new()
        .compress(
            chosen("compression", &option("compression")?, &compressions)?,
            option("compress_above")?.extract()?,
        )
        .schema(option("schema")?.extract()?)
        .newer(undecodable("newer", &option("newer")?)?)
        .plain(chosen("plain", &option("plain")?, &plain)?)
        .tags(option("tags")?.try_iter()?.map(|tag| tag?.extract::<String>()).collect::<PyResult<Vec<_>>>()?))
}

fn undecodable(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Undecodable> {
    chosen(name, value, &[("error", Undecodable::Error), ("miss", Undecodable::Miss)])
}

/// One of the words that an option takes.
fn chosen<T: Copy>(name: &str, value: &Bound<'_, PyAny>, choices: &[(&str, T)]) -> PyResult<T> {
    let word: String = value.extract()?;
    match choices.iter().find(|(choice, _)| *choice == word) {
        Some((_, choice)) => Ok(*choice),
        None => {
            let words: Vec<_> = choices.iter().map(|(choice, _)| *choice).collect();
            Err(PyValueError::new_err(format!("{name} is one of {}, not {word}", words.join(", "))))
        }
    }
}

fn or_none<T>(value: &Bound<'_, PyAny>, of: fn(&Bound<'_, PyAny>) -> PyResult<T>) -> PyResult<Option<T>> {
    if value.is_none() { Ok(None) } else { of(value).map(Some) }
}
