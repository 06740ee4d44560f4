//! How large a position may be: what is asked, what is answered, and how a question becomes part of a key.
//!
//! Invariant: two requests have the same hash exactly when they are the same JSON after rounding, whatever the order of
//! their fields and whether a whole number was written `45000` or `45000.0`. Fields this version does not know count as
//! inputs too, because the answer may depend on them.

use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};
use sha2::{Digest, Sha256};

use crate::{Error, ErrorKind, Extra};

/// Bytes of SHA-256 in a key: 128 bits, since a collision would be a wrong position.
const HASH_BYTES: usize = 16;

/// Which way an order goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum OrderSide {
    /// Profits when the price rises.
    #[serde(alias = "buy")]
    Buy,
    /// Profits when the price falls.
    #[serde(alias = "sell")]
    Sell,
}

/// A question to the risk manager. Percentages are in percent, not fractions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SizingRequest {
    /// What to trade.
    pub symbol: String,
    /// For which strategy.
    pub strategy_id: String,
    /// From 0 to 1.
    pub signal_strength: f64,
    /// The price now.
    pub current_price: f64,
    /// Daily volatility as a fraction, when the caller knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volatility: Option<f64>,
    /// How far from the price the stop is, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_loss_percent: Option<f64>,
    /// How much of the account one trade may lose, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub risk_per_trade_percent: Option<f64>,
    /// Buy or sell.
    pub order_side: OrderSide,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The risk manager's answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PositionSizing {
    /// How much money to put in.
    pub recommended_size_usd: f64,
    /// How many units that buys.
    pub recommended_quantity: f64,
    /// What the position may lose, in percent of the account.
    pub position_risk_percent: f64,
    /// Where to stop.
    pub stop_loss_price: f64,
    /// What is lost when the stop is hit.
    pub max_loss_usd: f64,
    /// What the caller should know.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Whether the position may be opened at all.
    pub approved: bool,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// How an input is rounded before it becomes part of a key.
///
/// Default: [`Rounding::Exact`]. A continuous price never hits the cache without rounding; how much of it is the
/// owner's decision, since every request within a step then gets the answer for the step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rounding {
    /// As it is.
    #[default]
    Exact,
    /// To so many digits after the point.
    Decimals(u8),
    /// To so many digits in all, at least one.
    Significant(u8),
}

impl Rounding {
    /// Rounds to the nearest step, halves away from zero as the decimal form has them.
    pub fn apply(self, value: f64) -> f64 {
        let text = match self {
            Self::Exact => return value,
            Self::Decimals(digits) => format!("{value:.*}", usize::from(digits.min(17))),
            Self::Significant(digits) => format!("{value:.*e}", usize::from(digits.clamp(1, 17) - 1)),
        };
        text.parse().unwrap_or(value)
    }
}

/// The rounding of each input of a sizing request. Default: everything exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SizingRounding {
    /// Of `current_price`.
    pub current_price: Rounding,
    /// Of `volatility`.
    pub volatility: Rounding,
    /// Of `signal_strength`.
    pub signal_strength: Rounding,
    /// Of `stop_loss_percent`.
    pub stop_loss_percent: Rounding,
    /// Of `risk_per_trade_percent`.
    pub risk_per_trade_percent: Rounding,
}

impl SizingRequest {
    /// The request with its numbers rounded; what the loader should be asked, so that the answer belongs to the key.
    #[must_use]
    pub fn rounded(&self, rounding: &SizingRounding) -> Self {
        let optional = |value: Option<f64>, rounding: Rounding| value.map(|value| rounding.apply(value));
        Self {
            signal_strength: rounding.signal_strength.apply(self.signal_strength),
            current_price: rounding.current_price.apply(self.current_price),
            volatility: optional(self.volatility, rounding.volatility),
            stop_loss_percent: optional(self.stop_loss_percent, rounding.stop_loss_percent),
            risk_per_trade_percent: optional(self.risk_per_trade_percent, rounding.risk_per_trade_percent),
            ..self.clone()
        }
    }

    /// The hash in the request's key: the first 128 bits of SHA-256 of its canonical JSON, in hexadecimal.
    ///
    /// Fails when a number is NaN or infinite.
    pub fn hash(&self) -> Result<String, Error> {
        let numbers = [
            Some(self.signal_strength),
            Some(self.current_price),
            self.volatility,
            self.stop_loss_percent,
            self.risk_per_trade_percent,
        ];
        // serde_json writes these as null, so two different requests would share a key.
        if numbers.into_iter().flatten().any(|number| !number.is_finite()) {
            return Err(Error::new(
                ErrorKind::InvalidValue,
                "a sizing request with NaN or an infinity has no key; give finite numbers",
            ));
        }
        let value = serde_json::to_value(self).map_err(|error| {
            Error::new(ErrorKind::InvalidValue, "the sizing request has no JSON form").caused_by(error)
        })?;
        let digest = Sha256::digest(canonical_json(&value).as_bytes());
        Ok(hex(digest.get(..HASH_BYTES).unwrap_or_default()))
    }
}

