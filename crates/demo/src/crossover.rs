//! Moving-average crossover: buy when the fast average rises above the slow one, sell when it falls below.
//!
//! Invariant: a crossing at a bar is computed from that bar and earlier ones only, so a backtest that trades on the next
//! bar never looks ahead.

use mtcache::trading::{Extra, Signal, SignalType, Timestamp};
use serde_json::json;

use crate::bars::{BarSeries, standard_deviation};
use crate::{Error, ErrorKind};

/// A strategy: which averages of which share.
#[derive(Clone, Debug, PartialEq)]
pub struct Strategy {
    /// Its name, part of cache keys and the primary key of the database.
    pub id: String,
    /// The share it trades.
    pub symbol: String,
    /// Days of the fast average.
    pub fast: usize,
    /// Days of the slow average.
    pub slow: usize,
    /// What a trade costs on each side, in hundredths of a percent.
    pub fee_bps: f64,
}

impl Strategy {
    /// A strategy named after its parameters, such as `ma-AAPL-10-50`; fails unless 0 < fast < slow.
    pub fn new(symbol: &str, fast: usize, slow: usize) -> Result<Self, Error> {
        if fast == 0 || fast >= slow {
            return Err(Error::new(
                ErrorKind::Request,
                format!("a crossover needs 0 < fast < slow, not {fast} and {slow}"),
            ));
        }
        let id = format!("ma-{symbol}-{fast}-{slow}");
        Ok(Self { id, symbol: symbol.to_owned(), fast, slow, fee_bps: 10.0 })
    }
}

/// The averages crossed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Crossing {
    /// At the close of this bar.
    pub bar: usize,
    /// Upwards is a buy.
    pub signal: SignalType,
    /// From 0 to 1: how large the move behind it is, three standard deviations being 1.
    pub strength: f64,
}

/// Every crossing of the two averages over these prices, oldest first.
pub fn crossings(prices: &[f64], fast: usize, slow: usize) -> Vec<Crossing> {
    let fast_averages = moving_average(prices, fast);
    let slow_averages = moving_average(prices, slow);
    let mut above: Option<bool> = None;
    let mut found = Vec::new();
    for bar in slow.max(1) - 1..prices.len() {
        let (fast_now, slow_now) = (fast_averages[bar], slow_averages[bar]);
        // Equal averages are no crossing: the side they were on before still counts.
        let side = if fast_now > slow_now {
            true
        } else if fast_now < slow_now {
            false
        } else {
            continue;
        };
        // The first side seen is where the series starts, not a crossing.
        if above.is_some_and(|before| before != side) {
            let signal = if side { SignalType::Buy } else { SignalType::Sell };
            found.push(Crossing { bar, signal, strength: strength(&prices[..=bar], fast, slow) });
        }
        above = Some(side);
    }
    found
}

/// The newest `count` crossings of a series as signals for the buffer, newest last, stamped with their bars' times.
pub fn signals(series: &BarSeries, strategy: &Strategy, count: usize) -> Vec<Signal> {
    let crossings = crossings(&series.adjusted_closes(), strategy.fast, strategy.slow);
    let newest = crossings.len().saturating_sub(count);
    crossings[newest..].iter().filter_map(|crossing| signal(series, strategy, crossing)).collect()
}

fn signal(series: &BarSeries, strategy: &Strategy, crossing: &Crossing) -> Option<Signal> {
    let bar = series.bars.get(crossing.bar)?;
    let mut extra = Extra::new();
    extra.insert("strategy_id".into(), json!(strategy.id));
    extra.insert("price".into(), json!(bar.close));
    extra.insert("bar_time".into(), json!(bar.time));
    Some(Signal {
        symbol: series.symbol.clone(),
        signal_type: crossing.signal,
        strength: crossing.strength,
        timestamp: Timestamp::from_epoch_seconds(bar.time as f64).ok()?,
        extra,
    })
}

/// The average of the last `window` prices at each bar; before there are that many, of those there are.
fn moving_average(prices: &[f64], window: usize) -> Vec<f64> {
    let mut sum = 0.0;
    prices
        .iter()
        .enumerate()
        .map(|(bar, price)| {
            sum += price;
            if bar >= window {
                sum -= prices[bar - window];
            }
            sum / (bar + 1).min(window) as f64
        })
        .collect()
}

/// The return over the fast window, in standard deviations of a return over so many days, a third of it.
fn strength(prices: &[f64], fast: usize, slow: usize) -> f64 {
    let recent = &prices[prices.len().saturating_sub(slow + 1)..];
    let returns: Vec<f64> = recent.windows(2).map(|pair| pair[1] / pair[0] - 1.0).collect();
    let before = prices[prices.len().saturating_sub(fast + 1)];
    let moved = (prices[prices.len() - 1] / before - 1.0).abs();
    match standard_deviation(&returns) {
        Some(deviation) if deviation > 0.0 => {
            (moved / (deviation * (fast as f64).sqrt()) / 3.0).clamp(0.0, 1.0)
        }
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bars::tests::series_of;

    #[test]
    fn known_prices_cross_where_expected() {
        // Averages of 1 and 2 days: the price against the mean of itself and the day before.
        let crossings = crossings(&[10.0, 9.0, 8.0, 9.0, 10.0, 9.5, 9.5, 9.0], 1, 2);
        let found: Vec<_> = crossings.iter().map(|crossing| (crossing.bar, crossing.signal)).collect();
        assert_eq!(found, [(3, SignalType::Buy), (5, SignalType::Sell)]);
        assert!(crossings.iter().all(|crossing| (0.0..=1.0).contains(&crossing.strength)));
    }

    #[test]
    fn a_crossing_never_looks_ahead() {
        let prices: Vec<f64> = (0..200).map(|day| 100.0 + 10.0 * (f64::from(day) / 7.0).sin()).collect();
        let all = crossings(&prices, 5, 20);
        assert!(all.len() > 5);
        for crossing in &all {
            let seen = crossings(&prices[..=crossing.bar], 5, 20);
            assert_eq!(seen.last(), Some(crossing));
        }
    }

    #[test]
    fn flat_or_short_series_give_no_signal() {
        assert!(crossings(&[5.0; 50], 5, 20).is_empty());
        assert!(crossings(&[5.0, 6.0], 5, 20).is_empty());
        assert!(crossings(&[], 5, 20).is_empty());
    }

    #[test]
    fn newest_signals_carry_price_and_strategy() {
        let series = series_of(&[10.0, 9.0, 8.0, 9.0, 10.0, 9.5]);
        let strategy = Strategy::new("TEST", 1, 2).unwrap();
        let signals = signals(&series, &strategy, 1);
        assert_eq!(signals.len(), 1);
        assert_eq!(signals[0].signal_type, SignalType::Sell);
        assert_eq!(signals[0].extra["strategy_id"], "ma-TEST-1-2");
        assert!((signals[0].timestamp.epoch_seconds() - 5.0 * 86_400.0).abs() < 1e-9);
    }

    #[test]
    fn averages_in_the_wrong_order_are_refused() {
        assert!(Strategy::new("X", 50, 10).is_err());
        assert!(Strategy::new("X", 0, 10).is_err());
    }
}
