//! The risk manager: backtests and position sizes, computed from the bars, kept in the database and read through the cache.
//!
//! What it shows: an expensive answer is computed by one loader however many ask; a position size is cached under everything it
//! depends on, with the price rounded by a stated rule; new bars invalidate what was computed from the old ones.

use mtcache::trading::{BacktestResult, PositionSizing, Rounding, SizingRequest, SizingRounding, Trading};
use mtcache::{Cache, Read};

use crate::bars::BarSeries;
use crate::crossover::Strategy;
use crate::database::Database;
use crate::sizing::{RiskLimits, size};
use crate::{Error, backtest};

/// Every bar there is: no share has more.
const ALL_BARS: u32 = 100_000;

/// Bars that a position size is computed from.
const SIZING_BARS: u32 = 30;

/// Answers for how much may be risked.
#[derive(Clone, Debug)]
pub struct RiskManager {
    trading: Trading,
    database: Database,
    limits: RiskLimits,
}

impl RiskManager {
    /// A risk manager over this cache.
    pub fn new(cache: &Cache, database: Database) -> Result<Self, Error> {
        Ok(Self { trading: Trading::from_environment(cache)?, database, limits: RiskLimits::default() })
    }

    /// What a strategy would have earned; computed once a day at the most.
    pub async fn backtest_results(&self, strategy_id: &str) -> Result<Read<BacktestResult>, Error> {
        let (database, wanted) = (self.database.clone(), strategy_id.to_owned());
        let load = move || async move { backtest_from_database(&database, &wanted).await };
        Ok(self.trading.backtests().get_or_load(strategy_id, load).await?)
    }

    /// How large a position may be. Prices are rounded to three digits before they are part of the key, so that the ticks of a quiet
    /// market share an answer.
    pub async fn position_size(&self, request: &SizingRequest) -> Result<Read<PositionSizing>, Error> {
        let rounding =
            SizingRounding { current_price: Rounding::Significant(3), ..SizingRounding::default() };
        let sizing = self.trading.position_sizing().clone().with_rounding(rounding);
        let (database, limits) = (self.database.clone(), self.limits.clone());
        let load = move |request: SizingRequest| async move {
            let series = database.bars(&request.symbol, SIZING_BARS).await?;
            let answer = size(&request, &series, &limits)?;
            let decided_at = jiff::Timestamp::now().as_second();
            database.record_position_size(&request, &request.hash()?, decided_at, &answer).await?;
            Ok::<_, Error>(answer)
        };
        Ok(sizing.get_or_load(request, load).await?)
    }

    /// Stores new bars of a share, and forgets what was computed from the old ones.
    pub async fn take_new_bars(&self, series: &BarSeries) -> Result<usize, Error> {
        // The database first: a load that begins after the invalidation must find the new bars.
        self.database.save_bars(series).await?;
        let strategies = self.database.strategies_of(&series.symbol).await?;
        for strategy in &strategies {
            self.trading.backtests().invalidate(&strategy.id).await?;
        }
        Ok(strategies.len())
    }
}

/// The stored result if it is of the newest bars, else a new one, stored for the next time.
async fn backtest_from_database(database: &Database, strategy_id: &str) -> Result<BacktestResult, Error> {
    let strategy: Strategy = database.strategy(strategy_id).await?;
    let newest = database.bars(&strategy.symbol, 1).await?.last().map_or(0, |bar| bar.time);
    if let Some(stored) = database.backtest(strategy_id, newest).await? {
        return Ok(stored);
    }
    let series = database.bars(&strategy.symbol, ALL_BARS).await?;
    let result = backtest::run(&strategy, &series);
    database.save_backtest(newest, &result).await?;
    Ok(result)
}
