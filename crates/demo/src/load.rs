//! The load on the two services: what the rest of a trading platform would ask of them, at the same time.
//!
//! Each loop stands for one kind of client and runs until the stop flag is up. Popularity follows Zipf's law; the random
//! numbers have fixed seeds, so two runs ask for the same things, as far as their speed allows. Every loop counts; none panics:
//! an error is counted and kept, and the loop goes on as a real service would.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mtcache::trading::{
    Extra, MarketData, OrderSide, SessionToken, SignalFilter, SizingRequest, TickOutcome, Timestamp, Trading,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::JoinSet;

use crate::Error;
use crate::bars::BarSeries;
use crate::crossover::{self, Strategy};
use crate::market_data_service::{MarketDataService, price_of};
use crate::popularity::Popularity;
use crate::risk_manager::RiskManager;

/// Clients that read market data.
const READERS: u64 = 24;
/// Clients that ask the risk manager.
const TRADERS: u64 = 8;
/// Users with sessions at a time.
const USERS: u64 = 6;
/// Pause of a client between two requests.
const THINK: Duration = Duration::from_millis(4);
/// Pause between two ticks of a share.
const TICK: Duration = Duration::from_millis(50);
/// One of so many ticks is followed by one that comes too late.
const LATE_EVERY: u64 = 10;
/// Pause between two signals.
const SIGNAL: Duration = Duration::from_millis(20);
/// Pause between two arrivals of new bars.
const NEW_BARS: Duration = Duration::from_secs(4);

/// What all clients share.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) market_data: MarketDataService,
    pub(crate) risk: RiskManager,
    pub(crate) signals: Trading,
    pub(crate) gateway: Trading,
    pub(crate) series: Arc<Vec<BarSeries>>,
    pub(crate) strategies: Arc<Vec<Strategy>>,
    pub(crate) counters: Arc<Counters>,
}

/// What the clients did.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) requests: AtomicU64,
    pub(crate) ticks_stored: AtomicU64,
    pub(crate) ticks_late: AtomicU64,
    pub(crate) late_sent: AtomicU64,
    pub(crate) stale_prices_seen: AtomicU64,
    pub(crate) signals_pushed: AtomicU64,
    pub(crate) signal_reads: AtomicU64,
    pub(crate) reads_out_of_order: AtomicU64,
    pub(crate) sessions_created: AtomicU64,
    pub(crate) sessions_used: AtomicU64,
    pub(crate) sessions_revoked: AtomicU64,
    pub(crate) revoked_that_opened: AtomicU64,
    pub(crate) invalidations: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) first_error: Mutex<Option<String>>,
    stop: AtomicBool,
}

impl Counters {
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    pub(crate) fn count<T>(&self, result: Result<T, impl Into<Error>>) -> Option<T> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.errors.fetch_add(1, Ordering::Relaxed);
                let mut first = self.first_error.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert_with(|| error.into().to_string());
                None
            }
        }
    }
}

/// The names of all users.
pub(crate) fn user_names() -> impl Iterator<Item = String> {
    (0..USERS).map(user_name)
}

