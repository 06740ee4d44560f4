//! Hashes and sorted sets by their keys.

use mtcache::cache::Order;
use mtcache::cache::codec::Stored;
use mtcache::cache::collections::{HashView, SortedSetView, ZaddOptions};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arguments;
use crate::begin::Begin;
use crate::cache::{Core, members};
use crate::decode::decode;
use crate::encode::encode;
use crate::errors;
use crate::operation::Operation;

fn order(descending: bool) -> Order {
    if descending { Order::Descending } else { Order::Ascending }
}

impl Core {
    fn hash_view(&self, py: Python<'_>, key: &str) -> PyResult<HashView> {
        self.cache(py)?.hash(key).map_err(|error| errors::raise(py, &error))
    }

    fn set_view(&self, py: Python<'_>, key: &str) -> PyResult<SortedSetView> {
        self.cache(py)?.sorted_set(key).map_err(|error| errors::raise(py, &error))
    }
}

#[pymethods]
impl Core {
    fn hset(
        &self,
        py: Python<'_>,
        key: &str,
        mapping: &Bound<'_, PyDict>,
        ttl: &Bound<'_, PyAny>,
        keep_expiry: bool,
    ) -> PyResult<Operation> {
        let ttl = arguments::ttl(ttl)?;
        let hash = self.hash_view(py, key)?;
        let fields = arguments::fields(mapping)?;
        let begin = Begin::for_many(fields.len());
        Ok(Operation::of(async move {
            if keep_expiry {
                hash.set_many_keeping_expiry(&fields, ttl).await
            } else {
                hash.set_many(&fields, ttl).await
            }
        })
        .begins(begin))
    }

    #[pyo3(signature = (key, field, default=None))]
    fn hget(
        &self,
        py: Python<'_>,
        key: &str,
        field: String,
        default: Option<Py<PyAny>>,
    ) -> PyResult<Operation> {
        let hash = self.hash_view(py, key)?;
        let future = async move { hash.get::<Stored>(&field).await };
        Ok(Operation::new(future, move |py, value| match value {
            Some(value) => decode(py, &value.0),
            None => Ok(default.unwrap_or_else(|| py.None())),
        }))
    }

    fn hgetall(&self, py: Python<'_>, key: &str) -> PyResult<Operation> {
        let hash = self.hash_view(py, key)?;
        Ok(Operation::new(async move { hash.all::<Stored>().await }, |py, all| {
            let dict = PyDict::new(py);
            for (field, value) in all {
                dict.set_item(field, decode(py, &value.0)?)?;
            }
            dict.into_py_any(py)
        })
        .begins(Begin::Unlocked))
    }

    #[pyo3(signature = (key, *fields))]
    fn hdel(&self, py: Python<'_>, key: &str, fields: Vec<String>) -> PyResult<Operation> {
        let hash = self.hash_view(py, key)?;
        Ok(Operation::of(async move { hash.delete(&fields).await }))
    }

    fn hlen(&self, py: Python<'_>, key: &str) -> PyResult<Operation> {
        let hash = self.hash_view(py, key)?;
        Ok(Operation::of(async move { hash.len().await }))
    }

    #[pyo3(signature = (key, field, by=1))]
    fn hincrby(&self, py: Python<'_>, key: &str, field: String, by: i64) -> PyResult<Operation> {
        let hash = self.hash_view(py, key)?;
        Ok(Operation::of(async move { hash.increment(&field, by).await }))
    }

    #[pyo3(signature = (key, mapping, nx=false, xx=false))]
    fn zadd(
        &self,
        py: Python<'_>,
        key: &str,
        mapping: &Bound<'_, PyDict>,
        nx: bool,
        xx: bool,
    ) -> PyResult<Operation> {
        let set = self.set_view(py, key)?;
        let options = match (nx, xx) {
            (false, false) => ZaddOptions::default(),
            (true, false) => ZaddOptions::default().only_new(),
            (false, true) => ZaddOptions::default().only_present(),
            (true, true) => return Err(PyValueError::new_err("nx and xx exclude each other")),
        };
        let members = arguments::members(mapping)?;
        let begin = Begin::for_many(members.len());
        Ok(Operation::of(async move { set.add(&members, options).await }).begins(begin))
    }