/// JSON without spaces, fields in order of their names, whole numbers without a fraction.
fn canonical_json(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| name.as_bytes());
            let fields: Vec<_> = fields
                .into_iter()
                .map(|(name, value)| format!("{}:{}", Value::from(name.as_str()), canonical_json(value)))
                .collect();
            format!("{{{}}}", fields.join(","))
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(canonical_json).collect();
            format!("[{}]", items.join(","))
        }
        Value::Number(number) => canonical_number(number),
        other => other.to_string(),
    }
}

fn canonical_number(number: &Number) -> String {
    /// Beyond this, not every whole number has a float of its own.
    const LARGEST_EXACT: f64 = 9_007_199_254_740_992.0;
    match number.as_f64() {
        Some(value) if number.is_f64() && value.fract() == 0.0 && value.abs() < LARGEST_EXACT => {
            (value as i64).to_string()
        }
        _ => number.to_string(),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(json: Value) -> SizingRequest {
        serde_json::from_value(json).unwrap()
    }

    fn example() -> Value {
        json!({"symbol": "AAPL", "strategy_id": "ma", "signal_strength": 0.8, "current_price": 430.47, "order_side": "BUY"})
    }

    #[test]
    fn order_of_fields_and_form_of_numbers_do_not_change_the_hash() {
        let one = request(
            json!({"symbol": "AAPL", "strategy_id": "ma", "signal_strength": 1, "current_price": 430, "order_side": "BUY", "b": 1.0, "a": [1, {"y": 2, "x": 3}]}),
        );
        let two = request(
            json!({"a": [1.0, {"x": 3.0, "y": 2}], "b": 1, "order_side": "buy", "current_price": 430.0, "signal_strength": 1.0, "strategy_id": "ma", "symbol": "AAPL"}),
        );
        assert_eq!(one.hash().unwrap(), two.hash().unwrap());
        assert_eq!(one.hash().unwrap().len(), 32);
    }

    #[test]
    fn every_input_changes_the_hash_unknown_ones_too() {
        let base = request(example()).hash().unwrap();
        for (field, value) in [
            ("symbol", json!("MSFT")),
            ("strategy_id", json!("ma2")),
            ("signal_strength", json!(0.81)),
            ("current_price", json!(430.48)),
            ("volatility", json!(0.02)),
            ("stop_loss_percent", json!(2)),
            ("risk_per_trade_percent", json!(1)),
            ("order_side", json!("SELL")),
            ("account", json!("b")),
        ] {
            let mut changed = example();
            changed[field] = value;
            assert_ne!(request(changed).hash().unwrap(), base, "{field}");
        }
    }

    #[test]
    fn continuous_prices_share_a_key_only_with_rounding() {
        let mut other = example();
        other["current_price"] = json!(430.4712);
        let (one, two) = (request(example()), request(other));
        assert_ne!(one.hash().unwrap(), two.hash().unwrap());
        let rounding =
            SizingRounding { current_price: Rounding::Significant(4), ..SizingRounding::default() };
        assert_eq!(one.rounded(&rounding).hash().unwrap(), two.rounded(&rounding).hash().unwrap());
    }

    #[test]
    fn rounding_gives_the_nearest_step() {
        let close = |left: f64, right: f64| assert!((left - right).abs() < 1e-12, "{left} {right}");
        close(Rounding::Decimals(2).apply(430.4712), 430.47);
        close(Rounding::Decimals(0).apply(430.4712), 430.0);
        close(Rounding::Significant(3).apply(0.012_345), 0.0123);
        close(Rounding::Significant(0).apply(86.0), 90.0);
        close(Rounding::Exact.apply(1.0 / 3.0), 1.0 / 3.0);
    }

    #[test]
    fn nan_has_no_hash() {
        let mut bad = request(example());
        bad.volatility = Some(f64::NAN);
        assert_eq!(bad.hash().unwrap_err().kind(), ErrorKind::InvalidValue);
    }

    fn any_json() -> impl proptest::strategy::Strategy<Value = Value> {
        use proptest::prelude::*;
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(Value::from),
            ".{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec((".{0,4}", inner), 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    /// The same JSON with the fields of every object in the opposite order.
    fn reversed(value: &Value) -> Value {
        match value {
            Value::Object(fields) => Value::Object(
                fields.iter().rev().map(|(name, value)| (name.clone(), reversed(value))).collect(),
            ),
            Value::Array(items) => items.iter().map(reversed).collect(),
            other => other.clone(),
        }
    }

    proptest::proptest! {
        #[test]
        fn canonical_form_reads_back_as_the_same_json_whatever_the_order(value in any_json()) {
            let canonical = canonical_json(&value);
            proptest::prop_assert_eq!(&canonical, &canonical_json(&reversed(&value)));
            let again: Value = serde_json::from_str(&canonical).unwrap();
            proptest::prop_assert_eq!(canonical_json(&again), canonical);
        }

        #[test]
        fn rounding_twice_is_rounding_once(value in -1e12f64..1e12, digits in 0u8..12) {
            for rounding in [Rounding::Decimals(digits), Rounding::Significant(digits)] {
                let once = rounding.apply(value);
                proptest::prop_assert_eq!(rounding.apply(once).to_bits(), once.to_bits());
            }
        }
    }
}