fn user_name(user: u64) -> String {
    format!("user-{user}")
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Load {
    /// Starts every client; they end soon after [`Counters::stop`].
    pub(crate) fn start(&self) -> JoinSet<()> {
        let mut clients = JoinSet::new();
        for place in 0..self.series.len() {
            clients.spawn(self.clone().send_ticks(place));
        }
        for seed in 0..READERS {
            clients.spawn(self.clone().read_market_data(seed));
        }
        for seed in 0..TRADERS {
            clients.spawn(self.clone().trade(1000 + seed));
        }
        for user in 0..USERS {
            clients.spawn(self.clone().use_sessions(user));
        }
        clients.spawn(self.clone().push_signals());
        clients.spawn(self.clone().read_signals());
        clients.spawn(self.clone().bring_new_bars());
        clients
    }

    /// Everybody asks for the same backtest at once, which nobody has computed yet.
    pub(crate) async fn stampede(&self, callers: usize) -> usize {
        let Some(strategy) = self.strategies.first() else { return 0 };
        let mut asking = JoinSet::new();
        for _ in 0..callers {
            let (risk, id, counters) = (self.risk.clone(), strategy.id.clone(), self.counters.clone());
            asking.spawn(async move { counters.count(risk.backtest_results(&id).await).is_some() });
        }
        asking.join_all().await.into_iter().filter(|answered| *answered).count()
    }

    /// An exchange's stream of one share: a random walk from the last bar, with some ticks that come too late.
    async fn send_ticks(self, place: usize) {
        let Some((symbol, bar)) =
            self.series.get(place).and_then(|series| Some((&series.symbol, series.last()?)))
        else {
            return;
        };
        let mut random = StdRng::seed_from_u64(2000 + place as u64);
        let mut price = bar.close;
        let mut before: Option<MarketData> = None;
        let mut number = 0;
        while self.counters.goes_on() {
            tokio::time::sleep(TICK).await;
            price *= 1.0 + random.random_range(-0.0004..0.0004);
            let tick = MarketData { price, timestamp: Timestamp::now(), ..price_of(symbol, bar) };
            if self.send(&tick).await == Some(TickOutcome::Stored) {
                self.look_for(&tick).await;
            }
            number += 1;
            if number % LATE_EVERY == 0
                && let Some(late) = &before
            {
                // One that failed is counted as an error; whether it would have been refused nobody knows.
                if self.send(late).await.is_some() {
                    add(&self.counters.late_sent);
                }
            }
            before = Some(tick);
        }
    }

    async fn send(&self, tick: &MarketData) -> Option<TickOutcome> {
        let outcome = self.counters.count(self.market_data.take_tick(tick).await)?;
        add(match outcome {
            TickOutcome::Stored => &self.counters.ticks_stored,
            TickOutcome::Late => &self.counters.ticks_late,
        });
        Some(outcome)
    }

    /// After a price was stored, no read may see an older one.
    async fn look_for(&self, tick: &MarketData) {
        let read = self.counters.count(self.market_data.latest_price(&tick.symbol).await);
        if read.is_some_and(|read| read.value.timestamp < tick.timestamp) {
            add(&self.counters.stale_prices_seen);
        }
    }

    /// A strategy that watches shares.
    async fn read_market_data(self, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let symbols = self.series.iter().map(|series| series.symbol.clone()).collect();
        let Some(symbols) = Popularity::new(symbols) else { return };
        while self.counters.goes_on() {
            tokio::time::sleep(THINK).await;
            let symbol = symbols.pick(&mut random);
            let service = &self.market_data;
            match random.random_range(0..10) {
                0..6 => drop(self.counters.count(service.latest_price(symbol).await)),
                6..8 => drop(self.counters.count(service.social_sentiment(symbol).await)),
                8 => drop(self.counters.count(service.onchain_metrics(symbol).await)),
                _ => {
                    let limit = [30, 90, 250][random.random_range(0..3)];
                    drop(self.counters.count(service.daily_candles(symbol, limit).await));
                }
            }
        }
    }

    /// A trader who asks how a strategy did and how much to put in.
    async fn trade(self, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let Some(strategies) = Popularity::new(self.strategies.to_vec()) else { return };
        while self.counters.goes_on() {
            tokio::time::sleep(THINK).await;
            let strategy = strategies.pick(&mut random);
            let Some(price) = self.counters.count(self.market_data.latest_price(&strategy.symbol).await)
            else {
                continue;
            };
            let Some(backtest) = self.counters.count(self.risk.backtest_results(&strategy.id).await) else {
                continue;
            };
            if backtest.value.total_return_pct <= 0.0 {
                continue;
            }
            let request = SizingRequest {
                symbol: strategy.symbol.clone(),
                strategy_id: strategy.id.clone(),
                signal_strength: [0.3, 0.6, 0.9][random.random_range(0..3)],
                current_price: price.value.price,
                volatility: None,
                stop_loss_percent: None,
                risk_per_trade_percent: Some(1.0),
                order_side: if random.random_bool(0.5) { OrderSide::Buy } else { OrderSide::Sell },
                extra: Extra::new(),
            };
            self.counters.count(self.risk.position_size(&request).await);
        }
    }

    /// A strategy service: real crossings of the newest year, sent as if they arose now.
    async fn push_signals(self) {
        let mut crossings = Vec::new();
        for strategy in self.strategies.iter() {
            if let Some(series) = self.series.iter().find(|series| series.symbol == strategy.symbol) {
                crossings.extend(crossover::signals(series, strategy, 20));
            }
        }
        crossings.sort_by(|one, two| one.timestamp.cmp(&two.timestamp));
        for mut signal in crossings {
            if !self.counters.goes_on() {
                return;
            }
            tokio::time::sleep(SIGNAL).await;
            signal.timestamp = Timestamp::now();
            if self.counters.count(self.signals.signals().push(&signal).await).is_some() {
                add(&self.counters.signals_pushed);
            }
        }
    }

    /// An order executor: the newest strong signals of a share.
    async fn read_signals(self) {
        let mut random = StdRng::seed_from_u64(3000);
        let symbols = self.series.iter().map(|series| series.symbol.clone()).collect();
        let Some(symbols) = Popularity::new(symbols) else { return };
        while self.counters.goes_on() {
            tokio::time::sleep(SIGNAL).await;
            let filter = SignalFilter::new().symbol(symbols.pick(&mut random)).min_strength(0.2);
            let found = self.counters.count(self.signals.signals().find(&filter, 20).await);
            add(&self.counters.signal_reads);
            let newest_first = |found: Vec<mtcache::trading::BufferedSignal>| {
                found.windows(2).all(|pair| pair[0].at >= pair[1].at)
            };
            if !found.is_none_or(newest_first) {
                add(&self.counters.reads_out_of_order);
            }
        }
    }

    /// Users who log in, work for a while, and log out; sometimes everywhere at once.
    async fn use_sessions(self, user: u64) {
        let mut random = StdRng::seed_from_u64(4000 + user);
        let name = user_name(user);
        while self.counters.goes_on() {
            // Also when nothing can be created: a cache that is down is not to be hammered.
            tokio::time::sleep(THINK * 5).await;
            let mut tokens = Vec::new();
            for _ in 0..random.random_range(1..4) {
                if let Some((token, _)) =
                    self.counters.count(self.gateway.sessions().create(&name, Extra::new()).await)
                {
                    add(&self.counters.sessions_created);
                    tokens.push(token);
                }
            }
            let until = Instant::now() + Duration::from_millis(random.random_range(300..1500));
            while Instant::now() < until && self.counters.goes_on() {
                tokio::time::sleep(THINK * 5).await;
                let Some(token) = tokens.get(random.random_range(0..tokens.len().max(1))) else { break };
                self.counters.count(self.gateway.sessions().get(token).await);
                add(&self.counters.sessions_used);
            }
            self.log_out(&name, &tokens, random.random_bool(0.3)).await;
        }
    }

    async fn log_out(&self, user: &str, tokens: &[SessionToken], everywhere: bool) {
        let sessions = self.gateway.sessions();
        if everywhere {
            let ended = self.counters.count(sessions.revoke_all(user).await).unwrap_or_default();
            self.counters.sessions_revoked.fetch_add(ended, Ordering::Relaxed);
        } else {
            for token in tokens {
                if self.counters.count(sessions.revoke(token).await) == Some(true) {
                    add(&self.counters.sessions_revoked);
                }
            }
        }
        for token in tokens {
            if self.counters.count(sessions.get(token).await).is_some_and(|session| session.is_some()) {
                add(&self.counters.revoked_that_opened);
            }
        }
    }

    /// Every few seconds one share gets its newest bar again, and with it its backtests lose their worth.
    async fn bring_new_bars(self) {
        for series in self.series.iter().cycle() {
            let until = Instant::now() + NEW_BARS;
            while Instant::now() < until {
                if !self.counters.goes_on() {
                    return;
                }
                tokio::time::sleep(THINK * 25).await;
            }
            let mut newest = BarSeries {
                symbol: series.symbol.clone(),
                bars: series.bars.iter().rev().take(1).copied().collect(),
            };
            for bar in &mut newest.bars {
                bar.time = jiff::Timestamp::now().as_second();
            }
            if self.counters.count(self.risk.take_new_bars(&newest).await).is_some() {
                add(&self.counters.invalidations);
            }
        }
    }
}
