//! Where the services keep what they own: bars, strategies, backtests and the position sizes they gave.
//!
//! SQLite in a file by default, PostgreSQL when the URL says so, through the same statements: `$1` placeholders, upserts and
//! plain column types that both know. Every query the services make has an index that answers it. Absent: the cache; what is
//! here is the truth that the cache holds copies of.

use std::path::Path;
use std::time::Duration;

use mtcache::trading::{BacktestResult, PositionSizing, SizingRequest};
use sqlx::any::{AnyPoolOptions, AnyRow};
use sqlx::{AnyConnection, AnyPool, AssertSqlSafe, Executor as _, Row as _};

use crate::bars::{Bar, BarSeries};
use crate::crossover::Strategy;
use crate::{Error, ErrorKind};

/// Connections held at the most. Default: 8, more than the loaders that run at once.
const MAX_CONNECTIONS: u32 = 8;

/// How long to wait for a free connection before giving up.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bars written by one statement; 8 values each, and SQLite takes 32,766 in all.
const BARS_PER_INSERT: usize = 500;

const SCHEMA: [&str; 6] = [
    "CREATE TABLE IF NOT EXISTS bars (
        symbol TEXT NOT NULL, time BIGINT NOT NULL,
        open DOUBLE PRECISION NOT NULL, high DOUBLE PRECISION NOT NULL, low DOUBLE PRECISION NOT NULL,
        close DOUBLE PRECISION NOT NULL, volume DOUBLE PRECISION NOT NULL, adjusted_close DOUBLE PRECISION NOT NULL,
        PRIMARY KEY (symbol, time))",
    "CREATE TABLE IF NOT EXISTS strategies (
        id TEXT PRIMARY KEY, symbol TEXT NOT NULL, fast BIGINT NOT NULL, slow BIGINT NOT NULL,
        fee_bps DOUBLE PRECISION NOT NULL)",
    "CREATE INDEX IF NOT EXISTS strategies_by_symbol ON strategies (symbol, id)",
    "CREATE TABLE IF NOT EXISTS backtests (
        strategy_id TEXT PRIMARY KEY, last_bar BIGINT NOT NULL, result TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS position_sizes (
        symbol TEXT NOT NULL, strategy_id TEXT NOT NULL, request_hash TEXT NOT NULL, decided_at BIGINT NOT NULL,
        size_usd DOUBLE PRECISION NOT NULL, approved BIGINT NOT NULL, answer TEXT NOT NULL,
        PRIMARY KEY (request_hash, decided_at))",
    "CREATE INDEX IF NOT EXISTS position_sizes_by_symbol ON position_sizes (symbol, decided_at)",
];

/// The services' database.
#[derive(Clone, Debug)]
pub struct Database {
    pool: AnyPool,
}

impl Database {
    /// Opens the SQLite file at `path`, made when it is not there.
    pub async fn open_file(path: &Path) -> Result<Self, Error> {
        Self::open(&format!("sqlite://{}?mode=rwc", path.display())).await
    }

    /// Opens `sqlite://PATH` or `postgres://USER@HOST/DATABASE` and makes the tables that are missing.
    pub async fn open(url: &str) -> Result<Self, Error> {
        sqlx::any::install_default_drivers();
        let sqlite = url.starts_with("sqlite:");
        let options = AnyPoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .after_connect(move |connection, _| Box::pin(prepare(connection, sqlite)));
        let pool = options.connect(url).await.map_err(|error| {
            let scheme = url.split(':').next().unwrap_or_default();
            Error::new(
                ErrorKind::Database,
                format!(
                    "cannot open the {scheme} database; give DATABASE_URL as sqlite://PATH or postgres://..."
                ),
            )
            .caused_by(error)
        })?;
        for statement in SCHEMA {
            sqlx::query(statement).execute(&pool).await.map_err(|error| failed("make the tables", error))?;
        }
        Ok(Self { pool })
    }

