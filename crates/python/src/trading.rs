//! Signals and sessions, which are more than a value under a key.
//!
//! Deliberately absent: the regions of the table, which are regions as any other; Python asks for their lines here.

use std::time::Duration;

use mtcache::cache::codec::Stored;
use mtcache::trading::{
    BufferedSignal, DEFAULT_CAPACITY, Extra, REGIONS, RegionTable, Session, SessionStore, SessionToken,
    SignalBuffer, SignalFilter, Stale, Timestamp, Trading,
};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList};

use crate::arguments;
use crate::begin::Begin;
use crate::cache::{Closing, Core};
use crate::decode::decode;
use crate::encode::json;
use crate::errors;
use crate::operation::Operation;

fn raised(py: Python<'_>) -> impl Fn(mtcache::trading::Error) -> PyErr + '_ {
    move |error| errors::raise_trading(py, &error)
}

fn moment(value: &Bound<'_, PyAny>) -> PyResult<Timestamp> {
    let py = value.py();
    if let Ok(seconds) = value.extract::<f64>() {
        return Timestamp::from_epoch_seconds(seconds).map_err(raised(py));
    }
    // A datetime in its ISO form; one without a zone is UTC.
    let text: String = match value.call_method0("isoformat") {
        Ok(iso) => iso.extract()?,
        Err(_) => value.str()?.extract()?,
    };
    Timestamp::parse(&text).map_err(raised(py))
}

/// What a cache knows of trading: read from the environment when it is first asked for, and once.
pub(crate) struct Known {
    table: PyOnceLock<RegionTable>,
    trading: PyOnceLock<Closing<Trading>>,
}

impl Default for Known {
    fn default() -> Self {
        Self { table: PyOnceLock::new(), trading: PyOnceLock::new() }
    }
}

impl Core {
    fn table(&self, py: Python<'_>) -> PyResult<&RegionTable> {
        self.known().table.get_or_try_init(py, || RegionTable::from_environment().map_err(raised(py)))
    }

    fn trading(&self, py: Python<'_>) -> PyResult<Trading> {
        let made = || {
            let trading = Trading::with_table(&self.cache(py)?, self.table(py)?).map_err(raised(py))?;
            Ok::<_, PyErr>(self.part(trading))
        };
        self.known().trading.get_or_try_init(py, made)?.get(py)
    }
}

/// The buffer of recent signals.
#[pyclass(frozen, module = "mtcache", name = "_SignalCore")]
pub(crate) struct SignalCore {
    buffer: Closing<SignalBuffer>,
}

/// Sessions of users.
#[pyclass(frozen, module = "mtcache", name = "_SessionCore")]
pub(crate) struct SessionCore {
    store: Closing<SessionStore>,
}

#[pymethods]
impl Core {
    /// The table of regions: name, key base, seconds, seconds it may be served stale.
    fn _trading_table(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let table = self.table(py)?;
        let list = PyList::empty(py);
        for line in REGIONS {
            let spec = table.spec(line.id).map_err(raised(py))?;
            let stale = match spec.stale {
                Stale::For(window) => window,
                Stale::Never | Stale::NotApplicable => Duration::ZERO,
            };
            list.append((spec.name, spec.key_base(), spec.ttl.as_secs_f64(), stale.as_secs_f64()))?;
        }
        list.into_py_any(py)
    }

    fn _signals(&self, py: Python<'_>) -> PyResult<SignalCore> {
        Ok(SignalCore { buffer: self.part(self.trading(py)?.signals().clone()) })
    }

    #[pyo3(signature = (absolute_life=None))]
    fn _sessions(&self, py: Python<'_>, absolute_life: Option<&Bound<'_, PyAny>>) -> PyResult<SessionCore> {
        let mut store = self.trading(py)?.sessions().clone();
        if let Some(life) = absolute_life {
            store = store.with_absolute_life(arguments::ttl(life)?);
        }
        Ok(SessionCore { store: self.part(store) })
    }
}

fn signal(py: Python<'_>, found: &BufferedSignal) -> PyResult<(Py<PyAny>, Option<String>, f64)> {
    let object = decode(py, found.stored())?;
    if let Ok(dict) = object.bind(py).cast::<PyDict>()
        && dict.contains("_id")?
    {
        dict.del_item("_id")?;
    }
    Ok((object, found.id.clone(), found.age.as_secs_f64()))
}

#[pymethods]
impl SignalCore {
    /// Puts a signal in; gives its identity and how many there are now.
    #[pyo3(signature = (signal, max_signals=DEFAULT_CAPACITY))]
    fn push(&self, py: Python<'_>, signal: &Bound<'_, PyAny>, max_signals: usize) -> PyResult<Operation> {
        let buffer = self.buffer.get(py)?.with_capacity(max_signals);
        let signal = Stored(json(signal)?);
        Ok(Operation::new(async move { buffer.push(&signal).await }, |py, pushed| {
            (pushed.id, pushed.buffered).into_py_any(py)
        })
        .begins(Begin::Unlocked))
    }

    /// The newest signals, newest first, each with its identity and its age in seconds.
    #[pyo3(signature = (count, *, symbol=None, signal_type=None, min_strength=None, since=None, until=None))]
    #[allow(clippy::too_many_arguments, reason = "Python's caller names them")]
    fn _find(
        &self,
        py: Python<'_>,
        count: usize,
        symbol: Option<String>,
        signal_type: Option<String>,
        min_strength: Option<f64>,
        since: Option<&Bound<'_, PyAny>>,
        until: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Operation> {
        let buffer = self.buffer.get(py)?;
        let mut filter = SignalFilter::new();
        if let Some(symbol) = symbol {
            filter = filter.symbol(symbol);
        }
        if let Some(kind) = signal_type {
            filter = filter.signal_type(kind);
        }
        if let Some(strength) = min_strength {
            filter = filter.min_strength(strength);
        }
        if let Some(since) = since {
            filter = filter.since(moment(since)?);
        }
        if let Some(until) = until {
            filter = filter.until(moment(until)?);
        }
        Ok(Operation::new(async move { buffer.find(&filter, count).await }, |py, found| {
            let list = PyList::empty(py);
            for one in &found {
                list.append(signal(py, one)?)?;
            }
            list.into_py_any(py)
        })
        .begins(Begin::Unlocked))
    }

    fn count(&self, py: Python<'_>) -> PyResult<Operation> {
        let buffer = self.buffer.get(py)?;
        Ok(Operation::of(async move { buffer.len().await }))
    }

    fn clear(&self, py: Python<'_>) -> PyResult<Operation> {
        let buffer = self.buffer.get(py)?;
        Ok(Operation::done(async move { buffer.clear().await }))
    }
}

fn session(py: Python<'_>, session: &Session) -> PyResult<Py<PyAny>> {
    let data =
        serde_json::to_vec(&session.data).map_err(|_| errors::internal("session data that is no JSON"))?;
    let times = (session.created_at.epoch_seconds(), session.ends_at.epoch_seconds());
    (&session.id, &session.user_id, times.0, times.1, decode(py, &data)?).into_py_any(py)
}

fn data(value: Option<&Bound<'_, PyDict>>) -> PyResult<Extra> {
    let Some(value) = value else { return Ok(Extra::new()) };
    serde_json::from_slice(&json(value)?).map_err(|_| errors::internal("a dict that is no JSON object"))
}

#[pymethods]
impl SessionCore {
    #[pyo3(signature = (user_id, data=None))]
    fn _create(
        &self,
        py: Python<'_>,
        user_id: String,
        data: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Operation> {
        let (store, data) = (self.store.get(py)?, self::data(data)?);
        Ok(Operation::new(async move { store.create(&user_id, data).await }, |py, (token, opened)| {
            (token.reveal(), session(py, &opened)?).into_py_any(py)
        }))
    }

    fn _get(&self, py: Python<'_>, token: &str) -> PyResult<Operation> {
        let Some(token) = SessionToken::parse(token) else { return Ok(Operation::ready(Ok(py.None()))) };
        let store = self.store.get(py)?;
        Ok(Operation::new(async move { store.get(&token).await }, |py, found| match found {
            Some(found) => session(py, &found),
            None => Ok(py.None()),
        }))
    }

    fn update(&self, py: Python<'_>, token: &str, data: &Bound<'_, PyDict>) -> PyResult<Operation> {
        let Some(token) = SessionToken::parse(token) else {
            return Ok(Operation::ready(false.into_py_any(py)));
        };
        let (store, data) = (self.store.get(py)?, self::data(Some(data))?);
        Ok(Operation::of(async move { store.update(&token, data).await }))
    }

    fn revoke(&self, py: Python<'_>, token: &str) -> PyResult<Operation> {
        let Some(token) = SessionToken::parse(token) else {
            return Ok(Operation::ready(false.into_py_any(py)));
        };
        let store = self.store.get(py)?;
        Ok(Operation::of(async move { store.revoke(&token).await }))
    }

    fn revoke_all(&self, py: Python<'_>, user_id: String) -> PyResult<Operation> {
        let store = self.store.get(py)?;
        Ok(Operation::of(async move { store.revoke_all(&user_id).await }))
    }

    fn _list(&self, py: Python<'_>, user_id: String) -> PyResult<Operation> {
        let store = self.store.get(py)?;
        Ok(Operation::new(async move { store.list(&user_id).await }, |py, found| {
            let list = PyList::empty(py);
            for one in &found {
                list.append(session(py, one)?)?;
            }
            list.into_py_any(py)
        })
        .begins(Begin::Unlocked))
    }
}
