//! Trading signals: the plain one that the buffer's writers send, and the aggregate of several sources.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Extra, Timestamp};

/// What a signal says to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum SignalType {
    /// Enter, or add to, a long position.
    Buy,
    /// Leave a long position, or enter a short one.
    Sell,
}

impl SignalType {
    /// The word in the stored form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Buy => "BUY",
            Self::Sell => "SELL",
        }
    }
}

/// A signal as the buffer's writers send it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// What to trade.
    pub symbol: String,
    /// Buy or sell.
    pub signal_type: SignalType,
    /// From 0, a hint, to 1, certainty.
    pub strength: f64,
    /// When the signal arose. Written as epoch seconds by [`Timestamp::now`].
    pub timestamp: Timestamp,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A signal drawn from several sources.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AggregateSignal {
    /// The aggregate's own identity.
    pub signal_id: String,
    /// What to trade.
    pub symbol: String,
    /// `bullish`, `bearish` or `neutral`.
    pub overall_signal: String,
    /// `weak`, `moderate`, `strong` or `very_strong`.
    pub signal_strength: String,
    /// From 0 to 1.
    pub confidence: f64,
    /// How much each source counted.
    #[serde(default)]
    pub component_weights: BTreeMap<String, f64>,
    /// `buy`, `sell`, `hold` or `wait`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recommended_action: Option<String>,
    /// `low`, `medium` or `high`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub risk_level: Option<String>,
    /// When the signal arose. ISO 8601, by custom of its writers.
    pub timestamp: Timestamp,
    /// When it is no longer of use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Whatever else the writer wants to say.
    #[serde(default)]
    pub metadata: Extra,
    /// The component signals, and fields this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documented_signal_reads_and_writes_as_it_came() {
        let written = json!({"symbol": "BTCUSDT", "signal_type": "BUY", "strength": 0.85, "timestamp": 1_770_091_506.25, "by": "ma"});
        let read: Signal = serde_json::from_value(written.clone()).unwrap();
        assert_eq!(read.signal_type, SignalType::Buy);
        assert_eq!(serde_json::to_value(read).unwrap(), written);
    }

    #[test]
    fn aggregate_keeps_its_component_signals() {
        let written = json!({
            "signal_id": "agg_1", "symbol": "BTCUSDT", "overall_signal": "bullish", "signal_strength": "strong",
            "confidence": 0.82, "component_weights": {"price": 0.4, "sentiment": 0.6}, "recommended_action": "buy",
            "risk_level": "medium", "timestamp": "2026-02-03T04:05:06", "metadata": {"n": 1}, "price_signal": "bullish",
        });
        let read: AggregateSignal = serde_json::from_value(written.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), written);
    }
}