    /// Stores bars, replacing those of the same share and day.
    pub async fn save_bars(&self, series: &BarSeries) -> Result<(), Error> {
        let mut transaction = self.pool.begin().await.map_err(|error| failed("save bars", error))?;
        for chunk in series.bars.chunks(BARS_PER_INSERT) {
            let statement = insert_bars(chunk.len());
            let mut query = sqlx::query(AssertSqlSafe(statement));
            for bar in chunk {
                query = query
                    .bind(series.symbol.as_str())
                    .bind(bar.time)
                    .bind(bar.open)
                    .bind(bar.high)
                    .bind(bar.low)
                    .bind(bar.close)
                    .bind(bar.volume)
                    .bind(bar.adjusted_close);
            }
            query.execute(&mut *transaction).await.map_err(|error| failed("save bars", error))?;
        }
        transaction.commit().await.map_err(|error| failed("save bars", error))
    }

    /// The newest `count` bars of a share, oldest first; an unknown share is an error.
    pub async fn bars(&self, symbol: &str, count: u32) -> Result<BarSeries, Error> {
        let rows = sqlx::query(
            "SELECT time, open, high, low, close, volume, adjusted_close FROM bars
             WHERE symbol = $1 ORDER BY time DESC LIMIT $2",
        )
        .bind(symbol)
        .bind(i64::from(count))
        .fetch_all(&self.pool)
        .await
        .map_err(|error| failed("read bars", error))?;
        if rows.is_empty() {
            return Err(Error::new(ErrorKind::Unknown, format!("there are no bars of {symbol}")));
        }
        let bars = rows
            .iter()
            .rev()
            .map(bar)
            .collect::<Result<_, _>>()
            .map_err(|error| failed("read bars", error))?;
        Ok(BarSeries { symbol: symbol.to_owned(), bars })
    }

    /// Stores a strategy, replacing the one of the same name.
    pub async fn save_strategy(&self, strategy: &Strategy) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO strategies (id, symbol, fast, slow, fee_bps) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (id) DO UPDATE SET symbol = excluded.symbol, fast = excluded.fast, slow = excluded.slow,
             fee_bps = excluded.fee_bps",
        )
        .bind(strategy.id.as_str())
        .bind(strategy.symbol.as_str())
        .bind(strategy.fast as i64)
        .bind(strategy.slow as i64)
        .bind(strategy.fee_bps)
        .execute(&self.pool)
        .await
        .map_err(|error| failed("save a strategy", error))?;
        Ok(())
    }

    /// Reads a strategy; an unknown one is an error.
    pub async fn strategy(&self, id: &str) -> Result<Strategy, Error> {
        let row = sqlx::query("SELECT id, symbol, fast, slow, fee_bps FROM strategies WHERE id = $1")
            .bind(id)
            .fetch_optional(&self.pool)
            .await
            .map_err(|error| failed("read a strategy", error))?
            .ok_or_else(|| Error::new(ErrorKind::Unknown, format!("there is no strategy {id}")))?;
        strategy(&row).map_err(|error| failed("read a strategy", error))
    }

    /// The strategies that trade a share, by name.
    pub async fn strategies_of(&self, symbol: &str) -> Result<Vec<Strategy>, Error> {
        let rows = sqlx::query(
            "SELECT id, symbol, fast, slow, fee_bps FROM strategies WHERE symbol = $1 ORDER BY id",
        )
        .bind(symbol)
        .fetch_all(&self.pool)
        .await
        .map_err(|error| failed("list strategies", error))?;
        rows.iter().map(strategy).collect::<Result<_, _>>().map_err(|error| failed("list strategies", error))
    }

    /// Stores what a backtest over bars up to `last_bar` found, replacing an earlier one of the strategy.
    pub async fn save_backtest(&self, last_bar: i64, result: &BacktestResult) -> Result<(), Error> {
        let text =
            serde_json::to_string(result).map_err(|error| failed("write a backtest as JSON", error))?;
        sqlx::query(
            "INSERT INTO backtests (strategy_id, last_bar, result) VALUES ($1, $2, $3)
             ON CONFLICT (strategy_id) DO UPDATE SET last_bar = excluded.last_bar, result = excluded.result",
        )
        .bind(result.strategy_id.as_str())
        .bind(last_bar)
        .bind(text)
        .execute(&self.pool)
        .await
        .map_err(|error| failed("save a backtest", error))?;
        Ok(())
    }

    /// The stored backtest of a strategy, unless it was made from older bars than `last_bar`.
    pub async fn backtest(&self, strategy_id: &str, last_bar: i64) -> Result<Option<BacktestResult>, Error> {
        let row = sqlx::query("SELECT result FROM backtests WHERE strategy_id = $1 AND last_bar >= $2")
            .bind(strategy_id)
            .bind(last_bar)
            .fetch_optional(&self.pool)
            .await
            .map_err(|error| failed("read a backtest", error))?;
        let Some(row) = row else { return Ok(None) };
        let text: String = row.try_get(0).map_err(|error| failed("read a backtest", error))?;
        serde_json::from_str(&text).map(Some).map_err(|error| failed("understand a stored backtest", error))
    }

    /// Records which position size was given to whom; the same decision of the same second is recorded once.
    pub async fn record_position_size(
        &self,
        request: &SizingRequest,
        request_hash: &str,
        decided_at: i64,
        answer: &PositionSizing,
    ) -> Result<(), Error> {
        let text =
            serde_json::to_string(answer).map_err(|error| failed("write a position size as JSON", error))?;
        sqlx::query(
            "INSERT INTO position_sizes (symbol, strategy_id, request_hash, decided_at, size_usd, approved, answer)
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (request_hash, decided_at) DO NOTHING",
        )
        .bind(request.symbol.as_str())
        .bind(request.strategy_id.as_str())
        .bind(request_hash)
        .bind(decided_at)
        .bind(answer.recommended_size_usd)
        .bind(i64::from(answer.approved))
        .bind(text)
        .execute(&self.pool)
        .await
        .map_err(|error| failed("record a position size", error))?;
        Ok(())
    }

    /// How many position sizes of a share were decided since then, and how much money the approved ones come to.
    pub async fn exposure_since(&self, symbol: &str, since: i64) -> Result<(u64, f64), Error> {
        let row = sqlx::query(
            "SELECT COUNT(*), COALESCE(SUM(size_usd * approved), 0.0) FROM position_sizes
             WHERE symbol = $1 AND decided_at >= $2",
        )
        .bind(symbol)
        .bind(since)
        .fetch_one(&self.pool)
        .await
        .map_err(|error| failed("sum the position sizes", error))?;
        let read = || Ok((row.try_get::<i64, _>(0)?.unsigned_abs(), row.try_get(1)?));
        read().map_err(|error: sqlx::Error| failed("sum the position sizes", error))
    }

    /// Closes every connection.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// What each new SQLite connection is told: several may read while one writes, and a writer waits its turn.
