//! What social media say about a symbol.

use serde::{Deserialize, Serialize};

use crate::{Extra, Timestamp};

/// What one source of social media says about a symbol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SocialSentiment {
    /// Who measured it, such as `twitter`, `reddit`, `lunarcrush`.
    pub source: String,
    /// What it is about.
    pub symbol: String,
    /// From -1, all against, to 1, all for.
    pub sentiment_score: f64,
    /// The score in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentiment_label: Option<String>,
    /// How many posts there were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub social_volume: Option<u64>,
    /// How many likes, replies and shares they had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engagement_count: Option<u64>,
    /// Whether the source lists the symbol as trending.
    #[serde(default)]
    pub trending: bool,
    /// When it was measured.
    pub timestamp: Timestamp,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}
