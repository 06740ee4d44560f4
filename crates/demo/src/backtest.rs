//! What a crossover strategy would have earned: a real backtest over the bars.
//!
//! Long only, all in or all out. A crossing at a close trades at the next bar's open, never earlier; what is still held at
//! the end is sold at the last close. Each side pays the strategy's fee. Percentages are in percent.

use std::collections::BTreeMap;

use mtcache::trading::{BacktestResult, Extra, SignalType};
use serde_json::json;

use crate::bars::{BarSeries, TRADING_DAYS, mean, month_of, standard_deviation};
use crate::crossover::{Strategy, crossings};

/// Runs the strategy over every bar of the series.
pub fn run(strategy: &Strategy, series: &BarSeries) -> BacktestResult {
    let mut account = Account::new(strategy.fee_bps / 10_000.0);
    let mut crossings =
        crossings(&series.adjusted_closes(), strategy.fast, strategy.slow).into_iter().peekable();
    let mut equity = Vec::with_capacity(series.bars.len());
    for (index, bar) in series.bars.iter().enumerate() {
        if let Some(crossing) = crossings.next_if(|crossing| crossing.bar + 1 == index) {
            match crossing.signal {
                SignalType::Buy => account.buy(bar.adjusted_open()),
                SignalType::Sell => account.sell(bar.adjusted_open()),
            }
        }
        equity.push(account.worth(bar.adjusted_close));
    }
    if let (Some(bar), Some(last)) = (series.bars.last(), equity.last_mut()) {
        account.sell(bar.adjusted_close);
        *last = account.worth(bar.adjusted_close);
    }
    summarise(strategy, series, &account.trades, &equity)
}

/// Money in units of the start, and what it is in.
struct Account {
    fee: f64,
    cash: f64,
    shares: f64,
    cost: f64,
    /// What each closed trade earned, in units of the start.
    trades: Vec<f64>,
}

impl Account {
    fn new(fee: f64) -> Self {
        Self { fee, cash: 1.0, shares: 0.0, cost: 0.0, trades: Vec::new() }
    }

    fn buy(&mut self, price: f64) {
        if self.shares == 0.0 && self.cash > 0.0 {
            self.cost = self.cash;
            self.shares = self.cash * (1.0 - self.fee) / price;
            self.cash = 0.0;
        }
    }

    fn sell(&mut self, price: f64) {
        if self.shares > 0.0 {
            self.cash = self.shares * price * (1.0 - self.fee);
            self.shares = 0.0;
            self.trades.push(self.cash - self.cost);
        }
    }

    fn worth(&self, price: f64) -> f64 {
        self.cash + self.shares * price
    }
}

fn summarise(strategy: &Strategy, series: &BarSeries, trades: &[f64], equity: &[f64]) -> BacktestResult {
    let won = trades.iter().filter(|profit| **profit > 0.0).count();
    let gross_profit: f64 = trades.iter().filter(|profit| **profit > 0.0).sum();
    let gross_loss: f64 = -trades.iter().filter(|profit| **profit < 0.0).sum::<f64>();
    let mut extra = Extra::new();
    extra.insert("symbol".into(), json!(strategy.symbol));
    extra.insert("bars".into(), json!(series.bars.len()));
    extra.insert("last_bar".into(), json!(series.last().map(|bar| bar.time)));
    BacktestResult {
        strategy_id: strategy.id.clone(),
        total_trades: trades.len() as u64,
        winning_trades: won as u64,
        losing_trades: (trades.len() - won) as u64,
        win_rate: if trades.is_empty() { 0.0 } else { 100.0 * won as f64 / trades.len() as f64 },
        total_return_pct: equity.last().map_or(0.0, |last| (last - 1.0) * 100.0),
        monthly_returns: monthly_returns(series, equity),
        profit_factor: (gross_loss > 0.0).then(|| gross_profit / gross_loss),
        max_drawdown_pct: max_drawdown(equity) * 100.0,
        sharpe_ratio: sharpe_ratio(equity),
        extra,
    }
}

