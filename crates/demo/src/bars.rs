//! Daily bars: real prices of five shares, 2000 to 2013, moved in time so that the last bar is now.
//!
//! Invariant: a series is in order of time, every price in it is finite and above zero, and returns are computed from
//! adjusted prices only, since a share split is no loss. Absent: intraday data, which none of the shipped sources has.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use crate::{Error, ErrorKind};

/// The shipped bars; `data/README.md` has their origin and licence.
static SHIPPED: &[u8] = include_bytes!("../../../data/stocks.csv.gz");

/// Trading days in a year.
pub const TRADING_DAYS: f64 = 252.0;

/// One day of one share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bar {
    /// The day, as epoch seconds.
    pub time: i64,
    /// First price of the day.
    pub open: f64,
    /// Highest price of the day.
    pub high: f64,
    /// Lowest price of the day.
    pub low: f64,
    /// Last price of the day.
    pub close: f64,
    /// Shares traded.
    pub volume: f64,
    /// Last price, as if every later split and dividend had already happened.
    pub adjusted_close: f64,
}

impl Bar {
    /// First price of the day, adjusted as the last one is.
    pub fn adjusted_open(&self) -> f64 {
        self.open * self.adjusted_close / self.close
    }
}

/// All bars of one share, oldest first.
#[derive(Clone, Debug, PartialEq)]
pub struct BarSeries {
    /// The share's ticker.
    pub symbol: String,
    /// Its bars, oldest first.
    pub bars: Vec<Bar>,
}

impl BarSeries {
    /// The newest bar.
    pub fn last(&self) -> Option<&Bar> {
        self.bars.last()
    }

    /// Standard deviation of the last `days` daily returns; nothing with fewer than two returns.
    pub fn daily_volatility(&self, days: usize) -> Option<f64> {
        let start = self.bars.len().saturating_sub(days + 1);
        let returns = daily_returns(self.bars.get(start..)?);
        standard_deviation(&returns)
    }

    /// The adjusted closes, oldest first.
    pub fn adjusted_closes(&self) -> Vec<f64> {
        self.bars.iter().map(|bar| bar.adjusted_close).collect()
    }
}

/// Reads the bars that come with the program.
pub fn shipped(now: Timestamp) -> Result<Vec<BarSeries>, Error> {
    read(SHIPPED, now)
}

/// Reads bars from a gzipped CSV file with the columns Ticker, Date, Open, High, Low, Close, Volume, Adj Close.
pub fn from_file(path: &Path, now: Timestamp) -> Result<Vec<BarSeries>, Error> {
    let file = std::fs::File::open(path).map_err(|error| {
        Error::new(ErrorKind::Bars, format!("cannot open the bars {}", path.display())).caused_by(error)
    })?;
    read(file, now)
}

/// Reads gzipped CSV and moves every bar by the same time, so that the newest of all is now.
pub fn read(gzipped: impl Read, now: Timestamp) -> Result<Vec<BarSeries>, Error> {
    let mut series: BTreeMap<String, Vec<Bar>> = BTreeMap::new();
    let mut csv = csv::Reader::from_reader(GzDecoder::new(gzipped));
    for row in csv.deserialize() {
        let row: Row =
            row.map_err(|error| Error::new(ErrorKind::Bars, "cannot read a bar").caused_by(error))?;
        let (symbol, bar) = row.parse()?;
        series.entry(symbol).or_default().push(bar);
    }
    let newest = series.values().flatten().map(|bar| bar.time).max();
    let shift =
        now.as_second() - newest.ok_or_else(|| Error::new(ErrorKind::Bars, "the file has no bars"))?;
    let moved = series.into_iter().map(|(symbol, mut bars)| {
        bars.sort_by_key(|bar| bar.time);
        for bar in &mut bars {
            bar.time += shift;
        }
        BarSeries { symbol, bars }
    });
    Ok(moved.collect())
}

/// The month a bar is in, as `YYYY-MM`.
pub fn month_of(time: i64) -> String {
    let moment =
        Timestamp::UNIX_EPOCH.saturating_add(SignedDuration::from_secs(time)).unwrap_or(Timestamp::MAX);
    moment.strftime("%Y-%m").to_string()
}

/// Day-to-day returns as fractions, from adjusted closes.
pub fn daily_returns(bars: &[Bar]) -> Vec<f64> {
    bars.windows(2).map(|pair| pair[1].adjusted_close / pair[0].adjusted_close - 1.0).collect()
}

/// Sample standard deviation; nothing for fewer than two values.
pub fn standard_deviation(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((squares / (values.len() - 1) as f64).sqrt())
}

