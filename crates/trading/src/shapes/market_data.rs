//! The latest price of a symbol, with the candle it belongs to where the source sends one.

use serde::{Deserialize, Serialize};

use crate::decimal::lenient;
use crate::{Decimal, Extra, Timestamp};

/// The latest price of a symbol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MarketData {
    /// What is traded, such as `BTCUSDT`.
    pub symbol: String,
    /// The price, in the quote currency.
    #[serde(deserialize_with = "lenient::deserialize")]
    pub price: f64,
    /// The volume traded in the source's period.
    #[serde(default, deserialize_with = "lenient::deserialize")]
    pub volume: f64,
    /// When the price was made. A tick older than the one stored never replaces it.
    pub timestamp: Timestamp,
    /// First price of the candle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<Decimal>,
    /// Highest price of the candle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high: Option<Decimal>,
    /// Lowest price of the candle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low: Option<Decimal>,
    /// Last price of the candle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub close: Option<Decimal>,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn unknown_fields_and_candle_digits_pass_through_untouched() {
        let written = json!({
            "symbol": "BTCUSDT", "price": 45000.5, "volume": 1_234_567.89, "timestamp": "2026-02-03T04:05:06Z",
            "open": "44000.100000000000000001", "exchange": {"name": "x", "fees": [0.1, null]}, "big": 9_007_199_254_740_993_i64,
        });
        let read: MarketData = serde_json::from_value(written.clone()).unwrap();
        assert_eq!(read.extra["exchange"]["fees"][1], Value::Null);
        assert_eq!(serde_json::to_value(&read).unwrap(), written);
    }

    #[test]
    fn price_in_quotes_is_read_as_a_number() {
        let read: MarketData =
            serde_json::from_value(json!({"symbol": "A", "price": "1.5", "timestamp": 5})).unwrap();
        assert!((read.price - 1.5).abs() < f64::EPSILON);
        assert!(
            serde_json::from_value::<MarketData>(json!({"symbol": "A", "price": "dear", "timestamp": 5}))
                .is_err()
        );
    }
}
