//! A decimal as exchanges write it: text, so that no digit is lost. Numbers are read as well and written back as they came.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Number;

/// A decimal in the form it was written in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Decimal {
    /// In quotes, as exchanges send candle fields.
    Text(String),
    /// A JSON number.
    Number(Number),
}

impl Decimal {
    /// The nearest binary number, or nothing when the text is not a finite number.
    pub fn to_f64(&self) -> Option<f64> {
        match self {
            Self::Text(text) => text.trim().parse().ok().filter(|value: &f64| value.is_finite()),
            Self::Number(number) => number.as_f64(),
        }
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => text.fmt(f),
            Self::Number(number) => number.fmt(f),
        }
    }
}

impl From<&str> for Decimal {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// Reads a number that some writers put in quotes; writes a number.
pub(crate) mod lenient {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer};

    use super::Decimal;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        let written = Decimal::deserialize(deserializer)?;
        written.to_f64().ok_or_else(|| D::Error::custom(format!("{written:?} is not a number")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_digit_of_a_decimal_text_survives() {
        let json = r#"["45000.500000000000000001",45000.5,7]"#;
        let read: Vec<Decimal> = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), json);
        assert_eq!(read[0].to_f64(), Some(45000.5));
        assert_eq!(Decimal::from("much").to_f64(), None);
    }
}