/// Arithmetic mean; zero of nothing.
pub fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

#[derive(Deserialize)]
struct Row {
    #[serde(rename = "Ticker")]
    ticker: String,
    #[serde(rename = "Date")]
    date: String,
    #[serde(rename = "Open")]
    open: f64,
    #[serde(rename = "High")]
    high: f64,
    #[serde(rename = "Low")]
    low: f64,
    #[serde(rename = "Close")]
    close: f64,
    #[serde(rename = "Volume")]
    volume: f64,
    #[serde(rename = "Adj Close")]
    adjusted_close: f64,
}

impl Row {
    fn parse(self) -> Result<(String, Bar), Error> {
        let Self { ticker, date, open, high, low, close, volume, adjusted_close } = self;
        if ![open, high, low, close, adjusted_close].iter().all(|price| price.is_finite() && *price > 0.0) {
            return Err(Error::new(
                ErrorKind::Bars,
                format!("{ticker} on {date} has a price that is not above zero"),
            ));
        }
        let day: jiff::civil::Date = date.parse().map_err(|error| {
            Error::new(ErrorKind::Bars, format!("{ticker} has the date {date:?}, which is none"))
                .caused_by(error)
        })?;
        let time = day.at(0, 0, 0, 0).to_zoned(jiff::tz::TimeZone::UTC).map_err(|error| {
            Error::new(ErrorKind::Bars, format!("the date {date} is out of range")).caused_by(error)
        })?;
        let time = time.timestamp().as_second();
        Ok((ticker, Bar { time, open, high, low, close, volume, adjusted_close }))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use super::*;

    /// A bar a day with these closes; each opens where the day before closed.
    pub(crate) fn series_of(closes: &[f64]) -> BarSeries {
        let bars = closes.iter().enumerate().map(|(day, &close)| {
            let open = if day == 0 { close } else { closes[day - 1] };
            Bar {
                time: day as i64 * 86_400,
                open,
                high: open.max(close),
                low: open.min(close),
                close,
                volume: 1000.0,
                adjusted_close: close,
            }
        });
        BarSeries { symbol: "TEST".into(), bars: bars.collect() }
    }

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn shipped_bars_are_all_there_and_end_now() {
        let now = Timestamp::now();
        let series = shipped(now).unwrap();
        let counts: Vec<_> =
            series.iter().map(|series| (series.symbol.as_str(), series.bars.len())).collect();
        assert_eq!(counts, [("AAPL", 3270), ("FB", 196), ("GOOG", 2148), ("IBM", 3270), ("MSFT", 3270)]);
        for series in &series {
            assert_eq!(series.last().unwrap().time, now.as_second());
            assert!(series.bars.is_sorted_by_key(|bar| bar.time));
        }
    }

    #[test]
    fn split_of_a_share_is_no_loss() {
        let series = shipped(Timestamp::now()).unwrap();
        let aapl = series.iter().find(|series| series.symbol == "AAPL").unwrap();
        let raw_halving = aapl.bars.windows(2).any(|pair| pair[1].close / pair[0].close < 0.55);
        assert!(raw_halving, "the raw prices show the split of 2005");
        assert!(
            daily_returns(&aapl.bars).iter().filter(|day| **day < -0.45).count() <= 1,
            "only the crash of 2000 is real"
        );
    }

    #[test]
    fn bad_rows_are_refused_with_their_share_and_day() {
        let header = "Ticker,Date,Open,High,Low,Close,Volume,Adj Close\n";
        let cases = [
            ("X,2001-02-03,1,1,1,0,5,1\n", "2001-02-03"),
            ("X,2001-02-30,1,1,1,1,5,1\n", "2001-02-30"),
            ("X,2001-02-03,1,1,one,1,5,1\n", "cannot read a bar"),
            ("", "no bars"),
        ];
        for (row, expected) in cases {
            let error = read(&gzip(&format!("{header}{row}"))[..], Timestamp::now()).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn volatility_of_known_returns() {
        // Returns +10 %, -10 %: sample standard deviation 0.1 * sqrt(2).
        let series = series_of(&[100.0, 110.0, 99.0]);
        assert!((series.daily_volatility(20).unwrap() - 0.1 * 2f64.sqrt()).abs() < 1e-12);
        assert_eq!(series_of(&[1.0, 2.0]).daily_volatility(20), None);
    }

    #[test]
    fn month_of_a_bar_is_its_utc_month() {
        assert_eq!(month_of(1_770_091_506), "2026-02");
    }
}