async fn prepare(connection: &mut AnyConnection, sqlite: bool) -> sqlx::Result<()> {
    if sqlite {
        connection
            .execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 10000")
            .await?;
    }
    Ok(())
}

fn insert_bars(count: usize) -> String {
    let rows: Vec<String> = (0..count)
        .map(|row| {
            let values: Vec<String> = (1..=8).map(|column| format!("${}", row * 8 + column)).collect();
            format!("({})", values.join(", "))
        })
        .collect();
    format!(
        "INSERT INTO bars (symbol, time, open, high, low, close, volume, adjusted_close) VALUES {}
         ON CONFLICT (symbol, time) DO UPDATE SET open = excluded.open, high = excluded.high, low = excluded.low,
         close = excluded.close, volume = excluded.volume, adjusted_close = excluded.adjusted_close",
        rows.join(", ")
    )
}

fn bar(row: &AnyRow) -> sqlx::Result<Bar> {
    Ok(Bar {
        time: row.try_get(0)?,
        open: row.try_get(1)?,
        high: row.try_get(2)?,
        low: row.try_get(3)?,
        close: row.try_get(4)?,
        volume: row.try_get(5)?,
        adjusted_close: row.try_get(6)?,
    })
}

fn strategy(row: &AnyRow) -> sqlx::Result<Strategy> {
    Ok(Strategy {
        id: row.try_get(0)?,
        symbol: row.try_get(1)?,
        fast: row.try_get::<i64, _>(2)? as usize,
        slow: row.try_get::<i64, _>(3)? as usize,
        fee_bps: row.try_get(4)?,
    })
}

fn failed(what: &str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::Database, format!("the database could not {what}")).caused_by(error)
}
