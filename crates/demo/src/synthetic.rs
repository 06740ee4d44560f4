//! Made-up sentiment and on-chain figures, derived from the bars so that they are the same in every run.
//!
//! There is no freely licensed source of either; everything made here says `synthetic` in its `source` and has
//! `"synthetic": true` among its fields, so that nobody mistakes it for a measurement.

use mtcache::trading::{Extra, OnchainMetrics, SocialSentiment, Timestamp};
use serde_json::json;

use crate::bars::{Bar, BarSeries, mean};

/// What `source` says of everything made here.
pub const SOURCE: &str = "synthetic, derived from daily bars";

/// Sentiment from the return of the last five days, volumes from the share's own volume against its month.
pub fn sentiment(series: &BarSeries) -> Option<SocialSentiment> {
    let recent = newest(series, 21);
    let last = recent.last()?;
    let week_ago = recent.get(recent.len().saturating_sub(6))?;
    let week = last.adjusted_close / week_ago.adjusted_close - 1.0;
    let score = (week * 12.0).tanh();
    let busy = last.volume / usual_volume(recent);
    let label = match score {
        score if score > 0.5 => "Very Bullish",
        score if score > 0.1 => "Bullish",
        score if score < -0.5 => "Very Bearish",
        score if score < -0.1 => "Bearish",
        _ => "Neutral",
    };
    Some(SocialSentiment {
        source: SOURCE.into(),
        symbol: series.symbol.clone(),
        sentiment_score: score,
        sentiment_label: Some(label.into()),
        social_volume: Some((5_000.0 * busy) as u64),
        engagement_count: Some((5_000.0 * busy * (1.0 + score.abs())) as u64),
        trending: busy > 1.5,
        timestamp: Timestamp::from_epoch_seconds(last.time as f64).ok()?,
        extra: synthetic(),
    })
}

/// "Network value" from the price, "transactions" and "flows" from the volume.
pub fn onchain(series: &BarSeries) -> Option<OnchainMetrics> {
    let recent = newest(series, 63);
    let last = recent.last()?;
    let prices: Vec<f64> = recent.iter().map(|bar| bar.adjusted_close).collect();
    let nvt = 40.0 * usual_volume(recent) / last.volume.max(1.0);
    let up: f64 = recent.iter().filter(|bar| bar.close >= bar.open).map(|bar| bar.volume).sum();
    let down: f64 = recent.iter().filter(|bar| bar.close < bar.open).map(|bar| bar.volume).sum();
    Some(OnchainMetrics {
        symbol: series.symbol.clone(),
        metric_name: "NVT".into(),
        metric_value: nvt,
        nvt_ratio: Some(nvt),
        mvrv_ratio: Some(last.adjusted_close / mean(&prices)),
        exchange_inflow: Some(down),
        exchange_outflow: Some(up),
        exchange_netflow: Some(down - up),
        active_addresses: Some((last.volume / 40.0) as u64),
        timestamp: Timestamp::from_epoch_seconds(last.time as f64).ok()?,
        source: SOURCE.into(),
        extra: synthetic(),
    })
}

fn newest(series: &BarSeries, count: usize) -> &[Bar] {
    &series.bars[series.bars.len().saturating_sub(count)..]
}

fn usual_volume(bars: &[Bar]) -> f64 {
    mean(&bars.iter().map(|bar| bar.volume).collect::<Vec<_>>()).max(1.0)
}

fn synthetic() -> Extra {
    let mut extra = Extra::new();
    extra.insert("synthetic".into(), json!(true));
    extra
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bars::{shipped, tests::series_of};

    #[test]
    fn made_up_figures_say_so_and_are_the_same_every_time() {
        let now = jiff::Timestamp::now();
        let (one, two) = (shipped(now).unwrap(), shipped(now).unwrap());
        for (one, two) in one.iter().zip(&two) {
            let feeling = sentiment(one).unwrap();
            assert_eq!(Some(&feeling), sentiment(two).as_ref());
            assert!((-1.0..=1.0).contains(&feeling.sentiment_score));
            let metrics = onchain(one).unwrap();
            assert_eq!(Some(&metrics), onchain(two).as_ref());
            assert!(feeling.source.contains("synthetic") && metrics.source.contains("synthetic"));
            assert_eq!(
                (&feeling.extra["synthetic"], &metrics.extra["synthetic"]),
                (&json!(true), &json!(true))
            );
        }
    }

    #[test]
    fn rising_week_is_bullish_and_no_bars_are_no_figures() {
        let rising = series_of(&[100.0, 101.0, 102.0, 104.0, 106.0, 110.0]);
        assert!(sentiment(&rising).unwrap().sentiment_score > 0.5);
        assert_eq!(sentiment(&series_of(&[])), None);
        assert_eq!(onchain(&series_of(&[])), None);
    }
}