fn monthly_returns(series: &BarSeries, equity: &[f64]) -> BTreeMap<String, f64> {
    let mut returns = BTreeMap::new();
    let mut month_start = 1.0;
    let mut month: Option<String> = None;
    let mut before = 1.0;
    for (bar, worth) in series.bars.iter().zip(equity) {
        let this_month = month_of(bar.time);
        if month.as_ref() != Some(&this_month) {
            month_start = before;
            month = Some(this_month.clone());
        }
        returns.insert(this_month, (worth / month_start - 1.0) * 100.0);
        before = *worth;
    }
    returns
}

/// The deepest fall from a peak, as a fraction of the peak.
fn max_drawdown(equity: &[f64]) -> f64 {
    let mut peak = 1.0f64;
    equity.iter().fold(0.0, |deepest, worth| {
        peak = peak.max(*worth);
        deepest.max(1.0 - worth / peak)
    })
}

fn sharpe_ratio(equity: &[f64]) -> Option<f64> {
    let returns: Vec<f64> = equity.windows(2).map(|pair| pair[1] / pair[0] - 1.0).collect();
    let deviation = standard_deviation(&returns)?;
    (deviation > 0.0).then(|| mean(&returns) / deviation * TRADING_DAYS.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bars::{shipped, tests::series_of};

    fn strategy(fee_bps: f64) -> Strategy {
        Strategy { fee_bps, ..Strategy::new("TEST", 1, 2).unwrap() }
    }

    fn close(left: f64, right: f64) {
        assert!((left - right).abs() < 1e-9, "{left} is not {right}");
    }

    /// Crosses up at bar 3 (8 to 10), so buys at bar 4's open, 10; falls at bar 6, so sells at bar 7's open, 12. Crosses up at
    /// bar 8, buys at 16; the end comes at 14.
    fn known() -> BarSeries {
        series_of(&[10.0, 9.0, 8.0, 10.0, 15.0, 16.0, 12.0, 11.0, 16.0, 14.0])
    }

    #[test]
    fn known_bars_give_known_trades() {
        let result = run(&strategy(0.0), &known());
        assert_eq!((result.total_trades, result.winning_trades, result.losing_trades), (2, 1, 1));
        close(result.win_rate, 50.0);
        // 12/10 on the first trade, 14/16 on the second.
        close(result.total_return_pct, (1.2 * 0.875 - 1.0) * 100.0);
        close(result.profit_factor.unwrap(), 0.2 / (1.2 * 0.125));
        // Held from the peak of 16 (worth 1.6) to the sale at 12 and the end at 1.05.
        close(result.max_drawdown_pct, (1.0 - 1.05 / 1.6) * 100.0);
        close(result.monthly_returns["1970-01"], result.total_return_pct);
        assert!(result.sharpe_ratio.is_some());
    }

    #[test]
    fn fees_are_paid_on_both_sides_of_each_trade() {
        let free = run(&strategy(0.0), &known());
        let paid = run(&strategy(100.0), &known());
        let kept = 0.99f64.powi(4);
        close(paid.total_return_pct / 100.0 + 1.0, (free.total_return_pct / 100.0 + 1.0) * kept);
    }

    #[test]
    fn rising_prices_without_a_crossing_trade_nothing() {
        let result = run(&strategy(0.0), &series_of(&[1.0, 2.0, 3.0, 4.0]));
        assert_eq!(result.total_trades, 0);
        close(result.total_return_pct, 0.0);
        assert_eq!((result.profit_factor, result.sharpe_ratio), (None, None));
    }

    #[test]
    fn empty_series_is_no_trades_not_a_panic() {
        assert_eq!(run(&strategy(0.0), &series_of(&[])).total_trades, 0);
    }

    #[test]
    fn monthly_returns_compound_to_the_total() {
        let series = shipped(jiff::Timestamp::now()).unwrap();
        for series in &series {
            let result = run(&Strategy::new(&series.symbol, 10, 50).unwrap(), series);
            let compounded: f64 = result.monthly_returns.values().map(|month| 1.0 + month / 100.0).product();
            assert!((compounded - (1.0 + result.total_return_pct / 100.0)).abs() < 1e-6, "{}", series.symbol);
            assert!((0.0..=100.0).contains(&result.max_drawdown_pct));
            assert!(result.total_trades > 0);
        }
    }
}
