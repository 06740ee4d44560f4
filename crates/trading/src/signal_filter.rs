//! Which signals a reader wants.
//!
//! Works on plain and aggregate signals alike: the type may be in `signal_type`, `overall_signal` or `recommended_action`, the
//! strength in `strength`, a numeric `signal_strength` or else `confidence`. A signal without what is asked for does not match.

use serde_json::Value;

use crate::Timestamp;

/// Which signals a reader wants. Default: all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SignalFilter {
    pub(crate) symbol: Option<String>,
    pub(crate) signal_type: Option<String>,
    pub(crate) min_strength: Option<f64>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) until: Option<Timestamp>,
}

impl SignalFilter {
    /// All signals.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only of this symbol, exactly as written.
    #[must_use]
    pub fn symbol(mut self, symbol: impl Into<String>) -> Self {
        self.symbol = Some(symbol.into());
        self
    }

    /// Only of this type, such as `BUY` or `bullish`; upper or lower case does not matter.
    #[must_use]
    pub fn signal_type(mut self, signal_type: impl Into<String>) -> Self {
        self.signal_type = Some(signal_type.into());
        self
    }

    /// Only at least so strong.
    #[must_use]
    pub fn min_strength(mut self, strength: f64) -> Self {
        self.min_strength = Some(strength);
        self
    }

    /// Only from this moment on.
    #[must_use]
    pub fn since(mut self, moment: Timestamp) -> Self {
        self.since = Some(moment);
        self
    }

    /// Only up to this moment, which is included.
    #[must_use]
    pub fn until(mut self, moment: Timestamp) -> Self {
        self.until = Some(moment);
        self
    }

    /// Whether anything but the time decides.
    pub(crate) fn looks_inside(&self) -> bool {
        self.symbol.is_some() || self.signal_type.is_some() || self.min_strength.is_some()
    }

    /// Whether the signal is wanted; its time is not looked at.
    pub(crate) fn lets_through(&self, signal: &Value) -> bool {
        let symbol = self.symbol.as_ref().is_none_or(|symbol| signal["symbol"] == *symbol.as_str());
        let kind = self.signal_type.as_ref().is_none_or(|wanted| {
            ["signal_type", "overall_signal", "recommended_action"]
                .iter()
                .filter_map(|field| signal[field].as_str())
                .any(|kind| kind.eq_ignore_ascii_case(wanted))
        });
        let strong = self.min_strength.is_none_or(|least| {
            ["strength", "signal_strength", "confidence"]
                .iter()
                .find_map(|field| signal[field].as_f64())
                .is_some_and(|strength| strength >= least)
        });
        symbol && kind && strong
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plain_and_aggregate_signals_match_by_their_own_fields() {
        let plain = json!({"symbol": "BTC", "signal_type": "BUY", "strength": 0.7});
        let aggregate = json!({
            "symbol": "BTC", "overall_signal": "bullish", "signal_strength": "strong", "confidence": 0.8,
            "recommended_action": "buy",
        });
        for (filter, expected) in [
            (SignalFilter::new(), [true, true]),
            (SignalFilter::new().symbol("BTC"), [true, true]),
            (SignalFilter::new().symbol("btc"), [false, false]),
            (SignalFilter::new().signal_type("buy"), [true, true]),
            (SignalFilter::new().signal_type("BULLISH"), [false, true]),
            (SignalFilter::new().min_strength(0.75), [false, true]),
            (SignalFilter::new().symbol("BTC").min_strength(0.9), [false, false]),
        ] {
            assert_eq!(
                [filter.lets_through(&plain), filter.lets_through(&aggregate)],
                expected,
                "{filter:?}"
            );
        }
        assert!(!SignalFilter::new().symbol("BTC").lets_through(&json!("no object")));
        assert!(!SignalFilter::new().min_strength(0.0).lets_through(&json!({"symbol": "BTC"})));
    }
}
