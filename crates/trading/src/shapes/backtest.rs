//! What a strategy would have earned over past prices. Percentages are in percent, not fractions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Extra;

/// What a strategy would have earned over past prices.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BacktestResult {
    /// Which strategy, with the parameters it was run with.
    pub strategy_id: String,
    /// How many positions were opened and closed.
    pub total_trades: u64,
    /// How many of them earned money.
    pub winning_trades: u64,
    /// How many lost money or came out even.
    pub losing_trades: u64,
    /// Percent of trades that won.
    pub win_rate: f64,
    /// What the whole run earned, in percent of the start.
    pub total_return_pct: f64,
    /// What each month earned in percent, by `YYYY-MM`.
    pub monthly_returns: BTreeMap<String, f64>,
    /// Gross profit over gross loss; absent when nothing was lost.
    #[serde(default)]
    pub profit_factor: Option<f64>,
    /// The deepest fall from a peak, in percent of the peak, as a positive number.
    pub max_drawdown_pct: f64,
    /// Mean over standard deviation of daily returns, times the root of 252; absent when the returns do not vary.
    #[serde(default)]
    pub sharpe_ratio: Option<f64>,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}
