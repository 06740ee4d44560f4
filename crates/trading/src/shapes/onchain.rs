//! What a blockchain itself shows about an asset.

use serde::{Deserialize, Serialize};

use crate::{Extra, Timestamp};

/// One on-chain metric of a symbol, with the common ratios beside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OnchainMetrics {
    /// Which asset.
    pub symbol: String,
    /// Which metric `metric_value` is, such as `NVT`.
    pub metric_name: String,
    /// The metric's value.
    pub metric_value: f64,
    /// Network value to transactions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nvt_ratio: Option<f64>,
    /// Market value to realised value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mvrv_ratio: Option<f64>,
    /// What flowed into exchanges in 24 hours, in units of the asset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange_inflow: Option<f64>,
    /// What flowed out of exchanges in 24 hours, in units of the asset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange_outflow: Option<f64>,
    /// Inflow less outflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange_netflow: Option<f64>,
    /// How many addresses were active in 24 hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_addresses: Option<u64>,
    /// When it was measured.
    pub timestamp: Timestamp,
    /// Who measured it, such as `glassnode`.
    pub source: String,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}