    #[pyo3(signature = (key, start=0, end=-1, withscores=false, descending=false),
        text_signature = "($self, key, start=0, end=-1, withscores=False, descending=False)")]
    fn zrange(
        &self,
        py: Python<'_>,
        key: &str,
        start: i64,
        end: i64,
        withscores: bool,
        descending: bool,
    ) -> PyResult<Operation> {
        let set = self.set_view(py, key)?;
        let future = async move { set.range::<Stored>(start, end, order(descending)).await };
        Ok(Operation::new(future, move |py, found| members(py, found, withscores)).begins(Begin::Unlocked))
    }

    #[pyo3(signature = (key, min, max, start=0, num=None, withscores=false, descending=false))]
    #[allow(clippy::too_many_arguments, reason = "redis-py's")]
    fn zrange_by_score(
        &self,
        py: Python<'_>,
        key: &str,
        min: &Bound<'_, PyAny>,
        max: &Bound<'_, PyAny>,
        start: u64,
        num: Option<u64>,
        withscores: bool,
        descending: bool,
    ) -> PyResult<Operation> {
        let set = self.set_view(py, key)?;
        let range = arguments::score_range(min, max)?;
        let future = async move { set.range_by_score::<Stored>(range, order(descending), start, num).await };
        Ok(Operation::new(future, move |py, found| members(py, found, withscores)).begins(Begin::Unlocked))
    }

    #[pyo3(signature = (key, *removed))]
    fn zrem(&self, py: Python<'_>, key: &str, removed: Vec<Bound<'_, PyAny>>) -> PyResult<Operation> {
        let set = self.set_view(py, key)?;
        let removed =
            removed.iter().map(|member| encode(member).map(Stored)).collect::<PyResult<Vec<_>>>()?;
        let begin = Begin::for_many(removed.len());
        Ok(Operation::of(async move { set.remove(&removed).await }).begins(begin))
    }

    fn zremrangebyrank(&self, py: Python<'_>, key: &str, start: i64, end: i64) -> PyResult<Operation> {
        let set = self.set_view(py, key)?;
        Ok(Operation::of(async move { set.remove_by_rank(start, end).await }).begins(Begin::Unlocked))
    }

    fn zremrangebyscore(
        &self,
        py: Python<'_>,
        key: &str,
        min: &Bound<'_, PyAny>,
        max: &Bound<'_, PyAny>,
    ) -> PyResult<Operation> {
        let set = self.set_view(py, key)?;
        let range = arguments::score_range(min, max)?;
        Ok(Operation::of(async move { set.remove_by_score(range).await }).begins(Begin::Unlocked))
    }

    fn zcard(&self, py: Python<'_>, key: &str) -> PyResult<Operation> {
        let set = self.set_view(py, key)?;
        Ok(Operation::of(async move { set.len().await }))
    }

    fn zcount(
        &self,
        py: Python<'_>,
        key: &str,
        min: &Bound<'_, PyAny>,
        max: &Bound<'_, PyAny>,
    ) -> PyResult<Operation> {
        let set = self.set_view(py, key)?;
        let range = arguments::score_range(min, max)?;
        Ok(Operation::of(async move { set.count(range).await }))
    }

    fn zscore(&self, py: Python<'_>, key: &str, member: &Bound<'_, PyAny>) -> PyResult<Operation> {
        let set = self.set_view(py, key)?;
        let member = Stored(encode(member)?);
        Ok(Operation::of(async move { set.score(&member).await }))
    }

    fn zincrby(
        &self,
        py: Python<'_>,
        key: &str,
        amount: f64,
        member: &Bound<'_, PyAny>,
    ) -> PyResult<Operation> {
        let set = self.set_view(py, key)?;
        let member = Stored(encode(member)?);
        Ok(Operation::of(async move { set.increment(&member, amount).await }))
    }
}
